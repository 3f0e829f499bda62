"""Kalshi's two exchanges for the ledger of orders: their routes, and the names of fields in their answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from hsm_keys.kalshi.operations import REST_PREFIX

__all__ = ["EVENTS", "PERPETUALS", "Exchange", "exchange_of", "order_id_of", "order_path"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One of them; paths stand below ``/trade-api/v2``.

    Attributes:
        perps: Whether it is the one of perpetual futures.
        writes: Where orders are made, changed and cancelled.
        orders: Lists orders.
        fills: Lists fills.
        filled: What an order in a list calls its filled contracts.
        remaining: The same of those that may still fill.
        fill_count: What a fill calls its contracts.
    """

    perps: bool
    writes: str
    orders: str
    fills: str
    filled: str
    remaining: str
    fill_count: str


EVENTS: Final = Exchange(
    perps=False,
    writes="/portfolio/events/orders",
    orders="/portfolio/orders",
    fills="/portfolio/fills",
    filled="fill_count_fp",
    remaining="remaining_count_fp",
    fill_count="count_fp",
)
PERPETUALS: Final = Exchange(
    perps=True,
    writes="/margin/orders",
    orders="/margin/orders",
    fills="/margin/fills",
    filled="fill_count",
    remaining="remaining_count",
    fill_count="count",
)


def exchange_of(*, perps: bool) -> Exchange:
    """Return the exchange of perpetual futures, or that of events."""
    return PERPETUALS if perps else EVENTS


def order_path(folder: str, order_id: str) -> str:
    """Return the path of an order below a route of orders, whatever Kalshi's id of it looks like."""
    return f"{folder}/{quote(order_id, safe='', errors='surrogatepass')}"


def order_id_of(path: str) -> str:
    """Return the id of the order that a path of a write names; empty if it names none."""
    for exchange in (EVENTS, PERPETUALS):
        folder = f"{REST_PREFIX}{exchange.writes}/"
        if path.startswith(folder):
            return unquote(path.removeprefix(folder).partition("/")[0], errors="surrogatepass")
    return ""
