"""Authenticates and authorises a request: three headers, the clock, the signature, then scopes, tier and bindings."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING, Final, Protocol

from hsm_keys.sandbox.keys import verifies
from hsm_keys.sandbox.routes import is_premier, manages_keys
from hsm_keys.sandbox.wire import WireError, nested

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.kalshi.operations import Operation
    from hsm_keys.sandbox.state import SandboxKey

__all__ = ["CLOCK_WINDOW_MS", "KEY_HEADER", "SIGNATURE_HEADER", "TIMESTAMP_HEADER", "authenticate", "authorise"]

KEY_HEADER: Final = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER: Final = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER: Final = "KALSHI-ACCESS-SIGNATURE"

CLOCK_WINDOW_MS: Final = 5_000
"""Kalshi's own window is undocumented and seems wider; 5 s on both sides passes everywhere."""

_DECIMAL_MS: Final = re.compile(r"[1-9][0-9]{0,18}")


class Headers(Protocol):
    """A multidict of header fields."""

    def getall(self, key: str, default: list[str], /) -> Sequence[str]:
        """Return all values of a field."""


def authenticate(
    headers: Headers,
    method: str,
    raw_path: str,
    now_ms: int,
    find_key: Callable[[str], SandboxKey | None],
) -> SandboxKey:
    """Return the key that signed a request.

    Args:
        headers: The request's header fields.
        method: The method as it came over the wire.
        raw_path: The path as it came over the wire: percent-escapes untouched, nothing normalised, no query.
        now_ms: The server's clock, in milliseconds since 1970.
        find_key: Looks a registered key up by its id.

    Raises:
        WireError: 401, as Kalshi words it.
    """
    api_key_id, timestamp, signature = (
        _single(headers, field) for field in (KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
    )
    _check_clock(timestamp, now_ms)
    key = find_key(api_key_id)
    if key is None:
        raise nested(401, "authentication_error", "authentication_error", details="NOT_FOUND")
    # Header and path bytes that aren't ASCII come as surrogates: they go back to what was sent.
    message = (timestamp + method + raw_path).encode("utf-8", "surrogateescape")
    decoded = _strict_base64(signature)
    if decoded is None or not verifies(key.public_key, decoded, message):
        raise nested(401, "authentication_error", "authentication_error", details="INCORRECT_API_KEY_SIGNATURE")
    return key


def _single(headers: Headers, field: str) -> str:
    values = headers.getall(field, [])
    if len(values) != 1 or not values[0]:
        # One code for all three: the facts have it for a missing signature, and none for the other two.
        raise nested(401, "signature_is_missing_from_headers", f"{field} must be there once, and not be empty")
    return values[0]


def _check_clock(timestamp: str, now_ms: int) -> None:
    if _DECIMAL_MS.fullmatch(timestamp) is None:
        # Kalshi's word for this one is unknown. It isn't the clock, so it isn't header_timestamp_expired.
        raise nested(
            401, "authentication_error", f"{TIMESTAMP_HEADER} must be milliseconds", details="INVALID_TIMESTAMP"
        )
    if abs(now_ms - int(timestamp)) > CLOCK_WINDOW_MS:
        raise nested(401, "header_timestamp_expired", "header timestamp expired")


def _strict_base64(text: str) -> bytes | None:
    """Decode the one canonical form (RFC 4648, section 4): padded, standard alphabet, no stray bits or spaces."""
    try:
        decoded = b64decode(text)
    except (Base64Error, ValueError):
        return None
    return decoded if b64encode(decoded).decode("ascii") == text else None


def authorise(key: SandboxKey, operation: Operation, tier: str) -> None:
    """Make sure that a key may call an operation.

    Raises:
        WireError: 403.
    """
    if key.fcm_subtrader_id is not None:
        # Documented for every REST endpoint; here it holds for the WebSocket as well.
        raise _forbidden("a key bound to an FCM subtrader is denied on every endpoint")
    if operation.scopes.isdisjoint(key.scopes):
        raise _forbidden(f"the API key lacks the scope {' or '.join(sorted(operation.scopes))}")
    if is_premier(operation) and tier != "premier":
        raise _forbidden("insufficient API usage level")
    if manages_keys(operation) and key.subaccount is not None:
        raise _forbidden("a key restricted to a subaccount can't manage API keys")


def _forbidden(message: str) -> WireError:
    return nested(403, "forbidden", message, service="sandbox")
