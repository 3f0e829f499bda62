"""Tables of text. A column's width counts the terminal cells of each character. No line is folded or cut."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from unicodedata import combining, east_asian_width

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["aligned"]

_COLOUR: Final = re.compile("\x1b\\[[0-9;]*m")
"""What changes the colour of what follows (ECMA-48, SGR); it has no width."""


def aligned(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """Return a line for each row, with two spaces between columns and none at the end.

    Args:
        rows: The cells of each row, as many in each.
        numbers: Whether all columns but the first hold numbers, which end below each other.
    """
    widths = [max(map(_cells, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, numbers=numbers)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int], *, numbers: bool) -> list[str]:
    spaces = [" " * (width - _cells(cell)) for cell, width in zip(row, widths, strict=True)]
    first, *rest = zip(row, spaces, strict=True)
    return ["".join(first), *(space + cell if numbers else cell + space for cell, space in rest)]


def _cells(text: str) -> int:
    """Return how wide a text is on a terminal (Unicode Standard Annex 11)."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in _COLOUR.sub("", text))
