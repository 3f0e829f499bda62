"""A WebSocket session through the proxy: the bytes of both sides are forwarded unchanged.

Client and Kalshi agree on frames, compression and close codes. If one side drops its connection, the proxy drops the
other one too. The proxy reads only messages of clients whose commands are judged; see ``FrameFilter``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from websockets.frames import CloseCode

from hsm_keys.proxy.frames import FrameError, close_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.sessions import JudgedSession

__all__ = ["End", "Relay"]

_CLOSE: Final = 0x8
_CLOSING_S: Final = 5.0
"""How long an end may take to accept what was sent to it before the other end was closed."""


class _Frames:
    """Knows where the frames of a stream end (RFC 6455, section 5.2), without looking at what is in them."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0
        self.closed = False
        """Whether a close frame has begun."""

    @property
    def is_between(self) -> bool:
        """Whether a frame may be added here."""
        return not (self._head or self._left or self.closed)

    def pass_by(self, data: bytes) -> None:
        """Follow the next bytes of the stream."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = _length_of_head(self._head) - len(self._head)
                self._head += data[at : at + step]
                if len(self._head) == _length_of_head(self._head):
                    self.closed = self.closed or self._head[0] & 0xF == _CLOSE
                    self._left = _length_of_payload(self._head)
                    self._head.clear()
            at += step


def _length_of_head(head: bytearray) -> int:
    """Return how long a frame's head is, as far as its beginning tells."""
    if len(head) < 2:  # noqa: PLR2004 - the bytes that tell
        return 2
    return 2 + {126: 2, 127: 8}.get(head[1] & 0x7F, 0) + (4 if head[1] & 0x80 else 0)


def _length_of_payload(head: bytearray) -> int:
    short = head[1] & 0x7F
    return short if short < 126 else int.from_bytes(head[2 : 4 if short == 126 else 10])  # noqa: PLR2004 - the RFC's


class End(asyncio.Protocol):
    """One end of a session: a connection that has changed from HTTP to WebSockets.

    Args:
        transport: The connection.
        former: The protocol of aiohttp's that has led it so far. It hears of the end.
        take_over: The former's function that gives what it has read too far to a parser.
    """

    def __init__(
        self, transport: asyncio.Transport, former: asyncio.BaseProtocol, take_over: Callable[[Any], None]
    ) -> None:
        self.transport: Final = transport
        self.frames: Final = _Frames()
        self.over: Final[asyncio.Event] = asyncio.Event()
        self._former = former
        self._take_over = take_over
        self._other: End | None = None
        self._closing: asyncio.TimerHandle | None = None
        self.passed: Callable[[bytes], bytes] = bytes
        """Gives what is passed on of what came here."""

    def join(self, other: End) -> None:
        """Pass on from now on what comes here to the other end."""
        self._other = other
        self._take_over(self)
        self.transport.set_protocol(self)
        if self.transport.is_closing():  # it ended on the way here
            self.over.set()
            other.close()
        else:
            self.transport.resume_reading()

    def leave(self) -> None:
        """Pass nothing on any more."""
        self._other = None

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what aiohttp has read too far, as a parser of its own would."""
        self.data_received(data)
        return False, b""

    def feed_eof(self) -> None:
        """Nothing: ``connection_lost`` comes too."""

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.frames.pass_by(data)
        if self._other is not None and not self._other.transport.is_closing():
            self._other.transport.write(self.passed(data))

    def pause_writing(self) -> None:
        """Read nothing from the other end while this one takes nothing."""
        if self._other is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self._other is not None and not self._other.transport.is_closing():
            self._other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end, too, and let go of it: a session must not wait for the garbage collector."""
        self.over.set()
        if self._closing is not None:
            self._closing.cancel()
        other, self._other, self.passed = self._other, None, bytes
        if other is not None:
            other.close()
        self._former.connection_lost(exc)

    def close(self) -> None:
        """Close it when what was sent to it has been taken, or after a few seconds."""
        if not self.transport.is_closing():
            self.transport.close()
            self._closing = asyncio.get_running_loop().call_later(_CLOSING_S, self.transport.abort)


class Relay:
    """A session between a client and Kalshi.

    Args:
        here: The client's end.
        there: Kalshi's.
        judged: Judges what the client sends; None passes it on as it comes.
    """

    def __init__(self, here: End, there: End, judged: JudgedSession | None = None) -> None:
        self._here = here
        self._there = there
        self._judged = judged
        if judged is not None:
            here.passed = self._passed

    async def run(self) -> None:
        """Pass everything on until both ends are closed."""
        self._here.join(self._there)
        self._there.join(self._here)
        try:
            await self.ended()
        finally:  # also if whoever waits here is cancelled
            self._here.close()
            self._there.close()

    def part(self, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Tell the client why the session ends, if a frame may stand here, and end both connections.

        Args:
            code: The close code (RFC 6455, section 7.4.1); without another one, the proxy goes away.
            reason: What the client is told besides.
        """
        self._there.leave()
        if self._there.frames.is_between and not self._here.transport.is_closing():
            self._here.transport.write(close_frame(code, reason, mask=False))
        self._here.close()
        self._there.close()

    def _passed(self, data: bytes) -> bytes:
        """Return what goes on to Kalshi of what the client sends; one that may not send it is told, and that is all."""
        if self._judged is None:
            return data
        try:
            return self._judged.passed(data)
        except FrameError as error:
            self._there.transport.write(close_frame(CloseCode.GOING_AWAY, mask=True))
            self.part(error.code, error.reason)
            return b""

    async def ended(self) -> None:
        """Wait until both connections are closed."""
        await self._here.over.wait()
        await self._there.over.wait()
