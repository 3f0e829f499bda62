"""Where two policies differ: a request that one allows and the other denies."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations, islice, pairwise, product
from math import isfinite
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from hsm_keys.kalshi.operations import find_operation
from hsm_keys.proxy.amounts import DOLLAR
from hsm_keys.proxy.caps import LONGEST_DUPLICATE_S
from hsm_keys.proxy.edges import bodies, moments, money_of, order_body, routes, tickers
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy import Policy
from hsm_keys.proxy.whatif import SupposedRequest, verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from hsm_keys.proxy.caps import Caps
    from hsm_keys.proxy.judge import Verdict
    from hsm_keys.proxy.policy import ClientPolicy

    _Step = tuple[str, str, bytes | None, datetime]
    """A method, a path, a body, and the time."""

__all__ = ["Comparison", "Difference", "compare"]

_READ: Final = "/trade-api/v2/exchange/status"
_ORDERS: Final = "/trade-api/v2/portfolio/events/orders"
_MOST_AFTER_EACH_OTHER: Final = 20_000
_MOST_OF_FILLING: Final = 2000
_MOST_CALLERS: Final = 8
_LARGEST: Final = 10**10
"""Hundredths of a contract that an order can be for."""

_AFTER_ALL: Final = timedelta(seconds=LONGEST_DUPLICATE_S + 1)
"""After so long no limit of a minute holds an order back, and none because another was like it."""


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who asks.

    Attributes:
        says: The client's name, or a user of the Unix socket.
        clients: Whom that is in the old and in the new policy.
    """

    says: str
    clients: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """A request of which the two say different things.

    Attributes:
        asked: Who asks for what; the client is a name, or a user of the Unix socket.
        at: When.
        before: How many such ones were asked before it, of which both said the same.
        others: Who had asked for as much as they might before that.
        old: What the old policy says.
        new: What the new one says.
    """

    asked: SupposedRequest
    at: datetime
    before: int
    others: tuple[str, ...]
    old: Verdict
    new: Verdict


@dataclass(slots=True)
class Comparison:
    """What was found.

    Attributes:
        tried: How many requests were tried.
        differences: One that only the old policy allows, and one that only the new one does, as far as there are such.
    """

    tried: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing more to look for."""
        return len({difference.new.allowed for difference in self.differences}) == 2  # noqa: PLR2004 - both ways

    def add(self, difference: Difference) -> None:
        """Keep the first one of each way."""
        if all(known.new.allowed != difference.new.allowed for known in self.differences):
            self.differences.append(difference)


def compare(old: Policy, new: Policy) -> Comparison:
    """Look for requests of which two policies say different things.

    Over every caller that one of them names and a stranger, every operation and rule, the edges of hours, of limits of
    orders and of caps, and requests after each other until a rate, a sum or a time is reached; of several callers, too,
    where what they share differs.

    Args:
        old: One policy.
        new: The other.
    """
    comparison = Comparison()
    where, when = routes((old, new)), moments((old, new))
    seen: set[tuple[int, int]] = set()
    callers = _callers(old, new)
    for caller in callers:
        asked_by = [policy.client(name) for policy, name in zip((old, new), caller.clients, strict=True)]
        if (pair := (id(asked_by[0]), id(asked_by[1]))) in seen:
            continue
        seen.add(pair)
        _compare_for(
            _Pair(comparison, old, new, caller), [rules for rules in asked_by if rules is not None], where, when
        )
        if comparison.is_complete:
            return comparison
    known = [caller for caller in callers if all(map(Policy.client, (old, new), caller.clients))]
    for group in _groups(known, shares=old.together != new.together):
        _compare_together(_Turns(comparison, old, new, group), when)
    return comparison


def _groups(callers: Sequence[_Caller], *, shares: bool) -> Iterator[Sequence[_Caller]]:
    """Yield callers who share by one policy what they don't by the other: eight of all, and couples that are joined."""
    if shares and callers:
        yield callers[:_MOST_CALLERS]
    yield from islice(filter(_is_joined_otherwise, combinations(callers, 2)), _MOST_CALLERS)


def _is_joined_otherwise(couple: Sequence[_Caller]) -> bool:
    """Tell whether two of them are one client by one of the policies alone, and share its limits there."""
    return len({len({caller.clients[policy] for caller in couple}) for policy in (0, 1)}) > 1


def _compare_together(turns: _Turns, when: Sequence[datetime]) -> None:
    """Have one caller after the other ask for as much as it may, of what they share by one of the policies alone."""
    at = _of_each_kind(turns.rules, when)[0]
    for seconds in sorted({edge for one in turns.rules for edge in _edges_of_duplicates(one)}):
        for couple in pairwise(turns.callers if turns.differ_in(attrgetter("duplicate_ms")) else ()):
            steps = _twice(_ticker_of_both(turns.rules), at, timedelta(seconds=seconds))
            for (pair, _), step in zip(turns.of(couple), steps, strict=False):
                pair.follow([step])
    if turns.join_otherwise:
        _compare_rates_together(turns, at)
    days, resting, markets = (turns.differ_in(attrgetter(cap)) for cap in ("day", "open", "market"))
    for rests, spreads, moves in product((True, False), repeat=3):
        if days or (resting and rests) or (markets and not moves):
            _fill_together(turns, at, rests=rests, spreads=spreads, moves=moves)


def _compare_rates_together(turns: _Turns, at: datetime) -> None:
    for method, path in (("GET", _READ), ("DELETE", f"{_ORDERS}/x")):
        for pair, rules in turns.of():
            if any(one.tokens_per_second(method) for one in rules):
                pair.follow(_ever_later(method, path, at, 0))
    for number, (pair, rules) in enumerate(turns.of()):
        if any(one.orders_per_minute for one in rules):
            first = number * _MOST_AFTER_EACH_OTHER
            pair.follow(_small_orders(rules, _ticker_of_both(rules), at, first=first))


def _fill_together(turns: _Turns, at: datetime, *, rests: bool, spreads: bool, moves: bool) -> None:
    number = 0
    for pair, rules in turns.of():
        ticker = _ticker_of_both(rules)
        filling = _Filling(rules, ticker, rests=rests, spreads=spreads, moves=moves, number=number)
        at = pair.fill(filling, at)
        number = filling.number


def _compare_for(
    pair: _Pair, rules: Sequence[ClientPolicy], where: Sequence[tuple[str, str]], when: Sequence[datetime]
) -> None:
    times = _of_each_kind(rules, when)
    for at, (method, path) in product(times, where):
        pair.try_alone(method, path, None, at)
    if len(rules) < 2 or _are_alike(*rules):  # noqa: PLR2004 - both know the caller
        return
    for method, path in where:
        for body in bodies(find_operation(method, path).name, rules):
            pair.try_alone(method, path, body, times[0])
    _compare_rates(pair, rules, times[0])
    _compare_caps(pair, rules, times[0])


def _compare_rates(pair: _Pair, rules: Sequence[ClientPolicy], at: datetime) -> None:
    """Ask until the limits of a second and of a minute are reached, where they differ."""
    old, new = rules
    for method, path in (("GET", _READ), ("DELETE", f"{_ORDERS}/x")):
        if old.tokens_per_second(method) != new.tokens_per_second(method):
            rates = [rate for one in rules if (rate := one.tokens_per_second(method)) and isfinite(rate)]
            pair.follow(_ever_later(method, path, at, 0.5 / max(rates, default=1000.0)), goes_on=True)
    if old.orders_per_minute != new.orders_per_minute:
        pair.follow(_small_orders(rules, _ticker_of_both(rules), at))


def _compare_caps(pair: _Pair, rules: Sequence[ClientPolicy], at: datetime) -> None:
    """Order until caps are reached, where they differ."""
    ticker = _ticker_of_both(rules)
    for seconds in sorted({edge for one in rules for edge in _edges_of_duplicates(one)}):
        pair.follow(_twice(ticker, at, timedelta(seconds=seconds)))
    days, resting, markets = (_differ(rules, attrgetter(cap)) for cap in ("day", "open", "market"))
    for rests, spreads, moves in product((True, False), repeat=3):
        if days or (resting and rests) or (markets and not moves):  # other orders reach none of the sums that differ
            pair.fill(_Filling(rules, ticker, rests=rests, spreads=spreads, moves=moves), at)


def _differ(rules: Sequence[ClientPolicy], cap_of: Callable[[Caps], int | None]) -> bool:
    """Tell whether a cap differs, for the client or for all together."""
    old, new = ([cap_of(one.caps), cap_of(one.together)] for one in rules)
    return old != new


class _Pair:
    """Two policies, and one caller of both.

    Args:
        found: What was found so far.
        old: One policy.
        new: The other.
        caller: Who asks.
        judges: What others have asked before; each request or row of them comes after no other if there is none.
        others: Who these are.
    """

    def __init__(
        self,
        found: Comparison,
        old: Policy,
        new: Policy,
        caller: _Caller,
        *,
        judges: tuple[Judge, Judge] | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        self._found = found
        self._policies = old, new
        self._caller = caller
        self._asked_before = judges
        self._others = others

    def try_alone(self, method: str, path: str, body: bytes | None, at: datetime) -> None:
        """Judge a request that comes after no other."""
        self._try(self._judges(), method, path, body, at=at)

    def follow(self, script: Iterable[_Step], *, goes_on: bool = False) -> None:
        """Judge requests that come after each other, until the two differ, or both deny one and it doesn't go on."""
        judges = self._judges()
        for before, (method, path, body, at) in enumerate(script):
            allowed = self._try(judges, method, path, body, at=at, before=before)
            if allowed[0] != allowed[1] or not (allowed[0] or goes_on):
                return

    def fill(self, filling: _Filling, at: datetime) -> datetime:
        """Fill sums with orders, and with ever smaller ones, until one policy alone allows the next, or none does.

        Returns:
            The time by then.
        """
        judges = self._judges()
        for _ in range(_MOST_OF_FILLING):
            allowed = self._try(judges, "POST", _ORDERS, filling.body(), at=at, before=filling.number)
            if allowed[0] != allowed[1]:
                break
            if allowed[0]:
                at += filling.went()
            elif not filling.shrink():
                break
        return at

    def _judges(self) -> tuple[Judge, Judge]:
        return self._asked_before or (Judge(self._policies[0]), Judge(self._policies[1]))

    def _try(
        self, judges: tuple[Judge, Judge], method: str, path: str, body: bytes | None, *, at: datetime, before: int = 0
    ) -> tuple[bool, bool]:
        """Judge by both, and return whether each allows it."""
        self._found.tried += 1
        old, new = (
            verdict_of(judge, SupposedRequest(client, method, path, body), at=at)
            for judge, client in zip(judges, self._caller.clients, strict=True)
        )
        if old.allowed != new.allowed:
            request = SupposedRequest(self._caller.says, method, path, body)
            self._found.add(Difference(request, at, before, self._others, old, new))
        return old.allowed, new.allowed


class _Turns:
    """Callers that both policies know, and that ask one after the other.

    Args:
        found: What was found so far.
        old: One policy.
        new: The other.
        callers: The callers.

    Attributes:
        rules: Theirs, by both policies.
        join_otherwise: Whether they are fewer clients by one of the policies.
    """

    def __init__(self, found: Comparison, old: Policy, new: Policy, callers: Sequence[_Caller]) -> None:
        self._found = found
        self._policies = old, new
        self.callers = callers
        self.rules = [one for caller in callers for one in self._rules_of(caller)]
        self.join_otherwise = _is_joined_otherwise(callers)

    def _rules_of(self, caller: _Caller) -> list[ClientPolicy]:
        by_each = zip(self._policies, caller.clients, strict=True)
        return [rules for policy, name in by_each if (rules := policy.client(name)) is not None]

    def differ_in(self, cap_of: Callable[[Caps], int | None]) -> bool:
        """Tell whether what they share of a cap differs: that of all, or that of a client which two of them are."""
        old, new = (cap_of(policy.together.caps) for policy in self._policies)
        return old != new or (self.join_otherwise and any(cap_of(one.caps) for one in self.rules))

    def of(self, callers: Sequence[_Caller] | None = None) -> Iterator[tuple[_Pair, list[ClientPolicy]]]:
        """Yield each caller with its rules, to ask after those before it."""
        judges = Judge(self._policies[0]), Judge(self._policies[1])
        others: tuple[str, ...] = ()
        for caller in self.callers if callers is None else callers:
            yield _Pair(self._found, *self._policies, caller, judges=judges, others=others), self._rules_of(caller)
            others = (*others, caller.says)


class _Filling:
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


def _callers(old: Policy, new: Policy) -> list[_Caller]:
    names = [*dict.fromkeys((*old.clients, *new.clients))]
    stranger = next(name for number in range(len(names) + 1) if (name := f"somebody-{number}") not in names)
    uids = sorted({uid for policy in (old, new) for client in policy.clients.values() for uid in client.uids})
    callers = [_Caller(name, (name, name)) for name in (*names, stranger)]
    return callers + [_Caller(f"uid {uid}", (old.client_of_uid(uid), new.client_of_uid(uid))) for uid in uids]


def _are_alike(old: ClientPolicy, new: ClientPolicy) -> bool:
    return old.model_dump(exclude={"uids"}) == new.model_dump(exclude={"uids"}) and old.together == new.together


def _of_each_kind(rules: Sequence[ClientPolicy], when: Sequence[datetime]) -> list[datetime]:
    """Return a time for each way in which hours hold; where they hold for both comes first, if they ever do."""
    kinds: dict[tuple[bool, ...], datetime] = {}
    for at in when:
        kind = tuple(one.hours is None or any(window.holds(at) for window in one.hours) for one in rules)
        kinds.setdefault(kind, at)
    return [kinds[kind] for kind in sorted(kinds, reverse=True)]


def _ticker_of_both(rules: Sequence[ClientPolicy]) -> str:
    known = tickers(rules)
    return next((one for one in known if all(rule.order_limits.takes_market(one) for rule in rules)), known[0])


def _small_orders(rules: Sequence[ClientPolicy], ticker: str, at: datetime, *, first: int = 0) -> Iterator[_Step]:
    """Yield orders that cost next to nothing, of which no two are alike, nor like those before the first one."""
    most = min([100, *(one.max_count for one in rules if one.max_count)])
    for number in range(first, first + _MOST_AFTER_EACH_OTHER):
        price, count = divmod(number, most)
        order = order_body(ticker, count + 1, min(price + 1, DOLLAR - 1), rests=False, client_order_id=f"n{number}")
        yield "POST", _ORDERS, json.dumps(order).encode(), at


def _ever_later(method: str, path: str, at: datetime, seconds: float) -> Iterator[_Step]:
    """Yield the same request so many seconds after the one before: more than a rate allows."""
    for number in range(_MOST_AFTER_EACH_OTHER):
        yield method, path, None, at + timedelta(seconds=seconds * number)


def _edges_of_duplicates(rules: ClientPolicy) -> list[float]:
    held = [caps.duplicate_ms / 1000 for caps in (rules.caps, rules.together) if caps.duplicate_ms]
    return [edge for seconds in held for edge in (seconds - 0.001, seconds)]


def _twice(ticker: str, at: datetime, later: timedelta) -> Iterator[_Step]:
    """Yield the same order twice."""
    for number, moment in enumerate((at, at + later)):
        order = order_body(ticker, 1, 1, rests=False, client_order_id=f"n{number}")
        yield "POST", _ORDERS, json.dumps(order).encode(), moment
