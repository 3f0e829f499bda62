"""One walk through every operation that the sandbox serves, in an order in which each has something to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hsm_keys.kalshi.operations import REST_PREFIX
from tests.sandbox.client import Caller, pem_of
from tests.support.orders import order_body

if TYPE_CHECKING:
    from tests.sandbox.client import Reply

__all__ = ["Walk"]

PERP = {"ticker": "KXPERPTEST"}


class Walk:
    """Calls operations and keeps what was answered.

    Args:
        boss: Who calls.

    Attributes:
        answers: The answers of each operation, by method and path template.
    """

    def __init__(self, boss: Caller) -> None:
        self._boss = boss
        self.answers: dict[str, list[Reply]] = {}
        self._read_markets()
        self._manage_keys()
        for orders, below, terms in (
            ("/portfolio/events/orders", "/portfolio", {}),
            ("/margin/orders", "/margin", PERP),
        ):
            self._trade(orders, below, terms)
        self._batch()
        self._group("/portfolio/events/orders", "/portfolio/order_groups", {})
        self._group("/margin/orders", "/margin/order_groups", PERP)
        self._quote()
        self._read_account()
        self._go("DELETE /portfolio/events/orders")
        self._go("DELETE /margin/orders")

    def _go(self, name: str, body: object = None, query: str = "", **path: str) -> Any:
        """Call an operation, and return the JSON of its answer."""
        method, _, template = name.partition(" ")
        target = REST_PREFIX + template.format(**path) + query
        reply = self._boss.call(method, target, body)
        assert reply.status < 300, (name, reply.status, reply.body)
        self.answers.setdefault(name, []).append(reply)
        return reply.json if reply.body else None

    def _read_markets(self) -> None:
        for name in ("/exchange/status", "/exchange/schedule", "/exchange/user_data_timestamp", "/series", "/events"):
            self._go(f"GET {name}")
        self._go("GET /events", query="?with_nested_markets=true")
        self._go("GET /series/{series_ticker}", series_ticker="KXTEST")
        self._go("GET /events/{event_ticker}", event_ticker="KXTEST")
        self._go("GET /markets")
        self._go("GET /markets/orderbooks", query="?tickers=KXTEST-1&tickers=KXTEST-2")
        self._go("GET /markets/{ticker}", ticker="KXTEST-2")
        self._go("GET /markets/{ticker}/orderbook", ticker="KXTEST-1")
        self._go("GET /margin/enabled")
        self._go("GET /margin/exchange/status")
        self._go("GET /margin/markets")
        self._go("GET /margin/markets/{ticker}", **PERP)
        self._go("GET /margin/markets/{ticker}/orderbook", **PERP)
        self._go("GET /margin/markets/orderbooks", query="?tickers=KXPERPTEST")

    def _manage_keys(self) -> None:
        public_key = pem_of(Ed25519PrivateKey.generate())
        made = self._go("POST /api_keys", {"name": "mine", "public_key": public_key, "subaccount": 3})
        self._go("POST /api_keys/generate", {"name": "theirs", "key_type": "ed25519", "scopes": ["read"]})
        self._go("GET /api_keys")
        self._go("DELETE /api_keys/{api_key}", api_key=made["api_key_id"])

    def _trade(self, orders: str, below: str, terms: dict[str, str]) -> None:
        filled = order_body(**terms, price="0.6000", client_order_id=f"{below} filled")
        self._go(f"POST {orders}", filled)
        in_an_hour = 4_000_000_000
        placed = self._go(
            f"POST {orders}", order_body(**terms, client_order_id=f"{below} rests", expiration_time=in_an_hour)
        )
        order = {"order_id": placed["order_id"]}
        change = {"ticker": "KXTEST-1", **terms, "side": "bid", "price": "0.5500", "count": "2.50"}
        self._go(f"POST {orders}/{{order_id}}/amend", change, **order)
        self._go(f"POST {orders}/{{order_id}}/decrease", {"reduce_by": "0.50"}, **order)
        self._read_orders(below, order)
        self._go(f"DELETE {orders}/{{order_id}}", **order)
        partly = order_body(**terms, price="0.6000", count="1500", client_order_id=f"{below} partly")
        order = {"order_id": self._go(f"POST {orders}", partly)["order_id"]}
        crossing = change | {"price": "0.6000", "count": "1600"}
        self._go(f"POST {orders}/{{order_id}}/amend", crossing, **order)
        self._read_orders(below, order)

    def _read_orders(self, below: str, order: dict[str, str]) -> None:
        self._go(f"GET {below}/orders")
        self._go(f"GET {below}/orders", query="?limit=1")
        self._go(f"GET {below}/orders/{{order_id}}", **order)
        self._go(f"GET {below}/fills")
        self._go(f"GET {below}/positions")
        self._go(f"GET {below}/balance")
        if below == "/portfolio":
            self._go("GET /portfolio/orders/queue_positions")
            self._go("GET /portfolio/orders/{order_id}/queue_position", **order)
            self._go("GET /portfolio/summary/total_resting_order_value")
            self._go("GET /markets/trades")
        else:
            self._go("GET /margin/trades")

    def _batch(self) -> None:
        orders = [order_body(client_order_id="in a batch"), order_body(client_order_id="not", ticker="KXUNKNOWN")]
        made = self._go("POST /portfolio/events/orders/batched", {"orders": orders})
        ended = [{"order_id": made["orders"][0]["order_id"]}, {"order_id": "unknown"}]
        self._go("DELETE /portfolio/events/orders/batched", {"orders": ended})

    def _group(self, orders: str, groups: str, terms: dict[str, str]) -> None:
        group = {"order_group_id": self._go(f"POST {groups}/create", {"contracts_limit": 50})["order_group_id"]}
        self._go(f"POST {orders}", order_body(client_order_id="in a group", **terms, **group))
        self._go(f"GET {groups}")
        self._go(f"GET {groups}/{{order_group_id}}", **group)
        self._go(f"PUT {groups}/{{order_group_id}}/limit", {"contracts_limit_fp": "60.00"}, **group)
        self._go(f"PUT {groups}/{{order_group_id}}/trigger", **group)
        self._go(f"PUT {groups}/{{order_group_id}}/reset", **group)
        self._go(f"DELETE {groups}/{{order_group_id}}", **group)

    def _quote(self) -> None:
        self._go("GET /communications/id")
        for quotes in ("/communications/quotes", "/communications/rfqs/{rfq_id}/quotes"):
            wanted = {"market_ticker": "KXTEST-1", "rest_remainder": True, "contracts_fp": "10.00"}
            rfq_id = self._go("POST /communications/rfqs", wanted)["id"]
            offer = {"rfq_id": rfq_id, "yes_bid": "0.4500", "no_bid": "0", "rest_remainder": False}
            first, second = (self._go("POST /communications/quotes", offer)["id"] for _ in range(2))
            self._go(f"PUT {quotes}/{{quote_id}}/accept", {"accepted_side": "yes"}, rfq_id=rfq_id, quote_id=first)
            self._go(f"PUT {quotes}/{{quote_id}}/confirm", rfq_id=rfq_id, quote_id=first)
            self._go(f"DELETE {quotes}/{{quote_id}}", rfq_id=rfq_id, quote_id=second)
            self._go(f"GET {quotes}/{{quote_id}}", rfq_id=rfq_id, quote_id=first)
            self._go("GET /communications/quotes")
            self._go("GET /communications/rfqs")
            self._go("DELETE /communications/rfqs/{rfq_id}", rfq_id=rfq_id)
            self._go("GET /communications/rfqs/{rfq_id}", rfq_id=rfq_id)

    def _read_account(self) -> None:
        for name in ("/account/limits", "/account/limits/perps", "/account/endpoint_costs"):
            self._go(f"GET {name}")
