# ruff: noqa: INP001, D102 - a script that other benchmarks start
"""What Python costs on the way of a request without the product: ``floors.py answer|forward SOCKET [PORT]``.

``answer`` answers each request with three signed headers that are always the same. ``forward`` parses each request and
each answer with httptools, and passes both on as they are: a connection to the port for each client's connection.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from httptools import HttpRequestParser, HttpResponseParser

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


async def main(kind: str, path: str, port: str = "0") -> None:
    """Serve until it is killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(Answering if kind == "answer" else lambda: Client(int(port)), path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
