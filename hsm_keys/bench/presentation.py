"""Prints measurements: a table, a histogram for the terminal, and what they mean for orders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.signing.presign import presign_cost
from hsm_keys.tables import aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.bench.measure import Result

__all__ = [
    "COLUMNS",
    "as_object",
    "cells",
    "compared",
    "cost",
    "histogram",
    "microseconds",
    "orders",
    "ratios",
    "table",
]

ORDERS_A_SECOND: Final = {
    "Basic": 10,
    "Advanced": 30,
    "Expert": 60,
    "Premier": 100,
    "Paragon": 200,
    "Prime": 400,
    "Prestige": 800,
}
"""Kalshi's write budgets, 10 tokens an order, as published in the summer of 2026."""

_BUCKETS: Final = 24
_BAR: Final = 50
_WHOLE_US: Final = 100
COLUMNS: Final = ("what", "threads", "a second", "p50 us", "p95 us", "p99 us", "max us")


def cells(result: Result) -> list[str]:
    """Return a row of the table."""
    times = [*(result.percentile(percent) for percent in (50, 95, 99)), result.latencies_us[-1]]
    return [result.what, str(result.threads), f"{result.rate:,.0f}", *map(microseconds, times)]


def microseconds(latency: float) -> str:
    """Return a time as it is shown: in whole microseconds, but for short ones."""
    return f"{latency:,.0f}" if latency >= _WHOLE_US else f"{latency:,.1f}"


def table(results: Sequence[Result]) -> list[str]:
    """Return the lines of a table."""
    return aligned([COLUMNS, *map(cells, results)], numbers=True)


def _counts(result: Result) -> list[tuple[float, float, int]]:
    """Return buckets of equal width on a logarithmic scale: from, to (microseconds), how many."""
    low, high = math.log(result.latencies_us[0]), math.log(result.latencies_us[-1])
    step = max((high - low) / _BUCKETS, 1e-9)
    counts = [0] * _BUCKETS
    for latency in result.latencies_us:
        counts[min(_BUCKETS - 1, int((math.log(latency) - low) / step))] += 1
    return [(math.exp(low + step * i), math.exp(low + step * (i + 1)), count) for i, count in enumerate(counts)]


def histogram(result: Result) -> list[str]:
    """Return the lines of a histogram of the times, on a logarithmic scale."""
    buckets = _counts(result)
    most = max(count for _, _, count in buckets)
    return [
        f"{microseconds(begin):>10} us  {'#' * math.ceil(count / most * _BAR) if count else '':<{_BAR}}  {count:,}"
        for begin, _, count in buckets
    ]


def _tier(result: Result) -> str | None:
    enough = [tier for tier, rate in ORDERS_A_SECOND.items() if rate <= result.rate]
    return enough[-1] if enough else None


def _best(results: Sequence[Result]) -> Result:
    return max((result for result in results if result.what == "store"), key=lambda result: result.rate)


def orders(results: Sequence[Result]) -> str:
    """Say for which of Kalshi's tiers as many signatures as the store makes a second are enough."""
    result = _best(results)
    tier = _tier(result)
    if tier is None:
        return f"{result.rate:,.0f} signatures a second are fewer orders than Kalshi's lowest tier allows (10 a second)"
    return (
        f"{result.rate:,.0f} signatures a second, one an order: enough for all that the tier {tier} may write "
        f"({ORDERS_A_SECOND[tier]} orders a second)"
    )


def cost(*, billed: bool) -> str:
    """Say what signing ahead for one route costs while nothing is taken, set as it is by default.

    Args:
        billed: Whether the store bills each signature.
    """
    an_hour = presign_cost(routes=1).signatures_per_hour
    price = f": {an_hour / 10_000:.2f} times what KMS bills for 10,000" if billed else ""
    return f"signing ahead for one route, set as by default, makes {an_hour:,.0f} signatures an hour when idle{price}"


def ratios(results: Sequence[Result]) -> dict[str, float]:
    """Return what the results are to each other, in one run: of times the p50, of two threads the rate.

    Returns:
        Those of ``headers_to_c_sign``, ``store_to_in_memory``, ``two_threads_to_one``, ``headers_to_ahead`` and
        ``in_memory_to_ahead`` that were measured.
    """
    by_use = {(result.what, result.threads): result for result in results}

    def p50(one: str, other: str) -> float | None:
        pair = by_use.get((one, 1)), by_use.get((other, 1))
        return pair[0].percentile(50) / pair[1].percentile(50) if pair[0] and pair[1] else None

    alone, together = by_use.get(("store", 1)), by_use.get(("store", 2))
    quotients = {
        "headers_to_c_sign": p50("headers", "C_Sign"),
        "store_to_in_memory": p50("store", "in memory"),
        "two_threads_to_one": together.rate / alone.rate if alone and together else None,
        "headers_to_ahead": p50("headers", "ahead"),
        "in_memory_to_ahead": p50("in memory", "ahead"),
    }
    return {name: round(ratio, 3) for name, ratio in quotients.items() if ratio is not None}


_SAID: Final = {
    "headers_to_c_sign": "signer.headers() takes {:.2f} times the module's own C_Sign, at p50",
    "store_to_in_memory": "the store takes {:.2f} times a key in memory, at p50",
    "two_threads_to_one": "two threads sign {:.2f} times as much as one",
    "headers_to_ahead": "headers that were signed ahead come {:,.0f} times faster than those signed at once, at p50",
    "in_memory_to_ahead": "and {:,.0f} times faster than a signature with a key in memory",
}


def compared(results: Sequence[Result]) -> list[str]:
    """Return the ratios in words."""
    return [_SAID[name].format(ratio) for name, ratio in ratios(results).items()]


def as_object(store: str, key_type: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return what goes into JSON output."""
    ahead = any(result.what == "ahead" for result in results)
    idle = {"ahead_signatures_per_hour": presign_cost(routes=1).signatures_per_hour} if ahead else {}
    return {
        "store": store,
        "key_type": key_type,
        "results": [result.as_dict() for result in results],
        "ratios": ratios(results),
        "enough_for_tier": _tier(_best(results)),
        "orders_a_second_by_tier": ORDERS_A_SECOND,
        **idle,
    }
