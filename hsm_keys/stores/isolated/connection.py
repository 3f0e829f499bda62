"""One connection to the signer: a request and its answer, with one wait for the GIL.

The wait is after ``recv``. ``send`` releases the GIL too, but takes no time: keeping the GIL there (ctypes.PyDLL)
gained nothing beside a busy thread at a switch interval of 5 ms, and cost a tenth of the rate at 0.1 ms.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import StoreUnavailableError
from hsm_keys.processes import peer_is_me
from hsm_keys.stores.isolated.wire import (
    MAX_ANSWER,
    MAX_MESSAGE,
    Frame,
    FrameKind,
    SignerWireError,
    error_in,
    frame_bytes,
    receive,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SIGNING_S", "NotSentError", "SignerConnection", "StuckError", "garbled"]

SIGNING_S: Final = 10.0
"""Seconds in which a signature must come. A store that signs over a network keeps a shorter budget of its own."""

_CALL_S: Final = 60.0  # listing a token's keys reads each of them
_GREETING_S: Final = 3.0
_PAUSE_S: Final = 0.01


class NotSentError(Exception):
    """The signer at the other end was gone before the request was sent."""


class StuckError(Exception):
    """The signer takes connections, and doesn't greet."""


class SignerConnection:
    """A connection to the signer; one thread uses it at a time.

    Args:
        path: The signer's socket.

    Raises:
        NotSentError: If nobody listens there.
        StuckError: If somebody does, and doesn't answer.
        StoreUnavailableError: If it is another user's, or refuses.
    """

    __slots__ = ("_socket", "instance")

    def __init__(self, path: Path) -> None:
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:  # the error isn't the signer's fault
            raise StoreUnavailableError(
                f"no socket to the signer process can be made: {error.strerror}",
                hint="see how many files this process has open, and its limit (ulimit -n)",
            ) from None
        try:
            self._socket.settimeout(_GREETING_S)
            self._connect(str(path))
            self.instance = self._greeted()
            # Time is kept by the kernel: Python's own timeout is a poll() before each call, and gives the GIL up twice.
            self._socket.setblocking(True)
            self._patience(SIGNING_S)
        except BaseException as error:
            self._socket.close()
            if isinstance(error, PermissionError):
                raise StoreUnavailableError(
                    "the signer process belongs to another user",
                    hint="open the store after the program has changed its user",
                ) from None
            if isinstance(error, TimeoutError):
                raise StuckError from None
            if isinstance(error, OSError):
                raise NotSentError from None
            raise

    def _connect(self, path: str) -> None:
        until = time.monotonic() + _GREETING_S
        while True:
            try:
                return self._socket.connect(path)
            except BlockingIOError:  # its backlog is full: many connect at once, or it hangs
                if time.monotonic() >= until:
                    raise TimeoutError from None
                time.sleep(_PAUSE_S)

    def _greeted(self) -> int:
        if not peer_is_me(self._socket):
            raise PermissionError
        try:
            frame = receive(self._socket, MAX_MESSAGE)
        except SignerWireError as error:
            raise garbled(error) from None
        if frame is None:
            raise NotSentError
        if frame.kind is FrameKind.ERROR:
            raise error_in(frame)
        return int.from_bytes(frame.payload)

    def _patience(self, seconds: float) -> None:
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, limit)

    def ask(self, kind: FrameKind, payload: bytes, number: int = 0) -> Frame:
        """Send a request and return its answer.

        Raises:
            NotSentError: If the signer was gone before.
            StoreUnavailableError: If it goes away or doesn't answer in time; close the connection then.
        """
        try:
            self._socket.sendall(frame_bytes(kind, payload, number))
        except BlockingIOError:
            raise _late() from None
        except OSError:
            raise NotSentError from None
        try:
            answer = receive(self._socket, MAX_ANSWER)
        except BlockingIOError:
            raise _late() from None
        except ConnectionError:
            answer = None
        except SignerWireError as error:
            raise garbled(error) from None
        if answer is None:
            raise StoreUnavailableError(
                "the signer process ended before it answered, so there is no signature",
                hint="sign again: the next request starts it again",
            )
        return answer

    def call(self, payload: bytes) -> Frame:
        """Send a call, which may take longer than a signature, and return its answer; see ``ask``."""
        self._patience(_CALL_S)
        answer = self.ask(FrameKind.CALL, payload)
        self._patience(SIGNING_S)
        return answer

    def close(self) -> None:
        """Close it. Nobody may be using it."""
        self._socket.close()

    def abort(self) -> None:
        """End it for whoever is using it, who closes it then."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed meanwhile, or never connected
            return


def _late() -> StoreUnavailableError:
    return StoreUnavailableError(
        "the signer process gave no answer in time",
        hint="the token hangs, or the machine is overloaded: see `hsm-keys doctor`",
    )


def garbled(error: SignerWireError) -> StoreUnavailableError:
    """Return the error that stands for an answer which can't be read."""
    return StoreUnavailableError(
        f"the signer process gave an unreadable answer: {error}",
        hint="restart the program: hsm-keys may have been updated while it ran",
    )
