"""Money and counts as whole numbers: hundredths of a cent, and hundredths of a contract. No float is involved."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["DOLLAR", "contracts", "dollars", "whole", "worst_case"]

DOLLAR: Final = 10_000
"""Hundredths of a cent."""

_FORMS: Final = {decimals: re.compile(rf"([0-9]{{1,9}})(?:\.([0-9]{{1,{decimals}}}))?") for decimals in (2, 4)}


def whole(value: object, decimals: int) -> int | None:
    """Return a decimal string as a whole number of its least unit; None if it isn't one.

    Args:
        value: What may be a string such as "2.50".
        decimals: How many it may have at most: 2 of contracts, 4 of dollars.
    """
    match = _FORMS[decimals].fullmatch(value) if isinstance(value, str) else None
    return None if match is None else int(match[1] + (match[2] or "").ljust(decimals, "0"))


def worst_case(count: int, cost: int) -> int:
    """Return what so many hundredths of a contract cost, in hundredths of a cent, rounded up.

    Args:
        count: Hundredths of a contract.
        cost: Hundredths of a cent that a contract costs at most.
    """
    return -(-count * cost // 100)


def dollars(amount: int) -> str:
    """Return an amount of hundredths of a cent as people read it."""
    sign = "-" if amount < 0 else ""
    return f"{sign}${abs(amount) // DOLLAR:,}.{abs(amount) % DOLLAR:04}"


def contracts(count: int) -> str:
    """Return hundredths of a contract as people read them."""
    return f"{count // 100}.{count % 100:02}" if count % 100 else str(count // 100)
