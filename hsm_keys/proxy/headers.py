"""Which headers go through, and which end at the proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["from_kalshi", "to_kalshi"]

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110, section 7.6.1."""

_OURS: Final = frozenset({"authorization", "cookie", "expect", "forwarded", "host", "via"})
_MISLEADING: Final = (
    "kalshi-access-",
    "x-forwarded-",
    "x-http-method",
    "x-method-override",
    "x-original-",
    "x-rewrite-",
)
"""They authenticate, or may make a server take the request for another one than was judged."""


def to_kalshi(headers: Iterable[tuple[str, str]], signed: dict[str, str]) -> CIMultiDict[str]:
    """Return the headers of a request as they go to Kalshi, with those that authenticate it.

    Args:
        headers: The client's.
        signed: The signer's.
    """
    kept = [
        (name, value)
        for name, value in _without_hops(headers)
        if name.lower() not in _OURS and not name.lower().replace("_", "-").startswith(_MISLEADING)
    ]
    return CIMultiDict([*kept, *signed.items()])


def from_kalshi(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    """Return the headers of an answer as they go to the client."""
    return CIMultiDict(_without_hops(headers))


def _without_hops(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    listed = list(headers)
    named = {
        token.strip().lower() for name, value in listed if name.lower() == "connection" for token in value.split(",")
    }
    return [(name, value) for name, value in listed if name.lower() not in _HOP_BY_HOP | named]
