"""A policy that others can change, and a key of TLS that others can read, are refused."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.files import check_nobody_else_reads
from hsm_keys.proxy.options import Options, check_options
from hsm_keys.proxy.policy import load_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.running_proxy import RunningProxy

BALANCE = "/trade-api/v2/portfolio/balance"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    path = folder / "policy.toml"
    path.write_text("version = 1\n[clients.default]\n")
    path.chmod(0o644)
    return path


def refused(policy: Path) -> str:
    with pytest.raises(UsageError) as caught:
        check_options(Options(name="prod", policy=policy))
    load_policy(policy)  # to ask what it would say is no risk
    return caught.value.message


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_policy_that_others_can_write(policy: Path, mode: int) -> None:
    check_options(Options(name="prod", policy=policy))
    policy.chmod(mode)
    assert "others can write" in refused(policy)


@pytest.mark.parametrize(("mode", "good"), [(0o775, False), (0o777, False), (0o1777, True), (0o755, True)])
def test_a_policy_that_others_can_put_another_in_the_place_of(policy: Path, mode: int, good: bool) -> None:
    policy.parent.chmod(mode)
    if good:
        check_options(Options(name="prod", policy=policy))
    else:
        assert "others can replace" in refused(policy)


def test_a_link_is_followed_to_both_of_its_folders(policy: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(policy)
    check_options(Options(name="prod", policy=link))
    policy.parent.chmod(0o777)
    assert "others can replace" in refused(link)
    policy.parent.chmod(0o755)
    tmp_path.chmod(0o777)
    assert "others can replace" in refused(link)


@as_root
def test_a_policy_of_another_user(policy: Path) -> None:
    os.chown(policy, 4711, -1)
    assert "others can write" in refused(policy)


@pytest.mark.parametrize(("mode", "good"), [(0o600, True), (0o640, False), (0o604, False), (0o620, False)])
def test_a_key_of_tls(tmp_path: Path, mode: int, good: bool) -> None:
    key = tmp_path / "key.pem"
    key.touch(mode=0o600)
    key.chmod(mode)
    if good:
        check_nobody_else_reads(key)
    else:
        with pytest.raises(UsageError, match="others can read"):
            check_nobody_else_reads(key)


def test_a_group_may_read_a_key_of_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's group ssl-cert does."""
    key = tmp_path / "key.pem"
    key.touch(mode=0o640)
    key.chmod(0o640)
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 1001)
        check_nobody_else_reads(key)
    key.chmod(0o660)
    with pytest.raises(UsageError, match="others can read"):
        check_nobody_else_reads(key)


def test_it_is_refused_before_a_store_is_opened(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    (tmp_path / "key.pem").touch(mode=0o644)
    (tmp_path / "key.pem").chmod(0o644)
    tls = tmp_path / "cert.pem", tmp_path / "key.pem"
    with pytest.raises(UsageError, match="others can read"):
        check_options(Options(name="prod", listen="127.0.0.1:0", clients=tmp_path, tls=tls))


def test_a_policy_that_others_could_change_meanwhile_stays_as_it_was(start: Callable[..., RunningProxy]) -> None:
    proxy = start("[clients.default]\nread_only = true")
    path = proxy.folder / "policy.toml"
    path.write_text("version = 1\n[clients.default]\n")
    path.chmod(0o666)
    proxy.reload()
    deadline = time.monotonic() + 10
    while not any("wasn't reloaded" in line and "others can write" in line for line in proxy.said):
        assert time.monotonic() < deadline, proxy.said
        time.sleep(0.01)
    assert proxy.request("POST", BALANCE, "{}")[1]["error"]["code"] == "read_only"
