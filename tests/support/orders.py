"""Orders for tests: V2 bodies, and orders that rest at a sandbox without a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from hsm_keys.sandbox.markets import MARKETS
from hsm_keys.sandbox.matching import Order

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer

ORDERS = "/trade-api/v2/portfolio/events/orders"
TICKER = "KXTEST-1"


def order_body(**changes: Any) -> dict[str, Any]:
    """Return a V2 order that rests at the sandbox; a field that is None is left out."""
    body = {
        "ticker": TICKER,
        "side": "bid",
        "count": "3",
        "price": "0.5600",
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
        "client_order_id": "mine",
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


def add_orders(sandbox: SandboxServer, count: int, ticker: str = TICKER) -> list[str]:
    """Let orders rest at the sandbox, and return their ids."""
    book = sandbox.state.book
    for number in range(count):
        order = Order(
            order_id=str(uuid4()),
            client_order_id=f"added-{number}",
            market=MARKETS[ticker],
            side="bid",
            price=100,
            initial=100,
            remaining=100,
            subaccount=0,
            time_in_force="good_till_canceled",
            self_trade_prevention="taker_at_cross",
            created_ms=1_700_000_000_000,
            updated_ms=1_700_000_000_000,
            position=len(book.orders),
            in_book=True,
        )
        book.orders[order.order_id] = order
    return list(book.orders)
