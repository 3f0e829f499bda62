"""The names of the three headers that authenticate a request."""

from __future__ import annotations

from typing import Final

__all__ = ["KEY_HEADER", "SIGNATURE_HEADER", "SIGNED_HEADERS", "TIMESTAMP_HEADER"]

KEY_HEADER: Final = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER: Final = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER: Final = "KALSHI-ACCESS-SIGNATURE"

SIGNED_HEADERS: Final = (KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
