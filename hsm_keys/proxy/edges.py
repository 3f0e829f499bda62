"""Requests at the edges of two policies: every operation, every rule, the last value of each limit and the next one."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.kalshi.operations import OPERATIONS, REST_PREFIX, WEBSOCKETS, words_in_place
from hsm_keys.proxy.amounts import DOLLAR
from hsm_keys.proxy.paths import METHODS, Rule, UnclearPathError, split_target
from hsm_keys.proxy.schemas import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hsm_keys.proxy.policy import ClientPolicy, Policy

__all__ = ["bodies", "moments", "money_of", "order_body", "routes", "tickers"]

_ANY: Final = "x"
_ODD: Final = ("/unknown", "/unknown/api_keys", "/unknown/transfer", "/trade-api/v3/unknown", "/trade-api/ws/v3")
"""Paths that the table hasn't."""

_MOST_OF_A_TEMPLATE: Final = 200
_MONDAYS: Final = (date(2026, 1, 5), date(2026, 7, 6))  # clocks are set differently in winter and in summer
_PERPS: Final = "/margin/"


def routes(policies: Iterable[Policy]) -> list[tuple[str, str]]:
    """Return methods and paths: of every operation and rule, with each segment that some rule names in its place."""
    rules = [rule for policy in policies for client in policy.clients.values() for rule in _rules(client)]
    templates = {tuple(operation.route.split("/")[1:]) for operation in OPERATIONS + WEBSOCKETS}
    templates |= {rule.segments for rule in rules}
    named: dict[int, set[str]] = {}
    for rule in rules:
        for place, segment in enumerate(rule.segments):
            if not _is_open(segment):
                named.setdefault(place, set()).add(segment)
    paths = list(dict.fromkeys(path for template in sorted(templates) for path in _paths(template, named)))
    paths += [path if path.startswith("/trade-api/") else REST_PREFIX + path for path in _ODD]
    paths += [REST_PREFIX + path.removeprefix(REST_PREFIX).upper() for path in paths if path.startswith(REST_PREFIX)]
    return [(method, path) for path in paths if _is_clear(path) for method in METHODS]


def moments(policies: Iterable[Policy]) -> list[datetime]:
    """Return the times at which a window of some client begins or ends, and the seconds before them."""
    edges = {datetime(2026, 1, 5, 12, tzinfo=UTC)}
    windows = [window for policy in policies for client in policy.clients.values() for window in client.hours or ()]
    for window, monday, day in product(windows, _MONDAYS, range(7)):
        for clock in (window.begin, window.end or time(0)):
            at = datetime.combine(monday + timedelta(day), clock, window.zone).astimezone(UTC)
            edges |= {at, at - timedelta(seconds=1)}
    return sorted(edges)


def bodies(operation: str, rules: Iterable[ClientPolicy]) -> Iterator[bytes]:
    """Yield bodies of an operation at the edges of limits of orders, and what is no body; nothing if it has none.

    Args:
        operation: Its name in the table.
        rules: Those of which the limits count.
    """
    if operation not in SCHEMAS:
        return
    rules = list(rules)
    reduces = operation.startswith("DELETE") or operation.endswith("/decrease")
    if reduces:
        orders = [{"order_id": _ANY}]
        yield json.dumps({"orders": orders} if operation.endswith("/batched") else {"reduce_by": "1"}).encode()
    else:
        sizes = sorted({limit + over for one in rules if (limit := one.orders_per_minute) for over in (0, 1)})
        for order in _orders(operation, rules):
            if operation.endswith("/batched"):
                yield json.dumps({"orders": [order]}).encode()
            else:
                yield json.dumps(order).encode()
        if operation.endswith("/batched"):
            least = order_body(tickers(rules)[0], 1, 1)
            for size in sizes[:8]:
                yield json.dumps({"orders": [{**least, "client_order_id": str(one)} for one in range(size)]}).encode()
    yield from (b"{}", b"", b"x")


def order_body(ticker: str, count: int, price: int, *, rests: bool = True, **more: Any) -> dict[str, Any]:
    """Return a bid.

    Args:
        ticker: The market's.
        count: Hundredths of a contract.
        price: Hundredths of a cent.
        rests: Whether it stays in the book.
        more: Further fields, or other values.
    """
    return {
        "ticker": ticker,
        "side": "bid",
        "count": f"{count // 100}.{count % 100:02}",
        "price": f"{price // DOLLAR}.{price % DOLLAR:04}",
        "time_in_force": "good_till_canceled" if rests else "immediate_or_cancel",
        "self_trade_prevention_type": "taker_at_cross",
        "client_order_id": _ANY,
        **more,
    }


def tickers(rules: Iterable[ClientPolicy], *, filled: str = "X") -> list[str]:
    """Return tickers that patterns of markets match, and one that none matches; ``filled`` stands for each star."""
    patterns = sorted({pattern for one in rules for pattern in one.markets or ()})
    names = [pattern.replace("*", part) for pattern in patterns for part in dict.fromkeys(("", filled, *patterns))]
    plain = (ticker.replace("*", filled).replace("?", "X") for ticker in names)
    return list(dict.fromkeys((*(ticker for ticker in plain if ticker), f"KXOTHER-{filled}")))


def money_of(rules: Iterable[ClientPolicy]) -> set[int]:
    """Return the caps on money, in hundredths of a cent, of clients and of all together."""
    held = [caps for one in rules for caps in (one.caps, one.together)]
    return {cap for caps in held for cap in (caps.order, caps.day, caps.open) if cap is not None}


def _orders(operation: str, rules: list[ClientPolicy]) -> Iterator[dict[str, Any]]:
    counts, prices = _numbers(rules)
    amends = operation.endswith("/amend")
    if not amends:
        yield order_body(tickers(rules)[0], 1, DOLLAR // 2, client_order_id=None)
    for ticker, side, (count, price) in product(tickers(rules), ("bid", "ask"), _pairs(counts, prices, rules)):
        order = order_body(ticker, count, price, side=side)
        if amends:
            yield {name: order[name] for name in ("ticker", "side", "count", "price")}
            continue
        yield order
        if side == "ask":
            yield {**order, "time_in_force": "immediate_or_cancel", "reduce_only": True}


def _numbers(rules: list[ClientPolicy]) -> tuple[list[int], list[int]]:
    """Return counts and prices at the edges of limits."""
    counts, prices = {1, 100}, {1, DOLLAR // 2, DOLLAR - 1}
    for one in rules:
        for limit in (one.max_count, one.caps.market, one.together.market):
            counts |= {limit, limit + 1} if limit else set()
        if one.max_price_cents:
            price = one.max_price_cents * 100
            prices |= {price, price + 1, DOLLAR - price, DOLLAR - price - 1}
    usual = sorted((price for price in prices if 0 < price < DOLLAR), key=lambda price: abs(price - DOLLAR // 2))
    return sorted(counts, reverse=True), usual


def _pairs(counts: list[int], prices: list[int], rules: list[ClientPolicy]) -> list[tuple[int, int]]:
    """Return counts with prices, such as cost what a cap in dollars allows, and a little more."""
    pairs = dict.fromkeys(product(counts, prices))
    for cap in sorted(money_of(rules)):
        pairs |= dict.fromkeys((cap * 100 // price + over, price) for price in prices for over in (0, 1))
        pairs |= dict.fromkeys((count, cap * 100 // count + over) for count in counts for over in (0, 1))
    return [(count, price) for count, price in pairs if 0 < count < 10**11 and 0 < price < DOLLAR]


def _rules(client: ClientPolicy) -> list[Rule]:
    return [*(client.allow or ()), *client.deny, *client.allow_unjudged]


def _paths(template: tuple[str, ...], named: dict[int, set[str]]) -> Iterator[str]:
    ends = ([], [_ANY], [_ANY, _ANY]) if template[-1] == "**" else ([],)
    segments = template[:-1] if template[-1] == "**" else template
    choices = []
    for place, segment in enumerate(segments):
        if _is_open(segment):
            words = words_in_place(segments[:place]) if segment == "*" else frozenset()
            choices.append(sorted({_ANY} | named.get(place, set()) | words))
        else:
            choices.append([segment])
    for number, chosen in enumerate(product(*choices)):
        if number >= _MOST_OF_A_TEMPLATE:
            return
        for end in ends:
            yield "/".join(["", *chosen, *end])


def _is_open(segment: str) -> bool:
    return segment in {"*", "**"} or segment.startswith("{")


def _is_clear(path: str) -> bool:
    try:
        split_target(path)
    except UnclearPathError:
        return False
    return True
