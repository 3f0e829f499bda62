"""Bodies that move money: what an order asks for, read so strictly that Kalshi can't read it in another way."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.proxy.paths import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "JUDGED_LIMIT",
    "OrderLimits",
    "UnclearBodyError",
    "is_batch",
    "is_judged",
    "judge_orders",
    "orders_in",
    "reduces_only",
]

JUDGED_LIMIT: Final = 32 * 1024
"""Bytes of a body that is judged: a hundred orders. Judging it takes some milliseconds of the event loop."""

_ROUTES: Final = ("/portfolio/orders", "/portfolio/events/orders")  # the second is what Kalshi calls V2
_CREATE: Final = tuple(Rule.parse(f"POST {route}") for route in _ROUTES)
_BATCH: Final = tuple(Rule.parse(f"POST {route}/batched") for route in _ROUTES)
_AMEND: Final = tuple(Rule.parse(f"POST {route}/{{order_id}}/amend") for route in _ROUTES)
_REDUCING: Final = (
    *(
        Rule.parse(text)
        for route in _ROUTES
        for text in (f"DELETE {route}/{{order_id}}", f"DELETE {route}/batched", f"POST {route}/{{order_id}}/decrease")
    ),
    Rule.parse("DELETE /portfolio/order_groups/{order_group_id}"),
    Rule.parse("PUT /portfolio/order_groups/{order_group_id}/trigger"),
    Rule.parse("DELETE /communications/rfqs/{rfq_id}"),
    Rule.parse("DELETE /communications/quotes/{quote_id}"),
)
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_FIELDS: Final = frozenset(
    {
        "ticker",
        "client_order_id",
        "updated_client_order_id",
        "side",
        "action",
        "type",
        "count",
        "count_fp",
        "price",
        "expiration_time",
        "exchange_index",
        "yes_price",
        "no_price",
        "yes_price_dollars",
        "no_price_dollars",
        "expiration_ts",
        "time_in_force",
        "buy_max_cost",
        "post_only",
        "reduce_only",
        "sell_position_floor",
        "self_trade_prevention_type",
        "order_group_id",
        "cancel_order_on_pause",
        "subaccount",
    }
)
_PRICES: Final = {
    "yes_price": Decimal("0.01"),
    "no_price": Decimal("0.01"),
    "yes_price_dollars": Decimal(1),
    "no_price_dollars": Decimal(1),
    "price": Decimal(1),
}
_COUNTS: Final = ("count", "count_fp")


class UnclearBodyError(ValueError):
    """A body that can be read in two ways, or not at all; the message says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class OrderLimits:
    """What an order may ask for; None where it may ask for anything.

    Args:
        max_count: Contracts.
        max_price: Dollars that a contract may cost: its price, or for a sale what is left to one dollar, unless it
            can only reduce a position.
        markets: Patterns of which the ticker has to match one; ``*`` stands for any characters.
    """

    max_count: Decimal | None
    max_price: Decimal | None
    markets: Sequence[str] | None

    def __bool__(self) -> bool:
        return not (self.max_count is None and self.max_price is None and self.markets is None)


@lru_cache(maxsize=1024)
def is_judged(method: str, path: str) -> bool:
    """Tell whether the request creates or changes orders, in a body that is read here."""
    return _is(method, path, (*_CREATE, *_BATCH, *_AMEND))


@lru_cache(maxsize=1024)
def is_batch(method: str, path: str) -> bool:
    """Tell whether the request creates several orders."""
    return _is(method, path, _BATCH)


def reduces_only(method: str, path: str) -> bool:
    """Tell whether the request can only take orders away."""
    return any(rule.matches(method, path) for rule in _REDUCING)


def orders_in(method: str, path: str, body: bytes) -> list[dict[str, Any]]:
    """Return the orders that a request creates or changes.

    Raises:
        UnclearBodyError: If the body isn't one JSON object with distinct names, or a list of such orders in one.
    """
    parsed = _parse(body)
    if not is_batch(method, path):
        return [parsed]
    orders = parsed.get("orders")
    if set(parsed) != {"orders"} or not isinstance(orders, list) or not orders:
        raise UnclearBodyError("the batch isn't an object with a list of orders alone")
    if not all(isinstance(order, dict) for order in orders):
        raise UnclearBodyError("an order isn't an object")
    return orders


def judge_orders(method: str, path: str, orders: Sequence[dict[str, Any]], limits: OrderLimits) -> str | None:
    """Return what the limits have against these orders; None if nothing.

    Raises:
        UnclearBodyError: If an order has names or values that this program doesn't know.
    """
    amends = _is(method, path, _AMEND)
    for order in orders:
        _check(order)
        against = _judge(order, limits, amends=amends)
        if against is not None:
            return against
    return None


def _is(method: str, path: str, rules: Sequence[Rule]) -> bool:
    return any(rule.matches(method, path, fold=True) for rule in rules)


def _sells(order: dict[str, Any]) -> bool:
    """Tell whether it may open a position against the market: then it costs what is left to one dollar."""
    return (order.get("action"), order.get("side")) not in {("buy", "yes"), ("buy", "no"), (None, "bid")}


def _judge(order: dict[str, Any], limits: OrderLimits, *, amends: bool) -> str | None:
    counts = [_number(order[name], name) for name in _COUNTS if name in order]
    prices = [_number(order[name], name) * unit for name, unit in _PRICES.items() if name in order]
    if _sells(order):  # what is amended may have been made without reduce_only, whatever is said now
        reduces = order.get("reduce_only") is True and not amends
        prices = [] if reduces else [1 - price for price in prices]
    if limits.markets is not None:
        ticker = order.get("ticker")
        if not isinstance(ticker, str) or not any(fnmatchcase(ticker, pattern) for pattern in limits.markets):
            return "markets: the order isn't for one of the markets that are allowed"
    if limits.max_count is not None:
        if not counts and not amends:
            return "max_count: the order says no count"
        if any(not 0 < count <= limits.max_count for count in counts):
            return f"max_count: the order is for more than {limits.max_count} contracts, or for none"
    if limits.max_price is not None:
        return _against_price(order, prices, limits.max_price, amends=amends)
    return None


def _against_price(order: dict[str, Any], prices: Sequence[Decimal], most: Decimal, *, amends: bool) -> str | None:
    if not amends and not any(name in order for name in _PRICES):
        return "max_price: the order says no price"
    if order.get("type", "limit") != "limit":
        return "max_price: only a limit order keeps to a price"
    if any(not 0 < price <= most for price in prices):
        return f"max_price: a contract would cost more than {most} dollars, or nothing"
    return None


def _number(value: Any, name: str) -> Decimal:
    """Read a whole number, or a decimal in a string."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Decimal(value)
    raise UnclearBodyError(f"{name} is no plain number")


def _check(order: dict[str, Any]) -> None:
    if not order.keys() <= _FIELDS:  # Kalshi may fold case, or know a name for money that this program doesn't
        raise UnclearBodyError("an order has a field that this program doesn't know")
    if sum(name in order for name in _PRICES) > 1 or sum(name in order for name in _COUNTS) > 1:
        raise UnclearBodyError("an order says its price or its count twice")
    if not all(isinstance(order.get(name, ""), str) for name in ("action", "side")):
        raise UnclearBodyError("an order's action or side is no text")


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnclearBodyError):
            raise
        raise UnclearBodyError("the body isn't JSON in UTF-8") from None
    if not isinstance(parsed, dict):
        raise UnclearBodyError("the body isn't a JSON object")
    return parsed


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name.casefold() for name, _ in pairs}) != len(pairs):
        raise UnclearBodyError("the body says one name twice")
    return dict(pairs)


def _refuse(_constant: str) -> Any:
    raise UnclearBodyError("the body isn't JSON: it holds NaN or Infinity")
