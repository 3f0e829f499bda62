"""A WebSocket session through the proxy is the one between the two ends: bytes, close codes, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import random
import socket
import struct
import threading
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from hsm_keys.proxy.access import Caller
from hsm_keys.proxy.relay import End, Relay
from hsm_keys.proxy.running import Running
from tests.support.http_heads import head_of
from tests.support.running_proxy import RunningProxy, with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.proxy.sessions import JudgedSession
    from hsm_keys.sandbox import SandboxServer

WS = "/trade-api/ws/v2"
KEY = base64.b64encode(b"0123456789abcdef").decode()
HANDSHAKE = (
    f"GET {WS} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
).encode()


class Kalshi:
    """Takes one handshake, and leaves its bare connection to the test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/trade-api/v2"
        self.sessions: list[socket.socket] = []
        self.heads: list[bytes] = []
        self.switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.first = b""
        """Sent in one write with the answer to the handshake."""
        self._arrived = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        head = head_of(connection)
        if not head.startswith(f"GET {WS} ".encode()):  # what keeps a connection warm
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            connection.close()
            return
        accept = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 - RFC 6455's
        extensions = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        connection.sendall(
            self.switching + b"Sec-WebSocket-Accept: " + accept + b"\r\n" + extensions + b"\r\n" + self.first
        )
        self.heads.append(head)
        self.sessions.append(connection)
        self._arrived.release()

    def session(self) -> socket.socket:
        assert self._arrived.acquire(timeout=20)
        connection = self.sessions[-1]
        connection.settimeout(20)
        return connection

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for session in self.sessions:
            session.close()


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (some := connection.recv(count - len(data))):
        data += some
    return data


@pytest.fixture
def kalshi() -> Iterator[Kalshi]:
    server = Kalshi()
    yield server
    server.stop()


@pytest.fixture
def proxy(
    sandbox: SandboxServer, kalshi: Kalshi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningProxy]:
    monkeypatch.setenv("KALSHI_API_BASE_URL", kalshi.base_url)
    monkeypatch.delenv("KALSHI_WS_URL")  # it serves both on one port
    with with_key_in_memory(tmp_path) as running:
        yield running


@pytest.fixture
def bot(proxy: RunningProxy) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(proxy.socket))
        yield connection


def opened(bot: socket.socket, kalshi: Kalshi) -> tuple[bytes, socket.socket]:
    """Open a session; return the head of the answer, and Kalshi's end."""
    bot.sendall(HANDSHAKE)
    return head_of(bot), kalshi.session()


def frame(opcode: int, payload: bytes, *, mask: bytes = b"") -> bytes:
    """Return a frame; with a mask, a client's."""
    size, bit = len(payload), 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, bit | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, bit | 127, size)
    return head + mask + (bytes(one ^ mask[at % 4] for at, one in enumerate(payload)) if mask else payload)


def test_what_is_negotiated_is_negotiated_by_the_two_ends(bot: socket.socket, kalshi: Kalshi) -> None:
    head, there = opened(bot, kalshi)
    there.close()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Extensions: permessage-deflate\r\n" in head
    assert f"Sec-WebSocket-Key: {KEY}\r\n".encode() in kalshi.heads[0]
    assert b"client_max_window_bits" in kalshi.heads[0]


def test_a_switch_that_is_none_is_told_as_that(bot: socket.socket, kalshi: Kalshi) -> None:
    kalshi.switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"  # without Connection
    head, there = opened(bot, kalshi)
    there.close()
    assert head.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("seed", range(3))
def test_every_byte_arrives_as_it_was_sent(bot: socket.socket, kalshi: Kalshi, seed: int) -> None:
    """So whatever a fuzzer of WebSockets sends to one end, good or bad, it sends to the other one."""
    _, there = opened(bot, kalshi)
    chance = random.Random(seed)  # noqa: S311 - no secret
    for sender, receiver in ((bot, there), (there, bot)) * 3:
        data = chance.randbytes(chance.choice((1, 2, 125, 65_536, 400_000)))
        thread = threading.Thread(target=sender.sendall, args=(data,))
        thread.start()
        assert exactly(receiver, len(data)) == data
        thread.join()
    there.close()


def test_what_comes_with_the_answer_is_not_lost(bot: socket.socket, kalshi: Kalshi) -> None:
    kalshi.first = frame(1, b"welcome")
    _, there = opened(bot, kalshi)
    assert exactly(bot, len(kalshi.first)) == kalshi.first
    there.close()


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xf5going", b"\x0f\xa1own", b"\x03\xed", b"\x00\x01"])
def test_a_close_and_its_answer_keep_their_codes(bot: socket.socket, kalshi: Kalshi, payload: bytes) -> None:
    """Also without a code, and with one that must not be sent: that is for the other end to judge."""
    _, there = opened(bot, kalshi)
    close = frame(8, payload, mask=b"mask")
    bot.sendall(close)
    assert exactly(there, len(close)) == close
    answer = frame(8, payload)
    there.sendall(answer)
    there.close()
    assert exactly(bot, len(answer)) == answer
    assert bot.recv(1) == b""


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_kalshi_drops_without_a_close_is_dropped(
    bot: socket.socket, kalshi: Kalshi, *, reset: bool
) -> None:
    _, there = opened(bot, kalshi)
    last = frame(1, b"last words")
    there.sendall(last)
    assert exactly(bot, len(last)) == last
    if reset:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    there.close()
    assert bot.recv(100) == b""  # no close frame: a client takes none for a good end


def test_a_client_that_drops_its_connection_drops_kalshis(bot: socket.socket, kalshi: Kalshi) -> None:
    _, there = opened(bot, kalshi)
    bot.close()
    assert there.recv(100) == b""


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (frame(2, b"x" * 70_000) + frame(1, b"whole"), True),
        (frame(1, b"whole") + frame(2, b"x" * 300)[:-1], False),
        (frame(2, b"x" * 70_000)[:5], False),
        (frame(8, b"\x03\xe8"), False),
    ],
    ids=["between two frames", "inside a payload", "inside a head", "after a close"],
)
def test_a_proxy_that_stops_says_so_where_a_frame_may_stand(
    bot: socket.socket, kalshi: Kalshi, proxy: RunningProxy, sent: bytes, *, told: bool
) -> None:
    _, there = opened(bot, kalshi)
    there.sendall(sent)
    assert exactly(bot, len(sent)) == sent
    stopping = threading.Thread(target=proxy.stop)
    stopping.start()
    assert exactly(bot, 100) == (frame(8, b"\x03\xe9") if told else b"")
    bot.close()
    stopping.join(20)
    assert not stopping.is_alive()
    there.close()


class Socket(asyncio.Transport):
    """In place of a connection: holds no protocol."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Nothing."""

    def resume_reading(self) -> None:
        """Nothing."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing: the test ends it."""

    def abort(self) -> None:
        raise AssertionError("it was closed before")


def test_a_session_leaves_nothing_to_the_garbage_collector() -> None:
    """It holds 5 KB, and what has grown old is looked through once in thousands of sessions."""

    async def session() -> list[weakref.ref[object]]:
        running = Running(Caller("bot"))
        with running:
            here, there = (End(Socket(), asyncio.Protocol(), lambda _end: None) for _ in range(2))
            relay = Relay(here, there, cast("JudgedSession", SimpleNamespace(passed=bytes)))
            running.end_by(relay.part)
            passing = asyncio.ensure_future(relay.run())
            await asyncio.sleep(0)
            here.connection_lost(None)
            there.connection_lost(None)
            await passing
        return [weakref.ref(one) for one in (running, relay, here, there)]

    gc.disable()
    try:
        assert [left() for left in asyncio.run(session())] == [None] * 4
    finally:
        gc.enable()
