"""Signers that die, hang or outlive nobody: clear errors in between, and one try for each PIN."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from hsm_keys.errors import KeyNotFoundError, PinIncorrectError, PinMissingError, StoreUnavailableError
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.isolated import connection, process
from hsm_keys.stores.isolated.wire import FrameKind, frame_bytes
from hsm_keys.stores.pins import Pin
from tests.support.isolated import in_child, signer_of, socket_of, wait_for_end
from tests.support.stopping import stop
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.stores.isolated.store import IsolatedStore
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

OWNER = """
import os, sys
from hsm_keys import open_store
store = open_store(sys.argv[1], isolated=True)
key = store.key("prod")
key.sign(b"x")
if os.fork() == 0:
    os.read(0, 1)  # a worker that does nothing
    os._exit(0)
print(store._process._process.pid, store._process._folder.path, flush=True)
while True:
    key.sign(b"x")
"""


def kill(store: IsolatedStore) -> None:
    """Kill the signer, and return when it is dead; it stays a zombie for its owner to find."""
    signer = signer_of(store)
    descriptor = os.pidfd_open(signer.pid)
    signer.send_signal(signal.SIGKILL)
    assert wait_for_end(descriptor)
    os.close(descriptor)


def test_killed_while_idle_nobody_notices(isolated: IsolatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_APART_S", 0)
    key = isolated.key("prod")
    kill(isolated)
    assert len(key.sign(b"x")) == 256


def test_a_key_is_found_again_by_its_public_half(
    isolated: IsolatedStore, stocked: TestToken, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another key under the old name is not the same key."""
    monkeypatch.setattr(process, "_APART_S", 0)
    key = isolated.key("prod")
    with open_store(stocked.uri) as plain:
        RenamesKeys.of(plain).rename(plain.key("prod"), "prod+retired")
        other = plain.generate("prod")
        kill(isolated)
        signature = key.sign(b"x")
        assert openssl_verifies(tmp_path, key.public_pem(), b"x", signature)
        assert isolated.key("prod").public_key() == other.public_key()
        plain.destroy(plain.key("prod+retired"))
    kill(isolated)
    with pytest.raises(KeyNotFoundError, match="no longer in token"):
        key.sign(b"x")


def test_a_signer_that_hangs_is_replaced(isolated: IsolatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_APART_S", 0)
    monkeypatch.setattr(connection, "SIGNING_S", 0.3)
    monkeypatch.setattr(connection, "_GREETING_S", 0.3)
    isolated._close_idle()
    key, stopped = isolated.key("prod"), signer_of(isolated)
    stop(stopped.pid)
    isolated._idle[0]._patience(0.3)
    with pytest.raises(StoreUnavailableError, match="no answer in time"):
        key.sign(b"x")
    assert "doesn't answer" in in_child(lambda: str(key.sign(b"x")))  # not a child's to end
    monkeypatch.setattr(connection, "_GREETING_S", 1.0)
    assert len(key.sign(b"x")) == 256
    assert stopped.returncode == -signal.SIGKILL


def test_a_child_starts_the_next_one_and_owns_it(isolated: IsolatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_APART_S", 0)
    key = isolated.key("prod")
    kill(isolated)

    def sign() -> str:
        told = f"{len(key.sign(b'x'))} {signer_of(isolated).poll()}"
        isolated.close()
        return told

    assert in_child(sign) == "256 None"
    assert not socket_of(isolated).exists()
    assert len(key.sign(b"x")) == 256  # the parent starts another


def test_whoever_is_late_for_a_closed_store_starts_nothing(
    isolated: IsolatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_APART_S", 0)
    isolated.close()
    with pytest.raises(StoreUnavailableError, match="the store is closed"):
        isolated._process.connect()  # as a thread that saw it open a moment ago
    assert isolated._process._process is None
    assert not socket_of(isolated).exists()


def test_a_worker_that_lives_on_does_not_keep_it_alive(stocked: TestToken) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, stocked.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        signer = os.pidfd_open(int(pid))
        assert not wait_for_end(signer, 0)
        owner.kill()
        assert wait_for_end(signer)
        os.close(signer)
        assert not os.path.exists(folder)
        owner.stdin.close()


def test_signals_that_are_meant_for_the_owner_leave_it_alone(isolated: IsolatedStore) -> None:
    key = isolated.key("prod")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signer_of(isolated).send_signal(number)
        assert len(key.sign(b"x")) == 256
    assert os.getsid(signer_of(isolated).pid) != os.getsid(0)


def test_a_wrong_pin_is_tried_once(stocked: TestToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[FrameKind] = []

    def counted(kind: FrameKind, payload: bytes) -> bytes:
        tried.append(kind)
        return frame_bytes(kind, payload)

    monkeypatch.setattr(process, "frame_bytes", counted)
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("wrong-canary")
    with pytest.raises(PinIncorrectError, match="refused the PIN") as caught:
        open_store(stocked.uri_without_pin, pin_file=wrong, isolated=True)
    assert "canary" not in repr(caught.value) + str(caught.value)
    with pytest.raises(PinIncorrectError, match="refused this PIN before; it was not tried again"):
        open_store(stocked.uri_without_pin, pin_file=wrong, isolated=True)
    assert tried == [FrameKind.PIN]
    with pytest.raises(PinMissingError, match='token "kalshi"'):
        open_store(stocked.uri_without_pin, isolated=True)


def test_a_pin_that_was_changed_meanwhile_is_not_tried_again_by_anybody(
    isolated: IsolatedStore, stocked: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_APART_S", 0)
    key = isolated.key("prod")
    isolated._process._pin = Pin("changed-canary")
    kill(isolated)
    # a child makes the one try
    assert in_child(lambda: str(key.sign(b"x"))).startswith("PinIncorrectError: token")
    for _ in range(2):
        with pytest.raises(PinIncorrectError, match="the PIN is not tried again"):
            key.sign(b"x")
    assert "the PIN is not tried again" in in_child(lambda: str(key.sign(b"x")))
    assert signer_of(isolated).poll() == -signal.SIGKILL
