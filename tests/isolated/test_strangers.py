"""Whoever else comes to the socket, with whatever; and where the PIN never is."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import open_store
from hsm_keys.errors import StoreUnavailableError, UsageError
from hsm_keys.processes import keep_to_itself
from hsm_keys.stores.isolated import connection, server
from hsm_keys.stores.isolated.wire import MAX_MESSAGE, FrameKind, error_in, frame_bytes, json_frame, receive
from tests.support.isolated import in_child, signer_of, socket_of

if TYPE_CHECKING:
    from hsm_keys.stores.isolated.store import IsolatedStore
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm

NOBODY = 65534
_TURNED_AWAY = {
    "b''",
    "ConnectionResetError: [Errno 104] Connection reset by peer",
    "BrokenPipeError: [Errno 32] Broken pipe",
}


def connected(store: IsolatedStore) -> socket.socket:
    """Return a connection to the signer, greeted."""
    there = socket.socket(socket.AF_UNIX)
    there.settimeout(10)
    there.connect(str(socket_of(store)))
    greeting = receive(there, MAX_MESSAGE)
    assert greeting is not None
    assert greeting.kind is FrameKind.GREETING
    return there


def test_calls_that_are_none_are_refused_and_the_connection_goes_on(isolated: IsolatedStore) -> None:
    told: tuple[object, ...] = (
        None,
        [],
        {"call": "destroy", "name": "prod"},
        {"call": "key"},
        {"call": "attributes", "number": 10**6},
    )
    requests = [json_frame(FrameKind.CALL, call) for call in told] + [frame_bytes(FrameKind.SIGN, b"x", 2**32 - 1)]
    with connected(isolated) as there:
        for request in requests:
            there.sendall(request)
            frame = receive(there, MAX_MESSAGE)
            assert frame is not None
            assert isinstance(error_in(frame), UsageError)


def test_a_crowd_is_told_so(isolated: IsolatedStore) -> None:
    key = isolated.key("prod")
    crowd = [connected(isolated) for _ in range(255)]
    with socket.socket(socket.AF_UNIX) as one_more:
        one_more.connect(str(socket_of(isolated)))
        frame = receive(one_more, MAX_MESSAGE)
        assert frame is not None
        assert "takes no more" in error_in(frame).message
    assert len(key.sign(b"x")) == 256
    for there in crowd:
        there.close()
    until, kind = time.monotonic() + 10, FrameKind.ERROR
    while kind is FrameKind.ERROR and time.monotonic() < until:  # the signer sees them go one by one
        with socket.socket(socket.AF_UNIX) as one_more:
            one_more.connect(str(socket_of(isolated)))
            frame = receive(one_more, MAX_MESSAGE)
            assert frame is not None
            kind = frame.kind
    assert kind is FrameKind.GREETING


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused_by_the_folder_and_by_the_signer(isolated: IsolatedStore) -> None:
    key, path = isolated.key("prod"), socket_of(isolated)

    def come() -> str:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(str(path))
            there.sendall(frame_bytes(FrameKind.SIGN, b"x"))
            return repr(there.recv(100))

    def sign() -> str:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return str(key.sign(b"x"))

    assert in_child(come).startswith("PermissionError")
    assert "belongs to another user" in in_child(sign)
    closed = [folder for folder in path.parents if not folder.stat().st_mode & 0o001]
    modes = [(each, each.stat().st_mode & 0o7777) for each in (path, *closed)]
    try:
        for each, mode in modes:  # as if somebody had opened the folder and the socket to all
            each.chmod(mode | 0o777)
        assert in_child(come) in _TURNED_AWAY
        assert "belongs to another user" in in_child(sign)
    finally:
        for each, mode in modes:
            each.chmod(mode)


def test_a_client_refuses_a_signer_of_another_user(isolated: IsolatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    isolated._close_idle()
    monkeypatch.setattr(connection, "peer_is_me", lambda _socket: False)
    with pytest.raises(StoreUnavailableError, match="another user"):
        isolated.key("prod")


def test_secrets_stay_out_of_argv_environment_files_and_logs(
    stocked: TestToken,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HSM_KEYS_PIN", stocked.pin)
    monkeypatch.setenv("KALSHI_PRIVATE_KEY", "pem-canary")
    with open_store(stocked.uri_without_pin, isolated=True) as store:
        assert len(store.key("prod").sign(b"x")) == 256
        process = Path(f"/proc/{signer_of(store).pid}")  # type: ignore[arg-type]
        assert b"canary" not in (process / "cmdline").read_bytes()
        with suppress(PermissionError):  # nobody's but root's to read
            environment = (process / "environ").read_bytes()
            assert b"softhsm2.conf" in environment
            assert b"canary" not in environment
        assert [each.name for each in socket_of(store).parent.iterdir()] == ["signer"]  # type: ignore[arg-type]
        assert "canary" not in repr(store) + repr(vars(store)) + repr(vars(store._process))  # type: ignore[attr-defined]
    said = capfd.readouterr()
    assert "canary" not in caplog.text + said.out + said.err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and asks Linux")
def test_it_leaves_no_core_dump_and_is_not_to_be_traced(isolated: IsolatedStore) -> None:
    limits = Path(f"/proc/{signer_of(isolated).pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)

    def dumpable() -> str:
        keep_to_itself()
        return str(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE

    assert in_child(dumpable) == "0"


def test_without_a_descriptor_for_a_client_it_waits_and_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair()
    listening, asking = socket.socketpair()  # readable for good, as a listener is that can't accept
    asking.send(b"x")
    timeouts: list[float | None] = []

    class Full:
        fileno = listening.fileno

        def accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    def counted(
        reading: list[Any], writing: list[Any], failing: list[Any], timeout: float | None = None
    ) -> tuple[Any, ...]:
        timeouts.append(timeout)
        if len(timeouts) == 4:
            here.close()  # the owner goes
        return real(reading, writing, failing, timeout)

    real = select.select
    monkeypatch.setattr(server.select, "select", counted)  # type: ignore[attr-defined]  # the module
    with listening, asking, there:
        server._Server(None).run(Full(), there)  # type: ignore[arg-type]
    assert timeouts == [None, 0.1, None, 0.1, None]


def test_a_thread_that_cannot_be_had_turns_one_client_away(
    isolated: IsolatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(server.threading.Thread, "start", refuse)  # type: ignore[attr-defined]  # the module
    serving = server._Server(server._Keys(isolated))
    ours, theirs = socket.socketpair()
    with ours:
        serving._take(theirs)
        frame = receive(ours, MAX_MESSAGE)
        assert frame is not None
        assert "another thread" in error_in(frame).message
    assert serving._room._value == server._MAX_CONNECTIONS


def test_a_client_without_a_descriptor_says_so_and_leaves_the_signer_alone(
    isolated: IsolatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    key, signer = isolated.key("ed"), signer_of(isolated)
    isolated._close_idle()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        with pytest.raises(StoreUnavailableError, match="Too many open files"):
            key.sign(b"x")
    assert len(key.sign(b"x")) == 64
    assert signer_of(isolated) is signer


def test_many_at_once_wait_for_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, crowd = tmp_path / "signer", []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        listener.settimeout(10)
        let_in = 0
        while let_in == 0:
            crowd.append(socket.socket(socket.AF_UNIX))
            crowd[-1].setblocking(False)
            let_in = crowd[-1].connect_ex(str(path))
        assert let_in == errno.EAGAIN
        taken: list[socket.socket] = []
        first = threading.Event()

        def serve() -> None:
            for _ in crowd:  # the last of them never got in: its place is the connection's
                taken.append(listener.accept()[0])
                taken[-1].sendall(frame_bytes(FrameKind.GREETING, b"\1"))
                first.set()

        serving = threading.Thread(target=serve)

        def begin(_: float) -> None:
            if not serving.ident:
                serving.start()
            assert first.wait(10)

        monkeypatch.setattr(connection.time, "sleep", begin)  # type: ignore[attr-defined]  # the module
        there = connection.SignerConnection(path)
        serving.join(10)
        assert there.instance == 1
        there.close()
    for one in [*crowd, *taken]:
        one.close()


def test_a_pin_in_the_uri_goes_no_further(stocked: TestToken) -> None:
    with open_store(f"{stocked.uri_without_pin}&pin-value={stocked.pin}", isolated=True) as store:
        assert "canary" not in repr(vars(store._process)) + store.uri  # type: ignore[attr-defined]
        assert len(store.key("ed").sign(b"x")) == 64
