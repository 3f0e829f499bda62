"""Where two policies differ: a request that one allows and the other denies."""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations, islice, pairwise, product
from math import isfinite
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from hsm_keys.kalshi.operations import find_operation
from hsm_keys.proxy.edges import bodies, moments, routes
from hsm_keys.proxy.policy import Policy
from hsm_keys.proxy.policy_pairs import Caller, Comparison, Pair, Turns, is_joined_otherwise
from hsm_keys.proxy.policy_steps import (
    MOST_AFTER_EACH_OTHER,
    ORDERS,
    READ,
    Filling,
    edges_of_duplicates,
    ever_later,
    order_twice,
    small_orders,
    ticker_of_both,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from hsm_keys.proxy.caps import Caps
    from hsm_keys.proxy.policy import ClientPolicy

__all__ = ["compare"]

_MOST_CALLERS: Final = 8


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
            Pair(comparison, old, new, caller), [rules for rules in asked_by if rules is not None], where, when
        )
        if comparison.is_complete:
            return comparison
    known = [caller for caller in callers if all(map(Policy.client, (old, new), caller.clients))]
    for group in _groups(known, shares=old.together != new.together):
        _compare_together(Turns(comparison, old, new, group), when)
    return comparison


def _groups(callers: Sequence[Caller], *, shares: bool) -> Iterator[Sequence[Caller]]:
    """Yield callers who share by one policy what they don't by the other: eight of all, and couples that are joined."""
    if shares and callers:
        yield callers[:_MOST_CALLERS]
    yield from islice(filter(is_joined_otherwise, combinations(callers, 2)), _MOST_CALLERS)


def _compare_together(turns: Turns, when: Sequence[datetime]) -> None:
    """Have one caller after the other ask for as much as it may, of what they share by one of the policies alone."""
    at = _of_each_kind(turns.rules, when)[0]
    for seconds in sorted({edge for one in turns.rules for edge in edges_of_duplicates(one)}):
        for couple in pairwise(turns.callers if turns.differ_in(attrgetter("duplicate_ms")) else ()):
            steps = order_twice(ticker_of_both(turns.rules), at, timedelta(seconds=seconds))
            for (pair, _), step in zip(turns.of(couple), steps, strict=False):
                pair.follow([step])
    if turns.join_otherwise:
        _compare_rates_together(turns, at)
    days, resting, markets = (turns.differ_in(attrgetter(cap)) for cap in ("day", "open", "market"))
    for rests, spreads, moves in product((True, False), repeat=3):
        if days or (resting and rests) or (markets and not moves):
            _fill_together(turns, at, rests=rests, spreads=spreads, moves=moves)


def _compare_rates_together(turns: Turns, at: datetime) -> None:
    for method, path in (("GET", READ), ("DELETE", f"{ORDERS}/x")):
        for pair, rules in turns.of():
            if any(one.tokens_per_second(method) for one in rules):
                pair.follow(ever_later(method, path, at, 0))
    for number, (pair, rules) in enumerate(turns.of()):
        if any(one.orders_per_minute for one in rules):
            first = number * MOST_AFTER_EACH_OTHER
            pair.follow(small_orders(rules, ticker_of_both(rules), at, first=first))


def _fill_together(turns: Turns, at: datetime, *, rests: bool, spreads: bool, moves: bool) -> None:
    number = 0
    for pair, rules in turns.of():
        ticker = ticker_of_both(rules)
        filling = Filling(rules, ticker, rests=rests, spreads=spreads, moves=moves, number=number)
        at = pair.fill(filling, at)
        number = filling.number


def _compare_for(
    pair: Pair, rules: Sequence[ClientPolicy], where: Sequence[tuple[str, str]], when: Sequence[datetime]
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


def _compare_rates(pair: Pair, rules: Sequence[ClientPolicy], at: datetime) -> None:
    """Ask until the limits of a second and of a minute are reached, where they differ."""
    old, new = rules
    for method, path in (("GET", READ), ("DELETE", f"{ORDERS}/x")):
        if old.tokens_per_second(method) != new.tokens_per_second(method):
            rates = [rate for one in rules if (rate := one.tokens_per_second(method)) and isfinite(rate)]
            pair.follow(ever_later(method, path, at, 0.5 / max(rates, default=1000.0)), goes_on=True)
    if old.orders_per_minute != new.orders_per_minute:
        pair.follow(small_orders(rules, ticker_of_both(rules), at))


def _compare_caps(pair: Pair, rules: Sequence[ClientPolicy], at: datetime) -> None:
    """Order until caps are reached, where they differ."""
    ticker = ticker_of_both(rules)
    for seconds in sorted({edge for one in rules for edge in edges_of_duplicates(one)}):
        pair.follow(order_twice(ticker, at, timedelta(seconds=seconds)))
    days, resting, markets = (_differ(rules, attrgetter(cap)) for cap in ("day", "open", "market"))
    for rests, spreads, moves in product((True, False), repeat=3):
        # Other orders don't count for any of the differing sums.
        if days or (resting and rests) or (markets and not moves):
            pair.fill(Filling(rules, ticker, rests=rests, spreads=spreads, moves=moves), at)


def _differ(rules: Sequence[ClientPolicy], cap_of: Callable[[Caps], int | None]) -> bool:
    """Tell whether a cap differs, for the client or for all together."""
    old, new = ([cap_of(one.caps), cap_of(one.together)] for one in rules)
    return old != new


def _callers(old: Policy, new: Policy) -> list[Caller]:
    names = [*dict.fromkeys((*old.clients, *new.clients))]
    stranger = next(name for number in range(len(names) + 1) if (name := f"somebody-{number}") not in names)
    uids = sorted({uid for policy in (old, new) for client in policy.clients.values() for uid in client.uids})
    callers = [Caller(name, (name, name)) for name in (*names, stranger)]
    return callers + [Caller(f"uid {uid}", (old.client_of_uid(uid), new.client_of_uid(uid))) for uid in uids]


def _are_alike(old: ClientPolicy, new: ClientPolicy) -> bool:
    return old.model_dump(exclude={"uids"}) == new.model_dump(exclude={"uids"}) and old.together == new.together


def _of_each_kind(rules: Sequence[ClientPolicy], when: Sequence[datetime]) -> list[datetime]:
    """Return a time for each way in which hours hold; where they hold for both comes first, if they ever do."""
    kinds: dict[tuple[bool, ...], datetime] = {}
    for at in when:
        kind = tuple(one.hours is None or any(window.holds(at) for window in one.hours) for one in rules)
        kinds.setdefault(kind, at)
    return [kinds[kind] for kind in sorted(kinds, reverse=True)]
