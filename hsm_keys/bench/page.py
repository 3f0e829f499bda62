"""The measurements as one HTML page for a browser, a phone or a printer; it loads nothing from anywhere."""

from __future__ import annotations

import html
import math
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from hsm_keys.bench.presentation import COLUMNS, cells, microseconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hsm_keys.bench.measure import Result

__all__ = ["page"]

_BUCKETS: Final = 48
_WIDTH: Final = 720
_HEIGHT: Final = 170
_PERCENTILES: Final = (50, 95, 99)
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    ":root{color-scheme:light dark}.when{opacity:.75}.wide{overflow-x:auto}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #8886}"
    "td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}rect{fill:#3a7bd5}"
    "line{stroke:currentColor;stroke-dasharray:3 3}.axis{stroke-dasharray:none;opacity:.5}"
    "text{fill:currentColor;font-size:11px}"
    "@media(max-width:44rem){td,th{padding:.2rem .1rem;font-size:.66rem}text{font-size:17px}}"
    "@media print{body{margin:0;max-width:none;font-size:10pt}h2{break-after:avoid}svg,tr{break-inside:avoid}}"
)


def page(title: str, results: Sequence[Result], words: Sequence[str], *, surroundings: Sequence[str] = ()) -> str:
    """Return a page with a table, the rate by threads, and the times of each result, all on one axis.

    Args:
        title: Its title.
        results: What was measured.
        words: What that means, a paragraph each.
        surroundings: When, where and with which versions it was measured.
    """
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in COLUMNS)
    rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in cells(result)) for result in results)
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    axis = _Axis(results)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f'<p class="when">{html.escape(" · ".join(surroundings))}</p>{_paragraphs(words)}'
        f'<div class="wide"><table><tr>{head}</tr>{table}</table></div>{_by_threads(results)}'
        "<p>Times in microseconds, on the same logarithmic axis in every plot.</p>"
        f"{''.join(_plot(result, axis) for result in results)}</html>\n"
    )


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


class _Axis:
    """A logarithmic axis that every result fits on.

    Args:
        results: The results.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        low = min(result.latencies_us[0] for result in results)
        high = max(result.latencies_us[-1] for result in results)
        self._low = math.log(low)
        self._span = max(math.log(high) - self._low, 1e-9)
        self.ticks = [tick for tick in takewhile(lambda tick: tick <= high, _round_numbers()) if tick >= low]

    def place(self, latency: float) -> float:
        """Return how far to the right a time is."""
        return (math.log(latency) - self._low) / self._span * _WIDTH

    def counts(self, result: Result) -> list[int]:
        """Return how many times are in each of the axis's buckets."""
        counts = [0] * _BUCKETS
        for latency in result.latencies_us:
            counts[min(_BUCKETS - 1, int(self.place(latency) / _WIDTH * _BUCKETS))] += 1
        return counts


def _round_numbers() -> Iterator[float]:
    """Yield 0.001, 0.002, 0.005, 0.01 and so on."""
    power = -3
    while True:
        yield from (factor * 10.0**power for factor in (1, 2, 5))
        power += 1


def _plot(result: Result, axis: _Axis) -> str:
    counts = axis.counts(result)
    step, most = _WIDTH / _BUCKETS, max(counts)
    bars = "".join(
        f'<rect x="{step * i:.1f}" y="{_HEIGHT - 110 * count / most:.1f}" width="{step - 1:.1f}" '
        f'height="{110 * count / most:.1f}"><title>{count:,}</title></rect>'
        for i, count in enumerate(counts)
        if count
    )
    ticks = "".join(
        f'<text x="{axis.place(tick):.1f}" y="{_HEIGHT + 18}" text-anchor="middle">{microseconds(tick)}</text>'
        for tick in axis.ticks
    )
    marks = "".join(_mark(axis, result, percent, 18 * row + 12) for row, percent in enumerate(_PERCENTILES))
    name = html.escape(f"{result.what}, {result.threads} thread{'' if result.threads == 1 else 's'}")
    line = f'<line class="axis" x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
    rate = f"<p>{len(result.latencies_us):,} signatures, {result.rate:,.0f} a second</p>"
    box = f"-20 0 {_WIDTH + 40} {_HEIGHT + 24}"
    return f"<h2>{name}</h2>{rate}{_svg(name, box, bars + line + ticks + marks)}"


def _svg(label: str, box: str, content: str) -> str:
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{content}</svg>'


def _mark(axis: _Axis, result: Result, percent: int, height: float) -> str:
    latency = result.percentile(percent)
    place = axis.place(latency)
    anchor, gap = ("end", -4) if place > _WIDTH / 2 else ("start", 4)
    label = f"p{percent} {microseconds(latency)}"
    return (
        f'<line x1="{place:.1f}" y1="{height}" x2="{place:.1f}" y2="{_HEIGHT}"/>'
        f'<text x="{place + gap:.1f}" y="{height + 4}" text-anchor="{anchor}">{label}</text>'
    )


def _by_threads(results: Sequence[Result]) -> str:
    """Return bars of the store's signatures a second, by the number of threads."""
    store = [result for result in results if result.what == "store"]
    if not store:
        return ""
    longest = (_WIDTH - 300) / max(result.rate for result in store)
    bars = "".join(
        f'<text x="0" y="{26 * row + 17}">{result.threads} thread{"" if result.threads == 1 else "s"}</text>'
        f'<rect x="120" y="{26 * row + 3}" width="{longest * result.rate:.1f}" height="20"/>'
        f'<text x="{126 + longest * result.rate:.1f}" y="{26 * row + 17}">{result.rate:,.0f} a second</text>'
        for row, result in enumerate(store)
    )
    label = "Signatures a second by threads"
    return f"<h2>{label}</h2>{_svg(label, f'0 0 {_WIDTH} {26 * len(store) + 6}', bars)}"
