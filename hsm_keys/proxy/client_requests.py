"""A client's request: its body awaited, its answer written (RFC 9112)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from httptools import HttpParserError, HttpParserUpgrade

from hsm_keys.proxy.begun import Begun, in_task
from hsm_keys.proxy.replies import Reply, head_bytes
from hsm_keys.proxy.request_heads import MalformedError, RequestHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from httptools import HttpRequestParser

    from hsm_keys.proxy.access import Caller
    from hsm_keys.proxy.policy import Policy

__all__ = ["BODY_LIMIT", "BodyError", "ClientRequest", "RequestConnection"]

BODY_LIMIT: Final = 256 * 1024
"""Bytes of a body that isn't judged. Kalshi's own requests are far smaller, and each one waits in memory."""

_BODY_S: Final = 30.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyError(Exception):
    """The body is too long, too slow, or was cut off.

    Args:
        status: The HTTP status.
        message: What the client is told.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RequestConnection(Protocol):
    """The connection that a request came over, as far as its request and its answer use it.

    Attributes:
        transport: Its transport; None once it is closed.
        caller: Who is at the other end by a policy, where the kernel has said so: that doesn't change.
    """

    transport: asyncio.Transport | None
    caller: tuple[Policy, Caller] | None

    def send(self, request: ClientRequest, reply: Reply) -> None:
        """Send an answer, unless it has gone out already."""

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written.

        Raises:
            ConnectionError: If it has gone.
        """

    def hand_over(self, take: Callable[[bytes], object]) -> None:
        """Give what was read behind a handshake to whoever reads on."""


class ClientRequest:
    """A request of which the head has come.

    Args:
        connection: Where it came from; None for none, in whose place nothing can be written.
        head: Its head, read or as it came, with the empty line; empty for one that couldn't be read.

    Attributes:
        head: Its head.
        method: Its method; empty if it couldn't be read.
        raw_path: Its target as it came.
        headers: Its headers.
        is_websocket: Whether it opens a WebSocket.
        client: Whose it is, once that is known.
        begun: What answers it, once that waits for something; None if a task does.
        body_exists: Whether it has a body.
        body_is_whole: Whether all of its body has come.
        has_begun: Whether its answer has begun.
        closes: Whether the connection is closed behind its answer.

    Raises:
        MalformedError: If the head can't be read in one way.
    """

    def __init__(self, connection: RequestConnection | None, head: bytes | RequestHead) -> None:
        self._connection = connection
        self.client = ""
        self.begun: Begun | None = None
        self.has_begun = False
        self._body = bytearray()
        self._is_malformed = False
        self._framing_left = 2 * BODY_LIMIT
        self._waiter: asyncio.Future[None] | None = None
        self.head = head = RequestHead(head) if isinstance(head, bytes) else head
        self.method, self.raw_path, self.headers = head.method, head.raw_path, head.headers
        self.is_websocket, self.closes = head.is_websocket, head.closes
        self._left = head.length
        self.body_exists = head.chunks is not None or head.length > 0
        self.body_is_whole = not self.body_exists
        if head.chunks is not None:
            head.reads_body = self

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection; None once it is closed."""
        return self._connection.transport if self._connection is not None else None

    @property
    def connection(self) -> RequestConnection | None:
        """Where it came from."""
        return self._connection

    async def whole_body(self, limit: int) -> bytes:
        """Return the body.

        Args:
            limit: How many bytes it may have.

        Raises:
            BodyError: If it is longer, takes longer than 30 seconds, or doesn't come whole.
        """
        if len(self._body) + self._left > limit:
            raise BodyError(413, f"the body has more than {limit} bytes")
        if not self.body_is_whole:
            await self._wait_for_body(limit)
        if len(self._body) > limit:
            raise BodyError(413, f"the body has more than {limit} bytes")
        return bytes(self._body)

    async def _wait_for_body(self, limit: int) -> None:
        if self.head.minor == 1 and self.headers.get("Expect", "").lower() == "100-continue":
            self._write(_CONTINUE)  # RFC 9110, section 10.1.1
        await in_task()
        try:
            async with asyncio.timeout(_BODY_S):
                while not self.body_is_whole and len(self._body) <= limit:
                    if self._is_malformed:
                        raise BodyError(400, "the body isn't one that can be read in one way")
                    if self.transport is None:
                        raise BodyError(400, "the body was cut off")
                    self._waiter = asyncio.get_running_loop().create_future()
                    await self._waiter
        except TimeoutError:
            raise BodyError(408, f"the body didn't come within {_BODY_S:.0f} seconds") from None

    def take(self, buffer: bytearray) -> None:
        """Take from a buffer what belongs to the body.

        Raises:
            MalformedError: If chunks can't be read in one way; whoever asks for the body hears of it too.
        """
        try:
            self._take(buffer)
        finally:
            self.wake()

    def _take(self, buffer: bytearray) -> None:
        if self.head.chunks is None:
            part = bytes(buffer[: self._left])
            self._body += part
            self._left -= len(part)
            del buffer[: len(part)]
            self.body_is_whole = not self._left
        else:
            self._take_chunks(self.head.chunks, buffer)

    def wake(self) -> None:
        """Have whoever waits for the body look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def stream(self, reply: Reply, chunks: AsyncIterator[bytes], stalled_s: float) -> None:
        """Answer with a body that is still coming.

        Args:
            reply: The answer's head. With a Content-Length, that is the body's.
            chunks: The body.
            stalled_s: Seconds after which a client that takes nothing is given up.

        Raises:
            TimeoutError: If the client takes nothing.
            ConnectionError: If it has gone.
            Exception: Whatever the chunks raise: the client must not take what it has for the whole.
        """
        headers = reply.headers
        in_chunks = "Content-Length" not in headers and self.head.minor == 1
        if in_chunks:
            headers["Transfer-Encoding"] = "chunked"
        self.closes = self.closes or not (in_chunks or "Content-Length" in headers)
        if self.closes:
            headers["Connection"] = "close"
        self._write(head_bytes(reply.status, reply.reason, headers))
        async for chunk in chunks:
            self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if in_chunks else chunk)
            if self._connection is not None:
                await in_task()
                async with asyncio.timeout(stalled_s):
                    await self._connection.drain()
        if in_chunks:
            self._write(b"0\r\n\r\n")
        reply.is_sent = True

    def answer(self, reply: Reply) -> None:
        """Answer before the request is over: the client doesn't wait for what is still to be done for it."""
        self.has_begun = True
        if self._connection is not None:
            self._connection.send(self, reply)

    def begin(self, head: bytes) -> None:
        """Begin the answer with these bytes."""
        self._write(head)

    # What follows is called while a body in chunks is read.

    def on_body(self, body: bytes) -> None:
        """Keep a part of a chunked body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Note that a chunked body is whole."""
        self.body_is_whole = True

    def _take_chunks(self, parser: HttpRequestParser, buffer: bytearray) -> None:
        """Feed lines, so that the parser stops where the body ends: what follows is the next request's."""
        try:
            while buffer and not self.body_is_whole and len(self._body) <= BODY_LIMIT:
                end = buffer.find(b"\n") + 1 or len(buffer)
                parser.feed_data(bytes(buffer[:end]))
                del buffer[:end]
                self._framing_left -= end
                if self._framing_left < 0:
                    raise HttpParserError
        except (HttpParserError, HttpParserUpgrade):
            self._is_malformed = True
            raise MalformedError from None

    def _write(self, data: bytes) -> None:
        if data is not _CONTINUE:  # the answer has yet to begin
            self.has_begun = True
        transport = self.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        transport.write(data)
