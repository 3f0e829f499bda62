"""Byte for byte: a Kalshi that is a socket sees what the client sent, and the client what it answers."""

from __future__ import annotations

import gzip
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.door import Door, with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer

ORDERS = "/trade-api/v2/portfolio/orders"


class Kalshi:
    """Answers each connection's one request with given bytes, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer = b""
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/trade-api/v2"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                asked = b""
                while b"\r\n\r\n" not in asked or not self._whole(asked):
                    asked += connection.recv(65536)
                if b"/exchange/status" not in asked:
                    self.asked.append(asked)
                    connection.sendall(self.answer)

    def _whole(self, asked: bytes) -> bool:
        head, _, body = asked.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            return body.endswith(b"0\r\n\r\n")
        length = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), b":0")
        return len(body) >= int(length.partition(b":")[2])

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def kalshi() -> Iterator[Kalshi]:
    stand_in = Kalshi()
    yield stand_in
    stand_in.close()


@pytest.fixture
def door(sandbox: SandboxServer, kalshi: Kalshi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setenv("KALSHI_API_BASE_URL", kalshi.base_url)
    with with_key_in_memory(tmp_path) as running:
        yield running


def received(door: Door, request: bytes) -> bytes:
    """Send a request that closes its connection, and return every byte of the answer."""
    with door.connect() as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_what_goes_there(door: Door, kalshi: Kalshi) -> None:
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    body = b'{"count" :5,  "b": "\xc3\xa9\\u00e9"}'
    target = f"{ORDERS}?b=%2f&a=1&a=1&c=x+y%20z&d".encode()
    head = b"Host: localhost\r\nConnection: close\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: %d\r\n\r\n" % len(body)
    received(door, b"POST " + target + b" HTTP/1.1\r\n" + head + body)
    (asked,) = kalshi.asked
    sent_head, _, sent_body = asked.partition(b"\r\n\r\n")
    assert sent_head.split(b"\r\n")[0] == b"POST " + target + b" HTTP/1.1"
    assert sent_body == body
    names = [line.partition(b":")[0].lower() for line in sent_head.split(b"\r\n")[1:]]
    assert names.count(b"x-two") == 2
    assert names.count(b"kalshi-access-signature") == 1
    assert not {b"user-agent", b"accept-encoding", b"accept"} & set(names)


def test_a_body_that_was_streamed(door: Door, kalshi: Kalshi) -> None:
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" % ORDERS.encode()
    received(door, head + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    (asked,) = kalshi.asked
    chunks = asked.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert b"".join(chunks[1::2]) == b"abcdefg"


COMPRESSED = gzip.compress(b'{"orders": []}' * 100, mtime=0)


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (b"Content-Length: %d" % len(COMPRESSED), COMPRESSED),
        (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(COMPRESSED), COMPRESSED)),
    ],
    ids=["whole", "chunked"],
)
def test_what_comes_back(door: Door, kalshi: Kalshi, head: bytes, sent: bytes) -> None:
    kalshi.answer = (
        b"HTTP/1.1 200 Fine\r\nContent-Encoding: gzip\r\nX-Kalshi: 1\r\nX-Kalshi: 2\r\n" + head + b"\r\n\r\n" + sent
    )
    answer = received(door, b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % ORDERS.encode())
    got_head, _, body = answer.partition(b"\r\n\r\n")
    assert got_head.split(b"\r\n")[0] == b"HTTP/1.1 200 Fine"
    assert got_head.count(b"X-Kalshi: ") == 2
    assert COMPRESSED in body


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 2",
        b"garbage\r\n\r\n",
        b"",
    ],
    ids=["length", "chunk", "status line", "garbage", "nothing"],
)
def test_an_answer_that_was_cut_is_never_taken_for_whole(door: Door, kalshi: Kalshi, cut: bytes) -> None:
    kalshi.answer = cut
    try:
        answer = received(door, b"DELETE %s/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % ORDERS.encode())
    except ConnectionError:
        answer = b""
    assert not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"0\r\n\r\n")
    assert len(kalshi.asked) == 1
