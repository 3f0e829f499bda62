"""What clients do in tests: they place an order, read it and cancel it; and what the sandbox saw of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.support.cli import ROOT
from tests.support.orders import ORDERS, TICKER

if TYPE_CHECKING:
    from tests.support.runs import Runs

TERMS: Final = {
    "ticker": TICKER,
    "side": "bid",
    "price": "0.2000",
    "count": "2.00",
    "time_in_force": "good_till_canceled",
    "self_trade_prevention_type": "taker_at_cross",
}
LIFE: Final = [("POST", 201), ("GET", 200), ("DELETE", 200)]

_PAGE = (ROOT / "docs" / "clients.md").read_text()


def lived(runs: Runs) -> list[tuple[str, int | None]]:
    """Return what became of the requests for orders, each signed well with the token's key."""
    paths = (ORDERS, "/trade-api/v2/portfolio/orders")
    seen = [one for one in runs.sandbox.requests if one.path.startswith(paths)]
    assert all(one.verified for one in seen if one.status != 410)  # V1 is gone, whoever asks
    return [(one.method, one.status) for one in seen]


def in_table(client: str, version: str) -> bool:
    """Tell whether docs/clients.md has the client, with this version."""
    return any(line.startswith(f"| {client} | {version} |") for line in _PAGE.splitlines())
