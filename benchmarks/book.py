# ruff: noqa: INP001 - a part of scripts
"""What a stand-in for Kalshi does with orders: fills, rests, refuses, and answers that never arrive."""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict, deque
from typing import Any, Final

from hsm_keys.proxy.amounts import DOLLAR, whole, worst_case

_PAGE: Final = 500
_KEPT_S: Final = 600.0
"""Seconds after which an order that is over is listed no more."""
_RESTS_S: Final = 5.0
"""Seconds after which the market has come to an order that nobody cancels."""

REFUSED: Final = 400, {"error": {"code": "insufficient_balance", "message": "insufficient balance"}}
NOT_FOUND: Final = 404, {"error": {"code": "not_found", "message": "order not found"}}
LOST: Final = 0, None
"""Nothing is answered, and the connection is closed."""


class Placed:
    """An order, in hundredths of a contract and of a cent."""

    __slots__ = ("at", "bid", "cost", "filled", "live", "name", "order_id", "ticker")

    def __init__(self, order_id: str, asked: dict[str, str]) -> None:
        self.order_id, self.name, self.ticker, self.at = (
            order_id,
            asked["client_order_id"],
            asked["ticker"],
            time.time(),
        )
        self.bid = asked["side"] == "bid"
        price = whole(asked["price"], 4) or 0
        self.cost = price if self.bid else DOLLAR - price
        self.live, self.filled = whole(asked["count"], 2) or 0, 0

    @property
    def taken(self) -> int:
        """Hundredths of a cent that it has cost, and may still cost."""
        return worst_case(self.filled + self.live, self.cost)

    def listed(self) -> dict[str, str]:
        """Return it as Kalshi lists it."""
        return {
            "order_id": self.order_id,
            "client_order_id": self.name,
            "ticker": self.ticker,
            "status": "resting" if self.live else "executed",
            "fill_count_fp": _text(self.filled),
            "remaining_count_fp": _text(self.live),
        }


class Book:
    """The orders of an account, and what they come to.

    Args:
        mixed: Whether some orders rest, are refused, or have no answer. The name's number decides, as ``k123``.

    Attributes:
        spent: Hundredths of a cent that orders have cost, and may still cost.
        open: The same of those that rest.
        most: The largest sums since the last report: spent, open, and contracts of one market either way.
    """

    def __init__(self, *, mixed: bool) -> None:
        self.mixed = mixed
        self.count = self.spent = self.open = 0
        self.most = [0, 0, 0]
        self.moments: list[tuple[float, str]] = []
        self.resting: dict[str, Placed] = {}
        self._markets: defaultdict[str, deque[Placed]] = defaultdict(deque)
        self._sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])

    def place(self, body: bytes) -> tuple[int, Any]:
        """Do with a new order what its number says; return status and answer."""
        asked = json.loads(body)
        self.moments.append((time.monotonic(), "POST"))
        fate = int(asked["client_order_id"][1:]) * 7919 % 10_000 if self.mixed else 5000
        if fate < 300:  # noqa: PLR2004 - the shares stand here and nowhere else
            return REFUSED
        if fate == 300:  # noqa: PLR2004
            return LOST
        self.count += 1
        order = Placed(f"o{self.count}", asked)
        self._keep(order)
        self._take(order, 1)
        if fate >= 2800:  # noqa: PLR2004
            self._fill(order, order.live)
        elif fate >= 2300:  # noqa: PLR2004
            self._fill(order, order.live // 2)
        if order.live:
            self.resting[order.order_id] = order
        if fate < 330:  # noqa: PLR2004 - it is in the book, and nobody hears of it
            return LOST
        return 201, {
            "order_id": order.order_id,
            "client_order_id": order.name,
            "fill_count": _text(order.filled),
            "remaining_count": _text(order.live),
        }

    def cancel(self, order_id: str) -> tuple[int, Any]:
        """Cancel an order; of some a part was filled meanwhile, and a few were filled whole."""
        order = self.resting.get(order_id)
        if order is None:
            return NOT_FOUND
        luck = int(order_id[1:]) % 40
        if luck < 8 and self.mixed:  # noqa: PLR2004
            self._fill(order, order.live if luck == 0 else order.live // 3)
        del self.resting[order_id]
        reduced = order.live
        self._take(order, -1)
        order.live = 0
        self._take(order, 1)
        return (200, {"order_id": order_id, "reduced_by": _text(reduced)}) if reduced else NOT_FOUND

    def cancel_all(self) -> tuple[int, Any]:
        """Cancel all that rest."""
        self.moments.append((time.monotonic(), "DELETE"))
        for order_id in list(self.resting):
            self.cancel(order_id)
        return 200, {}

    def move(self) -> None:
        """Have the market come to orders that rest for long."""
        until = time.time() - _RESTS_S
        for order in list(itertools.takewhile(lambda one: one.at < until, self.resting.values())):
            del self.resting[order.order_id]
            self._fill(order, order.live)

    def orders(self, asked: dict[str, str]) -> tuple[int, Any]:
        """List a page of orders."""
        found: Any = self.resting.values() if "status" in asked else self._since(asked)
        return 200, _page("orders", asked, (order.listed() for order in found))

    def fills(self, asked: dict[str, str]) -> tuple[int, Any]:
        """List a page of fills."""
        found = (order for order in self._since(asked) if order.filled)
        return 200, _page("fills", asked, ({**one.listed(), "count_fp": _text(one.filled)} for one in found))

    def order(self, order_id: str) -> tuple[int, Any]:
        """Show one order."""
        found = (one for orders in self._markets.values() for one in orders if one.order_id == order_id)
        order = next(found, None)
        return NOT_FOUND if order is None else (200, {"order": order.listed()})

    def report(self) -> dict[str, Any]:
        """Return the sums, and forget the moments and the largest sums."""
        moments, self.moments = self.moments, []
        most, self.most = self.most, [self.spent, self.open, 0]
        return {"orders": self.count, "spent": self.spent, "open": self.open, "most": most, "moments": moments}

    def _since(self, asked: dict[str, str]) -> list[Placed]:
        markets = [self._markets[asked["ticker"]]] if "ticker" in asked else self._markets.values()
        since = int(asked.get("min_ts", 0))
        return [
            order for orders in markets for order in itertools.takewhile(lambda one: one.at >= since, reversed(orders))
        ]

    def _keep(self, order: Placed) -> None:
        orders = self._markets[order.ticker]
        orders.append(order)
        while not orders[0].live and orders[0].at < order.at - _KEPT_S:
            orders.popleft()

    def _fill(self, order: Placed, count: int) -> None:
        self._take(order, -1)
        order.filled, order.live = order.filled + count, order.live - count
        self._take(order, 1)

    def _take(self, order: Placed, times: int) -> None:
        """Count what an order comes to, or count it no more."""
        market = self._sums[order.ticker]
        self.spent += times * order.taken
        self.open += times * (order.taken - worst_case(order.filled, order.cost))
        market[0 if order.bid else 1] += times * order.live
        market[2] += times * (order.filled if order.bid else -order.filled)
        if times > 0:
            bids, asks, net = market
            now = self.spent, self.open, max(net + bids, asks - net)
            self.most = [max(pair) for pair in zip(self.most, now, strict=True)]


def _page(name: str, asked: dict[str, str], found: Any) -> dict[str, Any]:
    start = int(asked.get("cursor", 0))
    listed = list(itertools.islice(found, start, start + _PAGE + 1))
    return {name: listed[:_PAGE], "cursor": str(start + _PAGE) if len(listed) > _PAGE else ""}


def _text(hundredths: int) -> str:
    return f"{hundredths // 100}.{hundredths % 100:02}"
