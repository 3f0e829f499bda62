"""One signer for independent processes that name the same folder: who starts it, and who does when that one is gone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from hsm_keys import open_store
from hsm_keys.errors import PinIncorrectError, PinMissingError, StoreUnavailableError, UsageError
from hsm_keys.stores.isolated import process
from hsm_keys.stores.pins import Pin
from tests.support.isolated import served_by, signer_of, wait_for_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.isolated.store import IsolatedStore
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

WORKER = """
import pathlib, sys
from hsm_keys import open_store
from hsm_keys.stores.isolated import process
process._APART_S = 0
store = open_store(sys.argv[1], isolated=pathlib.Path(sys.argv[2]))
key = store.key("ed")
for line in sys.stdin:
    signed = len(key.sign(line.encode()))
    print(signed, store._process._process.pid if store._process._process else 0, flush=True)
"""


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_APART_S", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bots"


def opened(uri: str, folder: Path) -> IsolatedStore:
    return cast("IsolatedStore", open_store(uri, isolated=folder))


@contextmanager
def worker(uri: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, uri, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        yield running
        running.kill()


def signs(running: subprocess.Popen[str]) -> tuple[int, int]:
    """Let a worker sign; return how many bytes it got, and which signer it owns."""
    assert running.stdin is not None
    assert running.stdout is not None
    print("message", file=running.stdin, flush=True)
    signed, owned = running.stdout.readline().split()
    return int(signed), int(owned)


def test_independent_processes_share_one_signer_and_the_next_takes_over(stocked: TestToken, folder: Path) -> None:
    with worker(stocked.uri, folder) as first:
        signed, signer = signs(first)
        assert (signed, signer != 0) == (64, True)
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "signer", folder / "starts")] == [
            0o700,
            0o600,
            0o600,
        ]
        with worker(stocked.uri, folder) as second, opened(stocked.uri_without_pin, folder) as third:
            assert signs(second) == (64, 0)
            key = third.key("prod")
            assert len(key.sign(b"x")) == 256  # it needs no PIN: it makes no login
            assert served_by(third) == {signer}
            assert third.describe().startswith('token "kalshi"')
            descriptor = os.pidfd_open(signer)
            first.kill()
            assert wait_for_end(descriptor)
            os.close(descriptor)
            with pytest.raises(PinMissingError):  # its login has ended with its owner, and this one has no PIN
                key.sign(b"x")
            signed, successor = signs(second)  # not blocked by what happened to the third
            assert (signed, successor not in {0, signer}) == (64, True)
            assert len(key.sign(b"x")) == 256
            assert served_by(third) == {successor}


def test_a_signer_of_another_store_is_not_taken_for_this_one(stocked: TestToken, folder: Path) -> None:
    with opened(stocked.uri, folder) as first:
        with pytest.raises(UsageError, match="has pkcs11:token=kalshi"):
            opened("awskms:///?region=us-east-1", folder)
        assert len(first.key("ed").sign(b"x")) == 64  # and goes on
        assert signer_of(first).poll() is None


def test_a_refused_pin_is_not_tried_again_by_another_process(stocked: TestToken, folder: Path) -> None:
    with opened(stocked.uri, folder) as first, opened(stocked.uri, folder) as second:
        keys = first.key("ed"), second.key("ed")
        assert second._process._process is None
        second._process._pin = Pin("changed-canary")
        signer_of(first).kill()
        signer_of(first).wait()
        with pytest.raises(PinIncorrectError):
            keys[1].sign(b"x")
        with pytest.raises(PinIncorrectError, match="not tried again"):
            keys[0].sign(b"x")
        with pytest.raises(PinIncorrectError) as caught:
            opened(stocked.uri, folder)
        assert str(folder / "starts") in caught.value.hint
    (folder / "starts").unlink()
    with opened(stocked.uri, folder) as again:
        assert len(again.key("ed").sign(b"x")) == 64


def test_a_folder_that_others_can_enter_is_refused(stocked: TestToken, folder: Path, tmp_path: Path) -> None:
    folder.mkdir(mode=0o755)
    with pytest.raises(StoreUnavailableError, match="not private"):
        opened(stocked.uri, folder)
    folder.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(StoreUnavailableError) as caught:
        opened(stocked.uri, link)
    assert "no link" in caught.value.hint
    with pytest.raises(UsageError, match="no folder"):
        opened(stocked.uri, tmp_path / "nowhere" / "bots")
    with pytest.raises(UsageError, match="too long"):
        opened(stocked.uri, Path("/tmp") / ("x" * 100))  # noqa: S108 - it is never made
    assert list(folder.iterdir()) == []
