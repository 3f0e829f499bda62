# ruff: noqa: INP001, D102 - a script that other benchmarks start
"""What Python costs on the way of a request without the product: ``floors.py KIND SOCKET [PORT [STORE NAME]]``.

``answer`` answers each request with three signed headers that are always the same. ``forward`` parses each request and
each answer with httptools, and passes both on as they are: a connection to the port for each client's connection.
``sign`` does so once a thread has signed with the store's key of that name, once for each request; ``ahead`` passes the
request on at once, and the thread signs meanwhile. Nothing is judged, written down or kept in either.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

from httptools import HttpRequestParser, HttpResponseParser

from hsm_keys import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADERS = (
    b"KALSHI-ACCESS-KEY: 00000000-0000-0000-0000-000000000000\r\nKALSHI-ACCESS-TIMESTAMP: 1790000000000\r\n"
    b"KALSHI-ACCESS-SIGNATURE: " + 86 * b"x" + b"==\r\n"
)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(_HEADERS), _HEADERS)


class Answering(asyncio.Protocol):
    """Answers each request at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._transport.write(_ANSWER)


class End(asyncio.Protocol):
    """One end of a forwarded connection: passes on what it reads when a whole message has come."""

    def __init__(self, parser: type[HttpRequestParser | HttpResponseParser]) -> None:
        self._parser = parser(self)
        self._read = bytearray()
        self.waits: list[bytes] = []
        self.other: End | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        message = bytes(self._read)
        self._read.clear()
        if self.other is None or self.other.transport is None:
            self.waits.append(message)
        else:
            self.other.transport.write(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its end counts
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Client(End):
    """A client's end, which opens its connection to the port."""

    def __init__(self, port: int) -> None:
        super().__init__(HttpRequestParser)
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        _, self.other = await loop.create_connection(lambda: End(HttpResponseParser), "127.0.0.1", self._port)
        self.other.other = self
        for message in self.waits:
            cast("asyncio.Transport", self.other.transport).write(message)


class Signing(Client):
    """A client's end that has each request signed in a thread; one a signature ahead of it where that is enough."""

    def __init__(self, port: int, sign: Callable[[], bytes], threads: ThreadPoolExecutor, *, waits: bool) -> None:
        super().__init__(port)
        self._sign = sign
        self._threads = threads
        self._waits = waits

    def on_message_complete(self) -> None:
        signed = asyncio.get_running_loop().run_in_executor(self._threads, self._sign)
        if self._waits:
            signed.add_done_callback(lambda _: super(Signing, self).on_message_complete())
        else:
            super().on_message_complete()


def ends(kind: str, port: str, uri: str, name: str) -> Callable[[], asyncio.Protocol]:
    """Return what makes a client's end."""
    if kind == "answer":
        return Answering
    if kind == "forward":
        return lambda: Client(int(port))
    key, threads = open_store(uri).key(name), ThreadPoolExecutor(8 if kind == "sign" else 1)
    message = b"1703123456789GET/trade-api/v2/portfolio/balance"
    sys.setswitchinterval(0.0002)  # the proxy's
    return lambda: Signing(int(port), lambda: key.sign(message), threads, waits=kind == "sign")


async def main(kind: str, path: str, port: str = "0", uri: str = "", name: str = "") -> None:
    """Serve until it is killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(ends(kind, port, uri, name), path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
