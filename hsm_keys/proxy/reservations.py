"""What orders hold of the caps on money, from before they are signed until Kalshi has said what became of them.

Every change is one line of the journal, and a restart reads the same lines again: ``+`` reserves for orders that go out
together, ``=`` says of orders how much of them was filled and how much can still fill, and ``snapshot`` stands for all
lines before it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hsm_keys.proxy.accounts import MINUTE_MS, CapAccount, CapDenial, Demand
from hsm_keys.proxy.amounts import worst_case
from hsm_keys.proxy.cap_clock import CapClock, ClockReading
from hsm_keys.proxy.duplicates import Duplicates
from hsm_keys.proxy.exposures import Exposure
from hsm_keys.proxy.journal import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hsm_keys.proxy.caps import Caps
    from hsm_keys.proxy.journal import Journal

__all__ = ["ALL", "Reservations", "ReservedOrder", "State"]

ALL: Final = ""
"""The account of all clients together."""

_COMPACT: Final = 4 << 20
"""Bytes of a journal that is made smaller. One that is no smaller then is let grow to twice its size."""

_ENDED_KEPT_MS: Final = 600_000
"""For how long the ids of orders that are over are kept: an order that has the name of one of them isn't that one."""

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class ReservedOrder:
    """An order, or an amendment of one, that holds something.

    Attributes:
        number: Its number in the journal.
        client: Whose it is.
        at_ms: When it was reserved for, by the caps' clock.
        asked: What it asks for.
        live: Hundredths of a contract that may still fill.
        filled: Hundredths of a contract that were filled.
        base: What was filled of the same order at Kalshi before it was amended.
        order_id: Its id at Kalshi; empty until Kalshi has said it.
        since_ms: What the wall clock said then, by which Kalshi's lists name it.
        is_under_way: Whether its request isn't answered yet.
        changed: The number of the last change; rises with each.
        over_ms: When its request was over, by the caps' clock; a restart ends all.
    """

    number: int
    client: str
    at_ms: int
    asked: Exposure
    live: int
    filled: int = 0
    base: int = 0
    order_id: str = ""
    since_ms: int = 0
    is_under_way: bool = False
    changed: int = 0
    over_ms: int = 0


class State(NamedTuple):
    """What is known of an order.

    Attributes:
        number: Its number.
        filled: Hundredths of a contract that were filled; what was filled once stays filled.
        live: Hundredths of a contract that may still fill; an order with none holds nothing more.
        order_id: Its id at Kalshi; empty if that isn't said.
        base: What was filled of the same order at Kalshi before it was amended.
    """

    number: int
    filled: int
    live: int
    order_id: str = ""
    base: int = 0


@dataclass(slots=True)
class Reservations:
    """All that is held of the caps.

    Args:
        journal: Where it is kept; None keeps it in memory, to try a policy.

    Attributes:
        orders: The orders that hold something and may still fill, by number.
        changes: How many changes there were.
        on_doubt: Called when it isn't known what became of an order.
        clock: Gives the time that counts for caps.

    Raises:
        JournalError: If the journal can't be read.
    """

    journal: Journal | None = None
    orders: dict[int, ReservedOrder] = field(default_factory=dict)
    changes: int = 0
    on_doubt: Callable[[], None] = lambda: None
    clock: CapClock = field(default_factory=CapClock)
    _by_id: dict[str, int] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=dict)
    _accounts: defaultdict[str, CapAccount] = field(default_factory=lambda: defaultdict(CapAccount))
    _duplicates: Duplicates = field(default_factory=Duplicates)
    _next: int = 1
    _compact_at: int = _COMPACT

    def __post_init__(self) -> None:
        if self.journal is None:
            return
        self._replay_all(self.journal.read())
        for order in self.orders.values():
            order.over_ms = self.clock.now_ms()
        self._compact()

    @classmethod
    def replayed(cls, lines: Iterable[list[Any]]) -> Reservations:
        """Return what lines of a journal say is held; it isn't kept anywhere.

        Raises:
            JournalError: If they can't be read.
        """
        reservations = cls()
        reservations._replay_all(lines)
        return reservations

    # What is asked.

    def by_order_id(self, order_id: str) -> ReservedOrder | None:
        """Return the order that has this id at Kalshi, if it is one of these."""
        number = self._by_id.get(order_id)
        return None if number is None else self.orders[number]

    def has_ended(self, order_id: str) -> bool:
        """Tell whether an order that has this id at Kalshi was over in the last ten minutes."""
        return order_id in self._ended

    def is_amended(self, order_id: str) -> bool:
        """Tell whether an amendment of the order isn't known to be over."""
        return any(order.asked.amends == order_id and not order.order_id for order in self.orders.values())

    def account(self, client: str) -> CapAccount:
        """Return what is taken by a client, or by ``ALL``."""
        return self._accounts[client]

    @property
    def clients(self) -> list[str]:
        """Whose orders there were."""
        return sorted(self._accounts.keys() - {ALL})

    def age_ms(self, order: ReservedOrder) -> int:
        """Return how long ago an order went out at the latest, whatever the wall clock was set to since.

        It is reserved for before it is signed, and a token may take its time.
        """
        return self.clock.now_ms() - max(order.at_ms, order.over_ms)

    def against(self, client: str, caps: Caps, together: Caps, demand: Demand) -> CapDenial | None:
        """Return the cap that is against orders which go out together; None if none is.

        Args:
            client: Whose they are.
            caps: The client's.
            together: Those of all clients.
            demand: What they ask for.
        """
        return (
            self._against_names(demand)
            or self._accounts[client].against(caps, "the client", demand, self.clock)
            or self._accounts[ALL].against(together, "all clients", demand, self.clock)
            or self._duplicates.against(client, caps.duplicate_ms, together.duplicate_ms, demand, self.clock)
        )

    def _against_names(self, demand: Demand) -> CapDenial | None:
        """Refuse a name that two orders would have: neither could be looked up by it."""
        names = [order.client_order_id for order in demand.orders if order.client_order_id and not order.amends]
        if not self._names.keys().isdisjoint(names):
            return CapDenial("client_order_id", "an order of that client_order_id may still fill: use a new one")
        if len(set(names)) < len(names):
            return CapDenial("client_order_id", "two orders of the batch have one client_order_id")
        return None

    # What changes.

    def reserve(self, client: str, demand: Demand, *, remember: bool = False) -> list[ReservedOrder]:
        """Hold what orders may cost, and write it down first; return them.

        Args:
            client: Whose they are.
            demand: What they ask for.
            remember: Whether to remember them, as they may not go out twice within some seconds.

        Raises:
            JournalError: If it can't be written; nothing is held then.
        """
        now_ms, wall_ms = self.clock.now_ms(), self.clock.wall_ms()
        self._write(["+", now_ms, client, self._next, remember, [list(order) for order in demand.orders], wall_ms])
        return self._reserve(client, demand, now_ms, wall_ms, remember=remember, is_under_way=True)

    def settle(self, states: Iterable[State]) -> None:
        """Note what is known of orders. What can't be written down is noted all the same: a restart looks it up."""
        now_ms = self.clock.now_ms()
        known = [state for state in states if state.number in self.orders]
        if not known:
            return
        try:
            self._write(["=", now_ms, known])
        except JournalError as error:
            _log.warning("%s", error)
        self._settle(known, now_ms)
        if self.journal is not None and self.journal.size > self._compact_at:
            self._compact()

    def end(self, orders: Iterable[ReservedOrder]) -> None:
        """Note that the requests of these orders are over: what isn't known of them has to be looked up."""
        doubtful, now_ms = False, self.clock.now_ms()
        for order in orders:
            order.is_under_way, order.over_ms = False, now_ms
            doubtful |= order.number in self.orders and not order.order_id
        if doubtful:
            self.on_doubt()

    # How it is kept.

    def _write(self, line: list[Any]) -> None:
        if self.journal is not None:
            self.journal.write(line)

    def _compact(self) -> None:
        if self.journal is None:
            return
        try:
            self.journal.replace(self._snapshot())
        except JournalError as error:
            _log.warning("the journal of the caps isn't made smaller: %s", error)
        self._compact_at = max(_COMPACT, 2 * self.journal.size)

    def _reserve(
        self,
        client: str,
        demand: Demand,
        now_ms: int,
        wall_ms: int,
        *,
        remember: bool,
        is_under_way: bool = False,
    ) -> list[ReservedOrder]:
        reserved = []
        accounts = self._accounts[client], self._accounts[ALL]
        for asked, cost in zip(demand.orders, demand.costs, strict=True):
            order = ReservedOrder(self._next, client, now_ms, asked, asked.size, 0, 0, "", wall_ms, is_under_way)
            self._next += 1
            self._hold(order, cost, () if asked.perps else accounts)
            reserved.append(order)
        if remember:
            self._duplicates.note(client, demand.keys, now_ms)
        return reserved

    def _hold(self, order: ReservedOrder, cost: int, accounts: Iterable[CapAccount]) -> None:
        """Count an order that is new here, and what it may still cost."""
        ticker, side, _, _, rests, name, amends, _, _, _ = order.asked
        ticker = ticker.upper()
        self.orders[order.number] = order
        if name and not amends:
            self._names[name] = order.number
        if order.order_id:
            self._by_id[order.order_id] = order.number
        for account in accounts:
            account.live += cost
            if rests:
                account.open += cost
            market = account.markets[ticker]
            if side == "bid":
                market.bids += order.live
            else:
                market.asks += order.live
        self._touch(order)

    def _accounts_of(self, order: ReservedOrder) -> tuple[CapAccount, ...]:
        """Return what an order counts in."""
        return () if order.asked.perps else (self._accounts[order.client], self._accounts[ALL])

    def _touch(self, order: ReservedOrder) -> None:
        self.changes += 1
        order.changed = self.changes

    def _settle(self, states: Iterable[State], now_ms: int) -> None:
        for number, filled, live, order_id, base in states:
            order = self.orders.get(number)
            if order is None:
                continue
            if not (filled or live or order.filled or order_id or order.order_id):
                self._duplicates.forget(order.client, order.asked.keys, order.at_ms)  # it never came to be
            self._move(order, max(filled, order.filled), live, now_ms)
            order.base = base
            if order_id and order.order_id != order_id:
                order.order_id = order_id
            if order.order_id and live:
                self._by_id[order.order_id] = number
            if not live:
                self._drop(order)
                if order.order_id:
                    self._keep_ended(order.order_id, now_ms)
            self._touch(order)

    def _move(self, order: ReservedOrder, filled: int, live: int, now_ms: int) -> None:
        """Have another part of an order filled, and another part of it live."""
        asked = order.asked
        spent = worst_case(filled, asked.cost) - worst_case(order.filled, asked.cost)
        before, after = _cost_of(order.filled, order.live, asked), _cost_of(filled, live, asked)
        ticker = asked.market.upper()
        for account in self._accounts_of(order):
            account.live += after - before
            if asked.rests:
                account.open += after - before
            if spent:
                account.day.add(spent, now_ms)
            market = account.markets[ticker]
            if asked.side == "bid":
                market.bids += live - order.live
                market.net += filled - order.filled
            else:
                market.asks += live - order.live
                sold = filled - order.filled
                # What only reduces closes what is counted here, or else what was held before, which isn't.
                market.net -= sold if asked.cost else min(sold, max(0, market.net))
            if not (market.net or market.bids or market.asks):
                del account.markets[ticker]
        order.filled, order.live = filled, live

    def _drop(self, order: ReservedOrder) -> None:
        """Hold nothing more for an order that can't fill any more."""
        del self.orders[order.number]
        if self._by_id.get(order.order_id) == order.number:
            del self._by_id[order.order_id]
        if self._names.get(order.asked.client_order_id) == order.number:
            del self._names[order.asked.client_order_id]

    def _keep_ended(self, order_id: str, now_ms: int) -> None:
        self._ended.pop(order_id, None)
        self._ended[order_id] = now_ms
        while now_ms - next(iter(self._ended.values())) > _ENDED_KEPT_MS:
            del self._ended[next(iter(self._ended))]

    def _replay_all(self, lines: Iterable[list[Any]]) -> None:
        """Have what lines of a journal say is held, and go on at its time."""
        last, last_ms = ClockReading(0, 0, 0, ""), 0
        try:
            for line in lines:
                last, last_ms = self._replay(line, last), max(last_ms, line[1])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise JournalError("the journal of the caps isn't one that this program wrote") from error
        if last_ms:
            self.clock.go_on_from(last, last_ms)

    def _replay(self, line: list[Any], before: ClockReading) -> ClockReading:
        """Do what a line says; return what the clocks said then, or before where it says nothing of them."""
        match line:
            case ["+", now_ms, client, _, remember, orders, wall_ms]:
                demand = Demand([Exposure(*asked) for asked in orders])
                self._reserve(client, demand, now_ms, wall_ms, remember=remember)
                return before.later(now_ms, wall_ms)
            case ["=", now_ms, states]:
                self._settle([State(*state) for state in states], now_ms)
                return before
            case ["snapshot", now_ms, clocks, following, *parts]:
                self._next = following
                self._restore(now_ms, *parts)
                return ClockReading(now_ms, *clocks)
        raise ValueError("there is no such line")

    def _snapshot(self) -> list[Any]:
        clients = [(name, account) for name, account in self._accounts.items() if name != ALL]
        now_ms, *clocks = self.clock.reading()
        for account in self._accounts.values():
            account.day.forget(now_ms)
        return [
            "snapshot",
            now_ms,
            clocks,
            self._next,
            [astuple(order)[:9] for order in self.orders.values()],
            [[name, minute, spent] for name, account in clients for minute, spent in account.day.minutes],
            [
                [name, ticker, market.net]
                for name, account in self._accounts.items()
                for ticker, market in account.markets.items()
                if market.net
            ],
            list(self._duplicates.items()),
        ]

    def _restore(self, now_ms: int, orders: Any, days: Any, nets: Any, recent: Any) -> None:
        for number, client, at_ms, asked, *rest in orders:
            order = ReservedOrder(number, client, at_ms, Exposure(*asked), *rest)
            self._hold(order, _cost_of(order.filled, order.live, order.asked), self._accounts_of(order))
        for name, minute, spent in days:
            self._accounts[name].day.add(spent, minute * MINUTE_MS)
        for minute, spent in sorted((minute, spent) for _, minute, spent in days):
            self._accounts[ALL].day.add(spent, minute * MINUTE_MS)
        for name, ticker, net in nets:
            self._accounts[name].markets[ticker].net += net
        for name, key, at_ms in sorted(recent, key=lambda entry: entry[2]):
            self._duplicates.note(name, [key if isinstance(key, str) else tuple(key)], at_ms)
        for account in self._accounts.values():
            account.day.forget(now_ms)


def _cost_of(filled: int, live: int, asked: Exposure) -> int:
    """Return what an order may still cost when so much of it was filled, and so much may be."""
    return worst_case(filled + live, asked.cost) - worst_case(filled, asked.cost)
