"""Which headers the proxy forwards, and which it drops."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from hsm_keys.signing.headers import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["from_kalshi", "is_plain_json", "to_kalshi"]

_JSON: Final = re.compile(r"application/json\s*(?:;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE | re.ASCII)

_TO_KALSHI: Final = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "content-encoding",
        "content-type",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-unmodified-since",
        "pragma",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-correlation-id",
        "x-request-id",
    }
)
"""What describes the request's body, or the answer that is wanted, or names the request in logs.

Any other header may authenticate the client, or have Kalshi, or a server before it, take the request for another one
than was judged: another address, method, path, account or coding.
"""


def to_kalshi(headers: CIMultiDict[str]) -> list[tuple[str, str]]:
    """Return the headers of a client's request as they go to Kalshi, but those that authenticate it and its length."""
    hops = _named_hops(headers)
    return [
        (name, value)
        for name, value in headers.items()
        if (folded := name.lower()) in _TO_KALSHI and folded not in hops
    ]


def from_kalshi(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    """Return the headers of an answer as they go to the client."""
    named = [(name.lower(), name, value) for name, value in headers]
    ends_here = HOP_BY_HOP
    for folded, _, value in named:
        if folded == "connection":
            ends_here = ends_here.union(_tokens(value))
        elif folded == "transfer-encoding":  # then a length isn't the body's (RFC 9112, section 6.3)
            ends_here = ends_here.union(("content-length",))
    return CIMultiDict([(name, value) for folded, name, value in named if folded not in ends_here])


def is_plain_json(headers: CIMultiDict[str]) -> bool:
    """Tell whether a body is JSON as it stands: neither compressed nor in another charset than UTF-8.

    A body that says nothing about itself is taken for that.
    """
    codings = headers.getall("Content-Encoding", [])
    kinds = headers.getall("Content-Type", [])
    return (
        all(coding.strip().lower() == "identity" for coding in codings)
        and len(kinds) <= 1
        and all(_JSON.fullmatch(kind) for kind in kinds)
    )


def _named_hops(headers: CIMultiDict[str]) -> set[str]:
    """Return the headers that the header Connection names, in lower case."""
    return {token for value in headers.getall("Connection", ()) for token in _tokens(value)}


@lru_cache(maxsize=64)
def _tokens(value: str) -> frozenset[str]:
    return frozenset(token.strip().lower() for token in value.split(","))
