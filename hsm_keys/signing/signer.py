"""The three headers of a signed request, over anything that can sign a message."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import TYPE_CHECKING, Final, Protocol

from hsm_keys.errors import KeyNotRegisteredError
from hsm_keys.signing.message import WEBSOCKET_PATH, signing_message

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "KEY_HEADER",
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "MessageSigner",
    "RequestSigner",
    "now_ms",
]

KEY_HEADER: Final = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER: Final = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER: Final = "KALSHI-ACCESS-SIGNATURE"


class MessageSigner(Protocol):
    """What a request is signed with: a key in a store, or a PEM in memory."""

    @property
    def name(self) -> str:
        """What people call the key."""

    @property
    def api_key_id(self) -> str | None:
        """The id that Kalshi knows the public half by; None before it is registered."""

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature: RSASSA-PSS with SHA-256 and a salt of 32 bytes, or Ed25519."""


def now_ms() -> int:
    """Return the Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class RequestSigner:
    """Signs Kalshi requests with one key.

    Args:
        key: What signs.
        api_key_id: The API key id to sign for; by default the key's own.
        clock: Gives the Unix time in milliseconds.

    Raises:
        KeyNotRegisteredError: If there is no API key id.
    """

    __slots__ = ("_clock", "_sign", "api_key_id", "key")

    def __init__(self, key: MessageSigner, *, api_key_id: str | None = None, clock: Callable[[], int] = now_ms) -> None:
        resolved = api_key_id or key.api_key_id
        if resolved is None:
            raise KeyNotRegisteredError(
                f"the key {key.name!r} has no API key id: Kalshi doesn't know it yet",
                hint=f"run `hsm-keys enroll --name {key.name}`, or give --api-key-id",
            )
        self.key = key
        self.api_key_id = resolved
        self._sign = key.sign
        self._clock = clock

    def headers(self, method: str, path: str, *, timestamp_ms: int | None = None) -> dict[str, str]:
        """Return the three headers that authenticate one request.

        Args:
            method: HTTP method.
            path: Absolute path as it goes over the wire, with its ``/trade-api/...`` prefix. A query is
                not signed.
            timestamp_ms: Unix time in milliseconds; by default the clock is read right before signing.
                Kalshi takes a header for a few seconds: use it at once.

        Raises:
            UsageError: If the method or the path can't be signed.
            HsmKeysError: Whatever the store raises when it can't sign.
        """
        stamp = self._clock() if timestamp_ms is None else timestamp_ms
        signature = self._sign(signing_message(stamp, method, path))
        return {
            KEY_HEADER: self.api_key_id,
            TIMESTAMP_HEADER: str(stamp),
            SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
        }

    def websocket_headers(self, path: str = WEBSOCKET_PATH) -> dict[str, str]:
        """Return the three headers of a WebSocket handshake; make them anew for each connection.

        Args:
            path: ``/trade-api/ws/v2``, or ``/trade-api/ws/v2/margin``.
        """
        return self.headers("GET", path)

    def __repr__(self) -> str:
        return f"RequestSigner(key={self.key.name!r}, api_key_id={self.api_key_id!r})"
