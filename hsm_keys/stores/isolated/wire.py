"""The protocol of the signer's sockets: small frames, with errors sent as their code. Nothing is unpickled."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from hsm_keys import errors
from hsm_keys.errors import HsmKeysError, StoreError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

__all__ = [
    "MAX_MESSAGE",
    "Frame",
    "FrameKind",
    "SignerWireError",
    "error_frame",
    "frame_bytes",
    "json_frame",
    "pack",
    "parse",
    "receive",
    "still_to_come",
    "unpack",
]

VERSION: Final = 1
HEADER: Final = struct.Struct("!BBII")
"""Version, kind, a number that the kind gives a meaning, and the length of what follows."""

_LENGTH: Final = struct.Struct("!I")

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of a request; Kalshi's messages have some hundred."""

MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of an answer: the keys of a full token."""

_FIRST_READ: Final = 4096  # bytes: a signature, or the message of any request, in one piece


class FrameKind(IntEnum):
    """What a frame is."""

    SIGN = 1
    """A message, to be signed by the key of that number."""
    SIGN_DIGEST = 2
    CALL = 3
    SIGN_ALL = 4
    """Several messages, as ``pack`` puts them together, to be signed by the key of that number."""
    SIGNATURE = 16
    ANSWER = 17
    ERROR = 18
    SIGNATURES = 19
    """The signatures of several messages, in their order."""
    GREETING = 32
    """What a connection begins with: the number that this run of the signer made up for itself."""
    OPEN = 48
    """From here on, between the signer and its owner alone."""
    PIN_WANTED = 49
    PIN = 50
    NO_PIN = 51
    """None is named, and the token has a pad to ask on."""
    READY = 52


class SignerWireError(Exception):
    """What came isn't a frame of this version; nothing that follows it can be understood."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Args:
        kind: What it is.
        number: The number of a key, where one is meant.
        payload: The message, the signature, or JSON.
    """

    kind: FrameKind
    number: int
    payload: bytes

    def json(self) -> Any:
        """Return the payload, read as JSON.

        Raises:
            WireError: If it isn't.
        """
        try:
            return json.loads(self.payload)
        except (ValueError, RecursionError):
            raise SignerWireError("the payload isn't JSON") from None


def frame_bytes(kind: FrameKind, payload: bytes = b"", number: int = 0) -> bytes:
    """Return a frame as it goes over the wire."""
    return HEADER.pack(VERSION, kind, number, len(payload)) + payload


def json_frame(kind: FrameKind, content: object) -> bytes:
    """Return a frame that holds JSON."""
    return frame_bytes(kind, json.dumps(content).encode())


def pack(parts: Iterable[bytes]) -> bytes:
    """Return parts put together, each behind its length."""
    return b"".join([_LENGTH.pack(len(part)) + part for part in parts])


def unpack(payload: bytes) -> list[bytes]:
    """Return the parts that were put together.

    Raises:
        SignerWireError: If they weren't.
    """
    parts, at = [], 0
    while at < len(payload):
        begin = at + _LENGTH.size
        if begin > len(payload):
            raise SignerWireError("the payload ends inside a length")
        at = begin + _LENGTH.unpack_from(payload, at)[0]
        if at > len(payload):
            raise SignerWireError("the payload ends inside a part")
        parts.append(payload[begin:at])
    return parts


def still_to_come(data: bytes | bytearray, limit: int) -> int:
    """Return how many bytes are lacking to the end of the frame that the data begins, at least.

    Raises:
        WireError: If no frame begins like that, or if it is longer than the limit.
    """
    if len(data) < HEADER.size:
        return HEADER.size - len(data)
    version, _, _, length = HEADER.unpack_from(data)
    if version != VERSION:
        raise SignerWireError(f"version {version} of the protocol isn't known here, only {VERSION}")
    if length > limit:
        raise SignerWireError(f"a frame of {length} bytes is too long: at most {limit} are taken")
    lacking: int = HEADER.size + length - len(data)
    if lacking < 0:
        raise SignerWireError("something follows the frame")
    return lacking


def parse(data: bytes | bytearray) -> Frame:
    """Return the frame that the data holds, to which nothing is lacking.

    Raises:
        WireError: If there is no such kind.
    """
    _, kind, number, _ = HEADER.unpack_from(data)
    try:
        return Frame(FrameKind(kind), number, bytes(data[HEADER.size :]))
    except ValueError:
        raise SignerWireError(f"there is no frame of the kind {kind}") from None


def receive(connection: socket.socket, limit: int) -> Frame | None:
    """Return the next frame; None if the other side has closed the connection before it.

    Raises:
        WireError: If it isn't one, or if it ends early.
        OSError: If the connection breaks, or its time is up.
    """
    data = connection.recv(_FIRST_READ)
    if not data:
        return None
    lacking = still_to_come(data, limit)
    if not lacking:
        return parse(data)
    longer = bytearray(data)
    while lacking:
        part = connection.recv(min(lacking, MAX_MESSAGE))
        if not part:
            raise SignerWireError("the connection ended inside a frame")
        longer += part
        lacking = still_to_come(longer, limit)
    return parse(longer)


_CLASSES: Final[tuple[type[HsmKeysError], ...]] = tuple(getattr(errors, name) for name in errors.__all__)
_BY_CODE: Final = {known.code: known for known in _CLASSES}


def error_frame(error: Exception) -> bytes:
    """Return the frame that tells an error by its code, message and hint; of a foreign one no more than its class."""
    if not isinstance(error, HsmKeysError):
        error = StoreError(f"the signer process failed with {type(error).__name__}", hint="report this")
    # An error of a back-end's own class is sent as its nearest base class that every process knows.
    code = next(known.code for known in type(error).__mro__ if known in _CLASSES)
    return json_frame(FrameKind.ERROR, {"code": code, "message": error.message, "hint": error.hint})


def error_in(frame: Frame) -> HsmKeysError:
    """Return the error that a frame tells.

    Raises:
        WireError: If it tells none.
    """
    content = frame.json()
    if not isinstance(content, dict):
        raise SignerWireError("the payload tells no error")
    code, message, hint = (content.get(part) for part in ("code", "message", "hint"))
    if not (isinstance(code, str) and isinstance(message, str) and isinstance(hint, str)):
        raise SignerWireError("the payload tells no error")
    return _BY_CODE.get(code, StoreError)(message, hint=hint)
