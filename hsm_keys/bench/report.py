"""Telling what was measured: a table, a histogram for the terminal, what it means for orders, a page with a plot."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.bench.measure import Result

__all__ = ["as_object", "histogram", "orders", "page", "table"]

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
_COLUMNS: Final = ("what", "threads", "a second", "p50 us", "p95 us", "p99 us", "max us")


def _cells(result: Result) -> list[str]:
    times = [*(result.percentile(percent) for percent in (50, 95, 99)), result.latencies_us[-1]]
    return [result.what, str(result.threads), f"{result.rate:,.0f}", *map(_microseconds, times)]


def _microseconds(taken: float) -> str:
    return f"{taken:,.0f}" if taken >= _WHOLE_US else f"{taken:,.1f}"


def table(results: Sequence[Result]) -> list[str]:
    """Return the lines of a table."""
    rows = [list(_COLUMNS), *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return [_aligned(row, widths) for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *rest])


def _counts(result: Result) -> list[tuple[float, float, int]]:
    """Return buckets of equal width on a logarithmic scale: from, to (microseconds), how many."""
    low, high = math.log(result.latencies_us[0]), math.log(result.latencies_us[-1])
    step = max((high - low) / _BUCKETS, 1e-9)
    counts = [0] * _BUCKETS
    for taken in result.latencies_us:
        counts[min(_BUCKETS - 1, int((math.log(taken) - low) / step))] += 1
    return [(math.exp(low + step * i), math.exp(low + step * (i + 1)), count) for i, count in enumerate(counts)]


def histogram(result: Result) -> list[str]:
    """Return the lines of a histogram of the times, on a logarithmic scale."""
    buckets = _counts(result)
    most = max(count for _, _, count in buckets)
    return [
        f"{begin:>10,.0f} us  {'#' * math.ceil(count / most * _BAR) if count else '':<{_BAR}}  {count:,}"
        for begin, _, count in buckets
    ]


def orders(result: Result) -> str:
    """Say for which of Kalshi's tiers so many signatures a second are enough."""
    enough = [tier for tier, rate in ORDERS_A_SECOND.items() if rate <= result.rate]
    if not enough:
        return f"{result.rate:,.0f} signatures a second are fewer orders than Kalshi's lowest tier allows (10 a second)"
    best = enough[-1]
    return (
        f"{result.rate:,.0f} signatures a second, one an order: enough for all that the tier {best} may write "
        f"({ORDERS_A_SECOND[best]} orders a second)"
    )


def page(title: str, results: Sequence[Result], words: Sequence[str]) -> str:
    """Return a page with the table and a plot for each result; it needs nothing from elsewhere."""
    head, *rows = [list(_COLUMNS), *(_cells(result) for result in results)]
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    plots = "".join(_plot(result) for result in results)
    said = "".join(f"<p>{html.escape(line)}</p>" for line in words)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>'
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        ":root{color-scheme:light dark}"
        "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #8886}"
        "td:first-child,th:first-child{text-align:left}rect{fill:#3a7bd5}text{fill:currentColor;font-size:11px}"
        f"</style><h1>{html.escape(title)}</h1>{said}<table><tr>{cells}</tr>{body}</table>{plots}</html>\n"
    )


def _plot(result: Result) -> str:
    buckets = _counts(result)
    most = max(count for _, _, count in buckets)
    bars = "".join(
        f'<rect x="{30 * i + 1}" y="{150 - 140 * count / most:.1f}" width="28" height="{140 * count / most:.1f}">'
        f"<title>{begin:,.0f} to {end:,.0f} us: {count:,}</title></rect>"
        for i, (begin, end, count) in enumerate(buckets)
    )
    ticks = "".join(
        f'<text x="{30 * i + 2}" y="165">{begin:,.0f}</text>' for i, (begin, _, _) in enumerate(buckets) if i % 3 == 0
    )
    name = html.escape(f"{result.what}, {result.threads} thread{'' if result.threads == 1 else 's'}")
    width = 30 * _BUCKETS
    return f'<h2>{name}</h2><svg viewBox="0 0 {width} 170" role="img" aria-label="{name}">{bars}{ticks}</svg>'


def as_object(store: str, key_type: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return what goes into JSON output."""
    return {
        "store": store,
        "key_type": key_type,
        "results": [result.as_dict() for result in results],
        "orders_a_second_by_tier": ORDERS_A_SECOND,
    }
