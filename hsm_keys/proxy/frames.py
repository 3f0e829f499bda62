"""Parses the WebSocket frames of a client strictly (RFC 6455), and writes new frames for Kalshi.

So no byte reaches Kalshi that Kalshi could read in another way than it was judged. Messages are decompressed if Kalshi
has agreed to compression (RFC 7692), judged whole, and forwarded as one uncompressed frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from websockets.exceptions import InvalidHeader, PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.headers import parse_extension
from websockets.streams import StreamReader
from websockets.typing import ExtensionName

from hsm_keys.proxy.commands import UnknownCommandError, check_command

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from websockets.extensions.base import Extension

__all__ = ["LONGEST_MESSAGE", "FrameError", "FrameFilter", "close_frame"]

LONGEST_MESSAGE: Final = 64 * 1024
"""Bytes of a message, also of what it is inflated to."""

_LONGEST_CONTROL: Final = 125
_MOST_BITS: Final = 15


class FrameError(Exception):
    """What a client sends isn't passed on.

    Args:
        code: The close code (RFC 6455, section 7.4.1).
        reason: What the client is told.
    """

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code: Final = code
        self.reason: Final = reason


class FrameFilter:
    """Passes on what a client may send.

    Args:
        extensions: Kalshi's ``Sec-WebSocket-Extensions``; empty for none.

    Raises:
        FrameError: If that can't be read, or is an extension that isn't known.
    """

    def __init__(self, extensions: str) -> None:
        self._extensions = _extensions(extensions)
        self._reader = StreamReader()
        self._message: bytearray | None = None
        self._opcode = Opcode.TEXT
        self._passed = bytearray()
        self._closed = False
        self._parsing = self._parse()
        next(self._parsing)

    def feed(self, data: bytes) -> bytes:
        """Return what goes on to Kalshi, after some more bytes of the client's.

        Raises:
            FrameError: If the client may not send that. Nothing of its later bytes is passed on.
        """
        if self._closed:
            return b""
        self._reader.feed_data(data)
        try:
            next(self._parsing)
        except (FrameError, ProtocolError, PayloadTooBig) as error:
            self._closed = True
            raise _refusal(error) from None
        passed, self._passed = bytes(self._passed), bytearray()
        return passed

    def _parse(self) -> Generator[None, None, None]:
        while not self._closed:
            room = LONGEST_MESSAGE - len(self._message or b"")
            frame = yield from Frame.parse(
                self._reader.read_exact, mask=True, max_size=max(room, _LONGEST_CONTROL), extensions=self._extensions
            )
            self._take(frame.opcode, bytes(frame.data), is_last=frame.fin)
        yield  # what follows a close isn't read

    def _take(self, opcode: Opcode, data: bytes, *, is_last: bool) -> None:
        if opcode is Opcode.CLOSE:
            self._check_close(data)
            self._closed = True
        if opcode in {Opcode.CLOSE, Opcode.PING, Opcode.PONG}:
            self._pass(opcode, data)
            return
        if (opcode is Opcode.CONT) != (self._message is not None):
            raise FrameError(CloseCode.PROTOCOL_ERROR, "a message begins, or goes on, where it can't")
        if opcode is not Opcode.CONT:
            self._opcode = opcode  # pykalshi-client sends its commands as binary messages
        message = self._message = (self._message or bytearray()) + data
        if len(message) > LONGEST_MESSAGE:
            raise FrameError(CloseCode.MESSAGE_TOO_BIG, f"a message has {LONGEST_MESSAGE} bytes at most")
        if is_last:
            self._message = None
            self._pass_command(bytes(message))

    def _pass_command(self, message: bytes) -> None:
        try:
            check_command(message)
        except UnknownCommandError as error:
            raise FrameError(CloseCode.POLICY_VIOLATION, str(error)) from None
        self._pass(self._opcode, message)

    def _pass(self, opcode: Opcode, data: bytes) -> None:
        self._passed += Frame(opcode, data).serialize(mask=True)

    def _check_close(self, data: bytes) -> None:
        try:
            Close.parse(data)
        except UnicodeDecodeError:
            raise FrameError(CloseCode.INVALID_DATA, "the reason of a close isn't UTF-8") from None


def close_frame(code: int, reason: str = "", *, mask: bool) -> bytes:
    """Return a close frame (RFC 6455, section 5.5.1); masked, it is a client's."""
    return Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=mask)


def _refusal(error: FrameError | ProtocolError | PayloadTooBig) -> FrameError:
    if isinstance(error, FrameError):
        return error
    if isinstance(error, PayloadTooBig):
        return FrameError(CloseCode.MESSAGE_TOO_BIG, f"a message has {LONGEST_MESSAGE} bytes at most")
    return FrameError(CloseCode.PROTOCOL_ERROR, "the frame isn't one")


def _extensions(header: str) -> Sequence[Extension]:
    """Return what undoes the extensions that Kalshi has agreed on, on the client's frames."""
    if not header:
        return ()
    try:
        (name, parameters), *more = parse_extension(header)
    except InvalidHeader:
        name, parameters, more = ExtensionName(""), [], []
    if name != "permessage-deflate" or more:
        raise FrameError(CloseCode.PROTOCOL_ERROR, "Kalshi has agreed on an extension that isn't known here")
    is_anew = "client_no_context_takeover" in dict(parameters)
    return (PerMessageDeflate(is_anew, False, _MOST_BITS, _MOST_BITS),)
