"""A client's connection: one request after the other, each read to its end before it is answered (RFC 9112)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, cast

from hsm_keys.proxy.begun import begin
from hsm_keys.proxy.client_requests import ClientRequest
from hsm_keys.proxy.request_heads import LONGEST_HEAD, MalformedError, RequestHead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hsm_keys.proxy.access import Caller
    from hsm_keys.proxy.policy import Policy
    from hsm_keys.proxy.replies import Reply

    AnswerRequest = Callable[[ClientRequest], Awaitable[Reply]]
    RefuseRequest = Callable[[ClientRequest, int, BaseException | None], Reply]

__all__ = ["ClientConnection", "ConnectionCount"]

_MOST_AHEAD: Final = 64 * 1024
"""Bytes of further requests that are read while one is answered."""

_KEPT_HEAD: Final = 2048
"""Bytes of a head that is kept for the next request, which mostly has the same one."""

_LINGER_S: Final = 2.0
"""Seconds for which what a client still sends is read and thrown away, so that it comes to read its answer: a socket
that is closed with bytes unread is reset."""


class ConnectionCount(Protocol):
    """Counts connections, by what each of them says of itself.

    Attributes:
        is_stopping: Whether each connection is closed behind the answer that it waits for.
    """

    is_stopping: bool

    def opened(self, connection: ClientConnection, transport: asyncio.Transport) -> None:
        """Count a new one."""

    def lost(self, connection: ClientConnection) -> None:
        """Count it no longer."""

    def busy(self, connection: ClientConnection) -> None:
        """Note that it has a request to be answered."""

    def idle(self, connection: ClientConnection, client: str, transport: asyncio.Transport) -> None:
        """Note that its request was answered, and whose it was."""


class ClientConnection(asyncio.Protocol):
    """Reads requests, has them answered in their order, and closes behind what can't be read in one way.

    Args:
        count: Counts it.
        answer: Answers a request.
        refuse: Answers what isn't a request, or couldn't be answered.

    Attributes:
        caller: Who is at the other end by a policy, where the kernel has said so: that doesn't change.
    """

    def __init__(self, count: ConnectionCount, answer: AnswerRequest, refuse: RefuseRequest) -> None:
        self.transport: asyncio.Transport | None = None
        self.caller: tuple[Policy, Caller] | None = None
        self._count = count
        self._answer = answer
        self._refuse = refuse
        self._buffer = bytearray()
        self._head: RequestHead | None = None
        self._request: ClientRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self._can_write: asyncio.Future[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._request is not None

    def close_soon(self) -> None:
        """Close it when the request that it has is answered; at once if it has none."""
        if self._request is not None:
            self._request.closes = True
        elif self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close it at once."""
        if self.transport is not None:
            self.transport.abort()

    def send(self, request: ClientRequest, reply: Reply) -> None:
        """Send an answer, unless it has gone out already; what its request does next, the client doesn't wait for."""
        request.closes = request.closes or not request.body_is_whole or self._count.is_stopping
        if self.transport is not None and not reply.is_sent:
            reply.is_sent = True
            self.transport.write(reply.to_bytes(closes=request.closes, without_body=request.method == "HEAD"))

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written.

        Raises:
            ConnectionError: If it has gone.
        """
        if self._can_write is not None:
            await asyncio.shield(self._can_write)
        if self.transport is None:
            raise ConnectionResetError("the client has gone")

    def hand_over(self, take: Callable[[bytes], object]) -> None:
        """Give what was read behind a handshake to whoever reads on."""
        behind = bytes(self._buffer)
        self._buffer.clear()
        self._is_over = True
        if behind:
            take(behind)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)  # the only kind that streams are of
        self._count.opened(self, self.transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its end counts, not its reason
        """End: a request that isn't signed yet will not be."""
        self.transport = None
        self._count.lost(self)
        if self._lingering is not None:
            self._lingering.cancel()
        if self._request is not None:
            self._request.wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Have whoever writes wait."""
        if self._can_write is None:
            self._can_write = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let it go on."""
        waiting, self._can_write = self._can_write, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._is_over:
            return
        self._buffer += data
        request = self._request
        if request is None:
            self._next(at_once=True)
        elif not request.body_is_whole:
            self._take(request)
        elif len(self._buffer) > _MOST_AHEAD and self.transport is not None:
            self.transport.pause_reading()

    def _next(self, *, at_once: bool) -> None:
        """Begin the next request, if its head has come: at once, or in the loop's next turn."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n") + 4
        try:
            if end < 4:  # noqa: PLR2004 - not found
                _check_beginning(buffer)
                return
            if end > LONGEST_HEAD:
                raise MalformedError
            head = bytes(buffer[:end])
            del buffer[:end]
            request = ClientRequest(self, self._read(head))
        except MalformedError as error:
            self._give_up(error)
            return
        self._request = request
        self._count.busy(self)
        if not request.body_is_whole:
            self._take(request)
        serving = self._serve(request)
        if at_once:
            request.begun = begin(serving, self._loop)
        else:
            self._task = self._loop.create_task(serving)

    def _read(self, head: bytes) -> RequestHead:
        """Return what a head says; the last one's, if its bytes are the same."""
        last = self._head
        if last is not None and last.raw == head:
            return last
        read = RequestHead(head)
        self._head = read if read.chunks is None and len(head) <= _KEPT_HEAD else None
        return read

    def _take(self, request: ClientRequest) -> None:
        try:
            request.take(self._buffer)
        except MalformedError:
            request.closes = self._is_over = True

    def _give_up(self, error: MalformedError) -> None:
        """Answer what is no request, and close."""
        self._request = request = ClientRequest(self, b"")
        self._end(request, self._refuse(request, 400, error))

    async def _serve(self, request: ClientRequest) -> None:
        try:
            reply = await self._answer(request)
        except Exception as error:  # noqa: BLE001 - a defect of this program is answered and logged as one
            reply = self._refuse(request, 500, error)
            if request.has_begun:  # the client must not take what it has for the whole, nor this for what is behind it
                self.abort()
                reply.is_sent = True
        self._end(request, reply)

    def _end(self, request: ClientRequest, reply: Reply) -> None:
        """Answer, and go on to the next request or close."""
        self.send(request, reply)
        self._request = self._task = None
        transport = self.transport
        if transport is None:
            return
        self._count.idle(self, request.client, transport)
        if request.closes:
            self._part(transport)
            return
        transport.resume_reading()
        if self._buffer:  # one a turn: however many requests are pipelined, other connections come in between
            self._next(at_once=False)

    def _part(self, transport: asyncio.Transport) -> None:
        """Close when the client has read its answer, which it shows by closing."""
        self._is_over = True
        self._buffer.clear()
        if transport.can_write_eof():
            transport.write_eof()
            transport.resume_reading()
            self._lingering = self._loop.call_later(_LINGER_S, transport.abort)
        else:
            transport.close()


def _check_beginning(buffer: bytearray) -> None:
    """Refuse what can't become the head of a request any more: nobody waits for the rest of it."""
    if len(buffer) > LONGEST_HEAD or buffer.count(b"\n") != buffer.count(b"\r\n"):
        raise MalformedError
    if buffer and not 0x41 <= buffer[0] <= 0x5A:  # noqa: PLR2004 - A to Z, with which methods begin
        raise MalformedError
