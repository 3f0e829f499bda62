"""What there is to call, and what a key needs for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ENDPOINTS", "PREFIX", "SCOPES", "WEBSOCKET", "Endpoint"]

PREFIX: Final = "/trade-api/v2"

SCOPES: Final = (
    "read",
    "write",
    "read::block_trade_accept",
    "read::portfolio_balance",
    "write::trade",
    "write::transfer",
    "write::fcm_risk",
    "write::block_trade_accept",
)
"""The OpenAPI's ApiKeyScope. ``read`` and ``write`` cover their children; a child stands alone."""

_READ: Final = frozenset({"read"})
_WRITE: Final = frozenset({"write"})
_TRADE: Final = frozenset({"write", "write::trade"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method and path template.

    ``path`` is written as in the OpenAPI document, below ``/trade-api/v2``; the WebSocket has its whole path.
    ``scopes`` lists scopes of which a key needs one; an empty set means that no signature is needed.
    """

    method: str
    path: str
    scopes: frozenset[str]
    manages_keys: bool = False
    needs_premier: bool = False

    @property
    def name(self) -> str:
        """Method and path template: how faults name an endpoint."""
        return f"{self.method} {self.path}"

    @property
    def route(self) -> str:
        """The whole path template."""
        return self.path if self.path.startswith("/trade-api/") else PREFIX + self.path


WEBSOCKET: Final = Endpoint("GET", "/trade-api/ws/v2", _READ)

ENDPOINTS: Final = (
    Endpoint("GET", "/exchange/status", frozenset()),
    # Which scope key management needs is not documented. The strict choice: listing reads, the rest writes.
    Endpoint("GET", "/api_keys", _READ, manages_keys=True),
    Endpoint("POST", "/api_keys", _WRITE, manages_keys=True, needs_premier=True),
    Endpoint("POST", "/api_keys/generate", _WRITE, manages_keys=True),
    Endpoint("DELETE", "/api_keys/{api_key}", _WRITE, manages_keys=True),
    Endpoint("GET", "/portfolio/balance", _READ | {"read::portfolio_balance"}),
    Endpoint("GET", "/portfolio/orders", _READ),
    Endpoint("POST", "/portfolio/orders", _TRADE),
    Endpoint("DELETE", "/portfolio/orders/{order_id}", _TRADE),
    WEBSOCKET,
)
