"""A freeze that outlives a restart, and what is said of one that doesn't."""

from __future__ import annotations

import errno
import json
import os
import resource
from typing import TYPE_CHECKING

import pytest

from hsm_keys.proxy.marker import FreezeMarker
from tests.support.cli import run_cli, run_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.running_proxy import RunningProxy

BALANCE = "/trade-api/v2/portfolio/balance"


def frozen_after_a_restart(path: Path) -> bool:
    marker = FreezeMarker(path)
    try:
        return marker.frozen
    finally:
        marker.close()


def test_it_is_there_from_the_start_and_is_only_written_into(tmp_path: Path) -> None:
    path = tmp_path / "frozen"
    marker = FreezeMarker(path)
    found = path.stat()
    assert (path.read_bytes(), found.st_mode & 0o777) == (b"thawed\n", 0o600)
    for frozen in (True, False, True):
        marker.write(frozen=frozen)
        now = path.stat()
        assert (now.st_ino, now.st_size, marker.frozen) == (found.st_ino, found.st_size, frozen)
        assert frozen_after_a_restart(path) is frozen
    marker.close()
    assert [one.name for one in tmp_path.iterdir()] == ["frozen"]


@pytest.mark.parametrize("text", [b"", b"frozen\n", b"fro", b"froend\n", b"thawed", b"thawed\nx", b"\0" * 7])
def test_whatever_else_stands_in_it_is_a_freeze(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "frozen").write_bytes(text)
    assert frozen_after_a_restart(tmp_path / "frozen")


def test_a_file_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "frozen"
    marker = FreezeMarker(path)
    path.unlink()
    marker.write(frozen=True)
    assert frozen_after_a_restart(path)
    (tmp_path / "other").write_bytes(b"thawed\n")
    (tmp_path / "other").replace(path)
    marker.write(frozen=True)
    assert frozen_after_a_restart(path)
    marker.close()


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_what_the_disk_does_not_keep_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    marker = FreezeMarker(tmp_path / "frozen")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        marker.write(frozen=True)
    marker.close()


def full_disk(proxy: RunningProxy, left: int) -> None:
    """Let the proxy write nothing beyond so many bytes of a file."""
    resource.prlimit(proxy.process.pid, resource.RLIMIT_FSIZE, (left, resource.RLIM_INFINITY))


def test_a_full_disk_keeps_a_freeze(start: Callable[..., RunningProxy]) -> None:
    proxy = start()
    full_disk(proxy, len(b"thawed\n"))
    assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
    proxy.stop()
    assert start().request("GET", BALANCE)[1]["error"]["code"] == "frozen"


def test_a_freeze_that_cannot_be_kept_says_so(start: Callable[..., RunningProxy]) -> None:
    proxy = start()
    full_disk(proxy, 0)
    done = run_cli("proxy", "freeze", "--name", "prod", **proxy.environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "frozen, but the freeze can't be saved (File too large): a restart would thaw" in done.stderr
    assert proxy.request("GET", BALANCE)[1]["error"]["code"] == "frozen"
    told = run_json("proxy", "status", "--name", "prod", **proxy.environment)
    assert (told["frozen"], told["not_saved"]) == (True, "File too large")
    done = run_cli("proxy", "freeze", "--all", "--output", "json", **proxy.environment)
    assert (done.stdout, json.loads(done.stderr)["error"]["code"]) == ("", "not_saved")
    full_disk(proxy, resource.RLIM_INFINITY)
    assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
    assert run_json("proxy", "status", "--name", "prod", **proxy.environment)["not_saved"] == ""


def test_a_thaw_that_cannot_be_kept_leaves_it_frozen(start: Callable[..., RunningProxy]) -> None:
    proxy = start()
    assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
    full_disk(proxy, 3)
    done = run_cli("proxy", "thaw", "--name", "prod", **proxy.environment)
    assert done.returncode == 1
    assert "not thawed, because the thaw can't be saved" in done.stderr
    assert proxy.request("GET", BALANCE)[1]["error"]["code"] == "frozen"
    proxy.stop()
    assert start().request("GET", BALANCE)[1]["error"]["code"] == "frozen"
