# ruff: noqa: INP001, T201 - a script
"""A stand-in for Kalshi, for benchmarks: quick, in a process of its own, and no judge of signatures.

Every order is filled at once, unless it is told to be ``mixed``; see ``benchmarks/book.py``. ``GET /counted`` says what
came, in hundredths of a cent, and when orders and cancels of all came since it was asked the last time
(``time.monotonic``).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from httptools import HttpRequestParser

from benchmarks.book import Book

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX: Final = "/trade-api/v2"
ORDERS: Final = f"{PREFIX}/portfolio/events/orders"
_MOVES_S: Final = 0.1


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.parser = HttpRequestParser(self)
        self.target, self.body = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Keep a part of the target."""
        self.target += url

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer the request."""
        method, (path, _, query) = self.parser.get_method(), self.target.decode().partition("?")
        body, self.target, self.body = self.body, b"", b""
        status, said = self.answer(method.decode(), path, query, body)
        if not status:
            self.transport.close()
            return
        content = json.dumps(said).encode()
        self.transport.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content))

    def answer(self, method: str, path: str, query: str, body: bytes) -> tuple[int, Any]:
        """Return the status and the body of an answer; status 0 for none."""
        asked, book, last = dict(parse_qsl(query)), self.book, path.rpartition("/")[2]
        answers: dict[tuple[str, str], Callable[[], tuple[int, Any]]] = {
            ("POST", "orders"): lambda: book.place(body),
            ("DELETE", "orders"): book.cancel_all,
            ("GET", "orders"): lambda: book.orders(asked),
            ("GET", "fills"): lambda: book.fills(asked),
            ("GET", "counted"): lambda: (200, book.report()),
        }
        if answer := answers.get((method, last)):
            return answer()
        if path.removesuffix(last).endswith("/orders/"):
            return book.cancel(last) if method == "DELETE" else book.order(last)
        return 404, {}


class Exchange:
    """The stand-in as a process; a context manager, which sets the environment for a proxy before it.

    Args:
        mixed: Whether some orders rest, are refused, or have no answer.
    """

    def __init__(self, *, mixed: bool = False) -> None:
        self._mixed = mixed

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.exchange", *(["mixed"] if self._mixed else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this very module
        self.port = int(self.process.stdout.readline()) if self.process.stdout else 0
        private = Ed25519PrivateKey.generate()
        os.environ |= {
            "KALSHI_API_BASE_URL": f"http://127.0.0.1:{self.port}{PREFIX}",
            "KALSHI_WS_URL": f"ws://127.0.0.1:{self.port}/trade-api/ws/v2",
            "KALSHI_KEY_ID": "00000000-0000-4000-8000-000000000001",
            "KALSHI_PRIVATE_KEY": private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        }
        return self

    def counted(self) -> dict[str, Any]:
        """Return what came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        with closing(connection):
            connection.request("GET", "/counted")
            said: dict[str, Any] = json.loads(connection.getresponse().read())
            return said

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


async def serve() -> None:
    """Serve until it is terminated."""
    book = Book(mixed="mixed" in sys.argv)
    server = await asyncio.get_running_loop().create_server(lambda: Answering(book), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(_MOVES_S)
        if book.mixed:
            book.move()


if __name__ == "__main__":
    asyncio.run(serve())
