"""The signer's process: real SoftHSM behind a socket, killed, forked, crowded and lied to."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys import HsmKeysError, KeyType, open_store
from hsm_keys import errors as all_errors
from hsm_keys.errors import KeyNotFoundError, PinIncorrectError, StoreError, StoreUnavailableError, UsageError
from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.abilities import ImportsKeys, RenamesKeys
from hsm_keys.stores.isolated import wire
from hsm_keys.stores.isolated.store import IsolatedStore
from hsm_keys.stores.isolated.wire import Frame, FrameKind, SignerWireError
from tests.support.load import Load
from tests.support.stopping import stop
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.softhsm import TestToken

PIN = "pin-canary-4711"


@pytest.fixture
def made(stocked: TestToken) -> TestToken:
    """A token with a key of each kind; making them takes longer than most of these tests."""
    return stocked


@pytest.fixture
def store(made: TestToken) -> Iterator[IsolatedStore]:
    with open_store(made.uri, isolated=True) as opened:
        assert isinstance(opened, IsolatedStore)
        yield opened


def pid_of(store: IsolatedStore) -> int:
    process = store._process._process
    assert process is not None
    return process.pid


def ends(pid: int, within_s: float = 10) -> None:
    """Wait for the end of a process that may be somebody else's child."""
    descriptor = os.pidfd_open(pid)
    try:
        assert select.select([descriptor], [], [], within_s)[0], f"{pid} goes on"
    finally:
        os.close(descriptor)


pytestmark = pytest.mark.softhsm


@pytest.mark.parametrize("name", ["ed", "prod"])
def test_it_signs_what_openssl_verifies(store: IsolatedStore, name: str, tmp_path: Path) -> None:
    key = store.key(name)
    for message in (b"m", b"x" * 5000):
        assert openssl_verifies(tmp_path, key.public_pem(), message, key.sign(message))
    assert {one.name for one in store.keys()} == {"ed", "prod"}
    assert key.attributes()["sensitive"] is True
    assert {fact.name: fact.value for fact in key.custody_facts()}["extractable"] is False
    assert key.current().public_key() == key.public_key()


def test_this_process_never_loads_the_module(made: TestToken) -> None:
    script = (
        "import sys; from hsm_keys import open_store\n"
        "with open_store(sys.argv[1], isolated=True) as store: store.key('ed').sign(b'm')\n"
        "print('pkcs11' in sys.modules, 'softhsm' in open('/proc/self/maps').read())"
    )
    done = subprocess.run([sys.executable, "-c", script, made.uri], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


def test_errors_come_through_as_what_they_are(store: IsolatedStore) -> None:
    with pytest.raises(KeyNotFoundError, match="no key called 'nobody'") as caught:
        store.key("nobody")
    assert caught.value.exit_code == KeyNotFoundError.exit_code
    with pytest.raises(UsageError, match="65536 bytes"):
        store.key("ed").sign(b"x" * 70_000)
    with pytest.raises(TypeError):
        store.key("ed").sign("text")  # type: ignore[arg-type]


def test_it_changes_nothing(store: IsolatedStore) -> None:
    key = store.key("ed")
    refused: list[Any] = [
        lambda: store.generate("new"),
        lambda: RenamesKeys.of(store).rename(key, "new"),
        lambda: store.bind(key, "id", "prod"),
        lambda: store.destroy(key),
        lambda: ImportsKeys.of(store).imports(),
    ]
    for attempt in refused:
        with pytest.raises(UsageError, match="only signs"):
            attempt()


def test_nothing_of_the_pin_is_to_be_seen(store: IsolatedStore) -> None:
    process = Path(f"/proc/{pid_of(store)}")
    assert PIN.encode() not in (process / "cmdline").read_bytes()
    with suppress(PermissionError):  # nobody's but root's to read
        assert PIN.encode() not in (process / "environ").read_bytes()
    assert PIN not in f"{store!r} {store.uri} {store._process!r} {vars(store._process)!r}"


def test_the_socket_is_private(store: IsolatedStore) -> None:
    path = store._process._folder.socket
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()
    assert not path.parent.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_turned_away(store: IsolatedStore) -> None:
    path = store._process._folder.socket
    path.chmod(0o666)
    path.parent.chmod(0o755)
    for folder in path.parents:
        with suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o011)
    script = (
        "import os, socket, sys\nos.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1]); print(s.recv(100))"
    )
    seen = subprocess.run([sys.executable, "-c", script, str(path)], check=False, capture_output=True, text=True)
    assert seen.stdout.strip() == "b''", seen.stderr  # the kernel's word counts, even where the files let it in
    assert store.key("ed").sign(b"m")


def test_a_wrong_pin_is_tried_once(made: TestToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("wrong-canary\n")
    asked: list[int] = []
    monkeypatch.setattr("hsm_keys.stores.isolated.process.subprocess.Popen", _counting(asked))
    for _ in range(2):
        with pytest.raises(PinIncorrectError) as caught:
            open_store(f"{made.uri_without_pin}&pin-source=file:{wrong}", isolated=True)
        assert "wrong-canary" not in f"{caught.value!r} {caught.value.hint}"
        assert f"it came from the PIN file {wrong} (the URI's pin-source)" in caught.value.hint
    assert "not tried again" in caught.value.message
    assert len(asked) <= 2


def _counting(calls: list[int]) -> Any:
    real = subprocess.Popen

    def popen(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        return real(*arguments, **keywords)

    return popen


def test_killed_under_load_it_comes_back(store: IsolatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsm_keys.stores.isolated.process._APART_S", 0.05)
    with Load(store.key("ed")) as load:
        for _ in range(3):
            load.signs()
            first, failed = pid_of(store), load.errors.total()
            stop(first)
            time.sleep(
                0.05
            )  # by now requests are under way: one that isn't is served by the next signer, and none fails
            os.kill(first, signal.SIGKILL)
            load.fails(since=failed)
            load.signs()
            assert pid_of(store) != first
    assert (load.bad, load.wrong) == (0, [])
    assert set(load.errors) == {"store_unavailable"}


def test_a_signer_that_keeps_dying_is_not_started_all_the_time(
    store: IsolatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.stores.isolated.process._APART_S", 600.0)
    key = store.key("ed")
    first = pid_of(store)
    os.kill(first, signal.SIGKILL)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError) as caught:
            key.sign(b"m")
    assert "right after its start" in caught.value.message
    assert pid_of(store) == first


def test_it_ends_with_its_owner(made: TestToken) -> None:
    script = (
        "import sys; from hsm_keys import open_store\n"
        "store = open_store(sys.argv[1], isolated=True)\n"
        "print(store._process._process.pid, store._process._folder.path, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, made.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid, folder = owner.stdout.readline().split()
    owner.kill()
    owner.communicate()
    with suppress(ProcessLookupError):  # it has ended already
        ends(int(pid))
    assert not Path(folder).exists()


def test_forked_children_share_the_signer(store: IsolatedStore) -> None:
    key = store.key("ed")
    key.sign(b"before")
    first = pid_of(store)
    heard, telling = os.pipe()
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                os.write(telling, b"%d " % number + key.sign(b"%d" % number).hex().encode() + b"\n")
            os._exit(0)
        children.append(child)
    os.close(telling)
    with os.fdopen(heard) as pipe:
        lines = [line.split() for line in pipe]
    for child in children:
        os.waitpid(child, 0)
    assert sorted(number for number, _ in lines) == ["0", "1", "2"]
    for message, signature in lines:
        assert verifies(key.public_key(), message.encode(), bytes.fromhex(signature))
    assert pid_of(store) == first
    assert key.sign(b"after")


def test_eight_threads(store: IsolatedStore) -> None:
    with Load(store.key("ed"), 8) as load:
        load.signs(1000, 60)
    assert (load.bad, load.wrong, load.errors) == (0, [], {})


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, struct.pack("!BBII", 1, 1, 0, 2**31), struct.pack("!BBII", 1, 99, 0, 0)],
)
def test_garbage_ends_a_connection_and_not_the_signer(store: IsolatedStore, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(store._process._folder.socket))
        assert wire.receive(connection, 100) is not None
        connection.sendall(sent)
        answer = wire.receive(connection, 4096)
        assert answer is not None
        assert answer.kind is FrameKind.ERROR
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert store.key("ed").sign(b"m")


def test_a_hanging_signer_fails_within_its_time(made: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(made.uri, isolated=True) as second:
        assert isinstance(second, IsolatedStore)
        key = second.key("ed")
        key.sign(b"m")
        stop(pid_of(second))
        monkeypatch.setattr("hsm_keys.stores.isolated.connection.SIGNING_S", 0.2)
        with pytest.raises(StoreUnavailableError, match="no answer in time"):
            key.sign(b"m")
        os.kill(pid_of(second), signal.SIGCONT)


def test_closing_wakes_whoever_signs(made: TestToken) -> None:
    opened = open_store(made.uri, isolated=True)
    with Load(opened.key("ed")) as load:
        load.signs()
        opened.close()
        load.fails()
    assert load.wrong == []
    with pytest.raises(StoreUnavailableError, match="closed"):
        opened.keys()


def test_a_rotation_is_followed(made: TestToken, store: IsolatedStore) -> None:
    key = store.key("ed")
    with open_store(made.uri) as plain:
        old = plain.key("ed")
        RenamesKeys.of(plain).rename(old, "ed+retired")
        new = RenamesKeys.of(plain).rename(plain.generate("ed+next", KeyType.ED25519), "ed")
        assert key.sign(b"m")  # the old one, under its new name
        assert key.current().public_key() == new.public_key()


ERRORS = [getattr(all_errors, name) for name in all_errors.__all__]


@given(st.sampled_from(ERRORS), st.text(max_size=50), st.text(max_size=50))
def test_an_error_survives_the_wire(kind: type[HsmKeysError], message: str, hint: str) -> None:
    frame = wire.parse(wire.error_frame(kind(message, hint=hint)))
    told = wire.error_in(frame)
    assert (type(told).code, told.message, told.hint) == (kind.code, message, hint)


def test_a_foreign_error_tells_nothing_but_its_class() -> None:
    told = wire.error_in(wire.parse(wire.error_frame(ValueError("pin-canary-4711"))))
    assert isinstance(told, StoreError)
    assert "canary" not in f"{told.message} {told.hint}"
    assert "ValueError" in told.message


@given(st.sampled_from(list(FrameKind)), st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_frames_survive_the_wire_in_any_pieces(kind: FrameKind, payload: bytes, number: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data = wire.frame_bytes(kind, payload, number)

        def send() -> None:
            for at in range(0, len(data), 7):
                ours.sendall(data[at : at + 7])

        sender = threading.Thread(target=send)
        sender.start()
        assert wire.receive(theirs, 1000) == Frame(kind, number, payload)
        sender.join()


@given(st.binary(min_size=1, max_size=200))
def test_noise_is_refused_and_never_crashes(noise: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(noise)
        with suppress(SignerWireError):
            frame = wire.receive(theirs, 100)
            assert frame is None or wire.frame_bytes(frame.kind, frame.payload, frame.number) == noise
