"""Series of requests that reach a limit of a policy: a rate, a number or a sum of orders, a time."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from hsm_keys.proxy.amounts import DOLLAR
from hsm_keys.proxy.caps import LONGEST_DUPLICATE_S
from hsm_keys.proxy.edges import money_of, order_body, tickers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from hsm_keys.proxy.policy import ClientPolicy

    Step = tuple[str, str, bytes | None, datetime]
    """A method, a path, a body, and the time."""

__all__ = [
    "MOST_AFTER_EACH_OTHER",
    "ORDERS",
    "READ",
    "Filling",
    "edges_of_duplicates",
    "ever_later",
    "order_twice",
    "small_orders",
    "ticker_of_both",
]

READ: Final = "/trade-api/v2/exchange/status"
ORDERS: Final = "/trade-api/v2/portfolio/events/orders"
MOST_AFTER_EACH_OTHER: Final = 20_000
_LARGEST: Final = 10**10
"""Hundredths of a contract that an order can be for."""

_AFTER_ALL: Final = timedelta(seconds=LONGEST_DUPLICATE_S + 1)
"""After so long no limit of a minute holds an order back, and none because another was like it."""


class Filling:
    """Orders that fill sums: as large as one may be, and smaller where that is too much.

    Args:
        rules: The rules of both policies.
        ticker: A market that both allow.
        rests: Whether the orders rest.
        spreads: Whether time goes by between them: then no limit of a minute stops them.
        moves: Whether each is in a market of its own, where the rules leave that open.
        number: How many went before.
    """

    def __init__(
        self,
        rules: Sequence[ClientPolicy],
        ticker: str,
        *,
        rests: bool,
        spreads: bool,
        moves: bool,
        number: int = 0,
    ) -> None:
        self.number = number
        self._rests, self._moves = rests, moves and all(one.markets is None for one in rules)
        self._ticker = ticker
        self._pause = _AFTER_ALL if spreads else timedelta(0)
        self._price = min([one.max_price_cents * 100 for one in rules if one.max_price_cents] or [DOLLAR // 2])
        sums = {cap * 100 // self._price for cap in money_of(rules)}
        counts = {cap for one in rules for cap in (one.caps.market, one.together.market, one.max_count) if cap}
        self._count = min(max(sums | counts | {1}), _LARGEST)

    def body(self) -> bytes:
        """Return the next order."""
        ticker = f"{self._ticker}-{self.number}" if self._moves else self._ticker
        name = f"n{self.number}"
        order = order_body(ticker, self._count, self._price, rests=self._rests, client_order_id=name)
        return json.dumps(order).encode()

    def went(self) -> timedelta:
        """Come to the next order, and return how much later it is."""
        self.number += 1
        return self._pause

    def shrink(self) -> bool:
        """Make orders smaller; tell whether that can be done."""
        if self._count > 1:
            self._count //= 2
        elif self._price > 1:
            self._price //= 2
        else:
            return False
        return True


def ticker_of_both(rules: Sequence[ClientPolicy]) -> str:
    """Return a market that all rules allow; where there is none, one that one of them names."""
    known = tickers(rules)
    return next((one for one in known if all(rule.order_limits.takes_market(one) for rule in rules)), known[0])


def small_orders(rules: Sequence[ClientPolicy], ticker: str, at: datetime, *, first: int = 0) -> Iterator[Step]:
    """Yield orders that cost next to nothing, of which no two are alike, nor like those before the first one."""
    most = min([100, *(one.max_count for one in rules if one.max_count)])
    for number in range(first, first + MOST_AFTER_EACH_OTHER):
        price, count = divmod(number, most)
        order = order_body(ticker, count + 1, min(price + 1, DOLLAR - 1), rests=False, client_order_id=f"n{number}")
        yield "POST", ORDERS, json.dumps(order).encode(), at


def ever_later(method: str, path: str, at: datetime, seconds: float) -> Iterator[Step]:
    """Yield the same request so many seconds after the one before: more than a rate allows."""
    for number in range(MOST_AFTER_EACH_OTHER):
        yield method, path, None, at + timedelta(seconds=seconds * number)


def edges_of_duplicates(rules: ClientPolicy) -> list[float]:
    """Return after how many seconds an order like another one is just still held back, and just not any more."""
    held = [caps.duplicate_ms / 1000 for caps in (rules.caps, rules.together) if caps.duplicate_ms]
    return [edge for seconds in held for edge in (seconds - 0.001, seconds)]


def order_twice(ticker: str, at: datetime, later: timedelta) -> Iterator[Step]:
    """Yield the same order twice."""
    for number, moment in enumerate((at, at + later)):
        order = order_body(ticker, 1, 1, rests=False, client_order_id=f"n{number}")
        yield "POST", ORDERS, json.dumps(order).encode(), moment
