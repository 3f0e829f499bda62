"""Asks Kalshi about the orders that take something of the caps: at the start, and every minute.

For a resting order, ``GET /portfolio/orders?status=resting`` has its state. If an order doesn't rest any more, in two
looks a second or more apart, ``GET /portfolio/fills`` says how much of it was filled. An order whose answer was lost is
looked up by its client_order_id. If two minutes after the end of its request Kalshi has neither the order nor a fill in
its market that belongs to no known order, there is no such order: by then Kalshi refuses its signature as too old.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import aiohttp

from hsm_keys.errors import HsmKeysError
from hsm_keys.proxy.amounts import DOLLAR, whole
from hsm_keys.proxy.exchanges import EVENTS, PERPETUALS, exchange_of, order_path
from hsm_keys.proxy.reservations import State
from hsm_keys.proxy.signing import FrozenError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from hsm_keys.proxy.exchanges import Exchange
    from hsm_keys.proxy.journal import Journal
    from hsm_keys.proxy.reservations import Reservations, ReservedOrder

    Get = Callable[[str, str], Awaitable[tuple[int, bytes]]]

__all__ = ["Reconciler", "UnreadableError"]

_EVERY_S: Final = 60.0
_SOON_S: Final = 1.0
_LATE_MS: Final = 120_000
"""Kalshi takes no signature that is as old as this."""

_SKEW_MS: Final = 60_000
_PAGE: Final = 500
_AT_ONCE: Final = 8
"""Markets of which the lists are asked for at once."""

_log: Final = logging.getLogger(__name__)


class UnreadableError(Exception):
    """Kalshi's answer isn't a list that can be read; the message says which."""


class Reconciler:
    """Reconciles reservations with what Kalshi says.

    Args:
        reservations: What is held.
        get: Asks Kalshi for a path and a query, signed; gives status and body.
        journal: What is synced once a second.
        is_capped: Tells whether there are caps, so that it is worth looking before there are orders.
        late_ms: Milliseconds after which Kalshi takes no signature any more.
    """

    def __init__(
        self,
        reservations: Reservations,
        get: Get,
        journal: Journal,
        is_capped: Callable[[], bool],
        *,
        late_ms: int = _LATE_MS,
    ) -> None:
        self._reservations = reservations
        self._get = get
        self._journal = journal
        self._wake = asyncio.Event()
        self._gone: dict[Exchange, set[int]] = {}
        self._has_news = False
        self._strangers: set[str] = set()
        self._strangers_logged = 0
        self._is_capped = is_capped
        self._late_ms = late_ms
        reservations.on_doubt = self._wake.set

    async def run(self) -> None:
        """Look until it is cancelled; what fails is tried again."""
        while True:
            self._wake.clear()
            await self.look()
            if not self._has_news:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY_S):
                        await self._wake.wait()
            await asyncio.sleep(_SOON_S)  # one look for all orders that became doubtful at the same time

    async def keep_synced(self) -> None:
        """Have the disk keep the journal, each second."""
        size = -1
        while True:
            await asyncio.sleep(1)
            if self._journal.size != size:
                size = self._journal.size
                await asyncio.to_thread(self._journal.sync)

    async def look(self) -> None:
        """Look once; what Kalshi doesn't say stays as it is."""
        self._has_news = False
        for exchange in (EVENTS, PERPETUALS):
            try:
                await self._look(exchange)
            except FrozenError:
                return
            except (HsmKeysError, aiohttp.ClientError, TimeoutError, UnreadableError) as error:
                why = str(error) or type(error).__name__
                _log.warning("orders under caps can't be looked up at Kalshi: %s", why)

    async def _look(self, exchange: Exchange) -> None:
        held = self._reservations.orders.values()
        since, orders = self._reservations.changes, [one for one in held if one.asked.perps == exchange.perps]
        is_capped = self._is_capped() and not exchange.perps
        if not (orders or is_capped):
            return
        listed = await self._listed(exchange.orders, "orders", status="resting")
        resting = {str(one.get("order_id")): one for one in listed}
        amended = {order.asked.amends for order in orders if not order.order_id}
        known = [order for order in orders if order.order_id and order.order_id not in amended]
        lost = [order for order in orders if not order.order_id and not order.is_under_way]
        gone = [order for order in known if order.order_id not in resting]
        gone_before = self._gone.get(exchange, set())
        late = {order.number for order in lost if self._reservations.age_ms(order) > self._late_ms}
        fills = await self._fills(exchange, gone + [order for order in lost if order.number in late])
        groups = [_resting(order, resting) for order in known if order.order_id in resting]
        groups += [await self._ended(order, fills) for order in gone if order.number in gone_before]
        placed = await self._by_market(exchange.orders, "orders", lost)
        for order in lost:
            listed_there = [*placed[order.asked.market], *listed]
            groups.append(await self._looked_up(order, listed_there, fills, is_late=order.number in late))
        self._gone[exchange] = {order.number for order in gone}
        self._has_news |= not self._gone[exchange] <= gone_before
        states = [state for group in groups if self._is_unchanged(group, since) for state in group]
        self._tell(states)
        self._reservations.settle(states)
        if is_capped:
            self._tell_strangers(resting.keys() - {order.order_id for order in self._reservations.orders.values()})

    def _is_unchanged(self, states: Iterable[State], since: int) -> bool:
        """Tell whether nothing was heard of these orders since Kalshi was asked."""
        orders = [self._reservations.orders.get(state.number) for state in states]
        return all(order is not None and order.changed <= since for order in orders)

    def _tell(self, states: Iterable[State]) -> None:
        """Log what differs from what was known."""
        filled = ended = absent = 0
        for state in states:
            order = self._reservations.orders[state.number]
            came_to_be = bool(state.live or state.filled or state.order_id or order.order_id)
            filled += state.filled > order.filled
            ended += state.live == 0 and came_to_be
            absent += not came_to_be
        if filled or ended or absent:
            _log.warning(
                "Kalshi reports changes of orders under caps: %d filled further, %d over, %d never made",
                filled,
                ended,
                absent,
            )

    def _tell_strangers(self, strangers: set[str]) -> None:
        """Log how many orders rest that aren't held here, in two looks one after the other, if that has changed."""
        count = len(strangers & self._strangers)
        if count != self._strangers_logged:
            _log.warning("%d orders rest at Kalshi that no cap of this proxy counts", count)
        self._strangers, self._strangers_logged = strangers, count

    async def _looked_up(
        self,
        order: ReservedOrder,
        placed: list[dict[str, Any]],
        fills: dict[str, list[dict[str, Any]]],
        *,
        is_late: bool,
    ) -> list[State]:
        """Return what became of an order of which the answer was lost; nothing if that can't be told yet."""
        asked = order.asked
        if asked.amends:
            return await self._looked_up_amendment(order) if is_late else []
        if same := self._of_its_name(order, placed):
            return _found(order, *same)
        if not is_late:
            return []
        known = {str(one.get("order_id")) for one in placed}
        known |= {one.order_id for one in self._reservations.orders.values()}
        for order_id, of_it in fills.items():
            if order_id in known or self._reservations.has_ended(order_id):
                continue
            if all(str(fill.get("ticker")).upper() != asked.market.upper() for fill in of_it):
                continue
            said = await self._order(order, order_id)  # one that is older, and was filled since
            if said.get("client_order_id") == asked.client_order_id:
                return _found(order, said)
            if not said.get("client_order_id"):  # the fill may be this order's
                return []
        return [State(order.number, 0, 0)]

    def _of_its_name(self, order: ReservedOrder, placed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the orders that Kalshi lists under this one's name.

        There may be several: one that had the name before and is over, one that an amendment gave the name to. One that
        is held already isn't meant, nor is one that was, and is over: this one may still come.
        """
        mine = {
            str(one.get("order_id")): one for one in placed if one.get("client_order_id") == order.asked.client_order_id
        }
        held = self._reservations
        return [
            one
            for order_id, one in mine.items()
            if held.by_order_id(order_id) in (None, order) and not held.has_ended(order_id)
        ]

    async def _looked_up_amendment(self, order: ReservedOrder) -> list[State]:
        """Return what became of an amendment of which the answer was lost; nothing if that can't be told."""
        order_id, old = order.asked.amends, self._reservations.by_order_id(order.asked.amends)
        if old is None:  # it was cancelled meanwhile: how much was filled at which price isn't known
            return [State(order.number, order.live, 0)]
        said = await self._order(order, order_id)
        filled, remaining = _counts(order, said)
        cost = _cost(order, said)
        if filled is None or remaining is None or cost is None:
            return []
        before = old.base + old.filled
        if cost == old.asked.cost and filled + remaining <= before + old.live:
            return [State(order.number, 0, 0)]
        if cost != order.asked.cost:
            return []
        more = max(0, filled - before)
        if old.asked.cost > order.asked.cost:
            ended = State(old.number, old.filled + more, 0)
            return [ended, State(order.number, 0, remaining, order_id, before + more)]
        return [State(old.number, old.filled, 0), State(order.number, more, remaining, order_id, before)]

    async def _ended(self, order: ReservedOrder, fills: dict[str, list[dict[str, Any]]]) -> list[State]:
        """Return what an order came to that rests no longer."""
        if order.base:  # some of its fills may be older than those that were listed
            filled, _ = _counts(order, await self._order(order, order.order_id))
        else:
            counts = [whole(fill.get(_exchange(order).fill_count), 2) for fill in fills.get(order.order_id, ())]
            filled = None if None in counts else sum(count or 0 for count in counts)
        mine = order.filled + order.live if filled is None else filled - order.base
        return [State(order.number, max(mine, order.filled), 0, order.order_id, order.base)]

    async def _order(self, order: ReservedOrder, order_id: str) -> dict[str, Any]:
        """Return what Kalshi says of an order of that id; empty if it doesn't know it."""
        status, body = await self._get(order_path(_exchange(order).orders, order_id), "")
        said = _read(body).get("order") if status == HTTPStatus.OK else None
        return said if isinstance(said, dict) else {}

    async def _fills(self, exchange: Exchange, orders: list[ReservedOrder]) -> dict[str, list[dict[str, Any]]]:
        """Return the fills in the markets of these, since the oldest of each, by order."""
        fills: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for listed in (await self._by_market(exchange.fills, "fills", orders)).values():
            for fill in listed:
                fills[str(fill.get("order_id"))].append(fill)
        return fills

    async def _by_market(
        self, path: str, name: str, orders: Iterable[ReservedOrder]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return a list for each of these orders' markets, since the oldest of each: all others may be far longer."""
        since: dict[str, int] = {}
        for order in orders:
            at_s = (order.since_ms - _SKEW_MS) // 1000
            since[order.asked.market] = min(at_s, since.get(order.asked.market, at_s))
        turns = asyncio.Semaphore(_AT_ONCE)

        async def listed(market: str, since_s: int) -> list[dict[str, Any]]:
            async with turns:
                return await self._listed(path, name, ticker=market, min_ts=since_s)

        return dict(zip(since, await asyncio.gather(*map(listed, since, since.values())), strict=True))

    async def _listed(self, path: str, name: str, **query: str | int) -> list[dict[str, Any]]:
        """Return a whole list, page by page."""
        listed: list[dict[str, Any]] = []
        cursor, seen = "", set[str]()
        while True:
            asked = {**query, "limit": _PAGE} | ({"cursor": cursor} if cursor else {})
            seen.add(cursor)
            status, body = await self._get(path, urlencode(asked))
            if status != HTTPStatus.OK:
                raise UnreadableError(f"Kalshi answered GET {path} with {status}")
            said = _read(body)
            page, cursor = said.get(name) or [], said.get("cursor") or ""
            if not isinstance(page, list) or not all(isinstance(one, dict) for one in page):
                raise UnreadableError(f"the answer to GET {path} isn't a list")
            if not isinstance(cursor, str) or (cursor and cursor in seen):
                raise UnreadableError(f"the pages of GET {path} have no end")
            listed += page
            if not cursor:
                return listed


def _read(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise UnreadableError("an answer of Kalshi's isn't JSON")
    return said


def _exchange(order: ReservedOrder) -> Exchange:
    return exchange_of(perps=order.asked.perps)


def _counts(order: ReservedOrder, said: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return how many contracts of an order were filled, and may still be."""
    exchange = _exchange(order)
    return whole(said.get(exchange.filled), 2), whole(said.get(exchange.remaining), 2)


def _cost(order: ReservedOrder, said: dict[str, Any]) -> int | None:
    """Return the cost of a contract of the order by Kalshi's data; None if it isn't known."""
    if order.asked.perps:  # it isn't used in any calculation
        return order.asked.cost
    price = said.get("yes_price_dollars")
    # Kalshi sends at most six decimals, of which the last two are zeros.
    yes = whole(price[:6], 4) if isinstance(price, str) else None
    return yes if yes is None or order.asked.side == "bid" else DOLLAR - yes


def _resting(order: ReservedOrder, resting: dict[str, dict[str, Any]]) -> list[State]:
    """Return the changes of a resting order."""
    filled, remaining = _counts(order, resting[order.order_id])
    if filled is None or remaining is None:
        return []
    state = State(order.number, max(0, filled - order.base), remaining, order.order_id, order.base)
    return [] if (state.filled, state.live) == (order.filled, order.live) else [state]


def _found(order: ReservedOrder, *listed: dict[str, Any]) -> list[State]:
    """Return the state of an order that Kalshi lists; if it may be one of several, the highest numbers of them."""
    counts = [_counts(order, said) for said in listed]
    if any(None in pair for pair in counts) or not all(said.get("order_id") for said in listed):
        return []
    # Kalshi sends no status for perpetual futures.
    rests = [said.get("status", "resting") == "resting" for said in listed]
    lives = [(remaining or 0) if may_rest else 0 for (_, remaining), may_rest in zip(counts, rests, strict=True)]
    live = max(lives)
    order_id = str(listed[lives.index(live)]["order_id"])
    return [State(order.number, max(filled or 0 for filled, _ in counts), live, order_id)]
