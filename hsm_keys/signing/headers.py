"""Names of headers: the three that authenticate a request, and those that belong to one connection."""

from __future__ import annotations

from typing import Final

__all__ = ["HOP_BY_HOP", "KEY_HEADER", "SIGNATURE_HEADER", "SIGNED_HEADERS", "TIMESTAMP_HEADER"]

KEY_HEADER: Final = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER: Final = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER: Final = "KALSHI-ACCESS-SIGNATURE"

SIGNED_HEADERS: Final = (KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "http2-settings",
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
"""RFC 9110, section 7.6.1: headers of one connection, which nobody passes on."""
