"""Kalshi's fixed-point strings as integers: prices in 1/10,000 dollar, counts in 1/100 contract, money in 1/1,000,000.

A price times a count is money without a remainder, so that floats appear nowhere.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ONE_CONTRACT", "ONE_DOLLAR", "count_of", "count_text", "money_text", "price_of", "price_text"]

ONE_DOLLAR: Final = 10_000
"""In units of a price."""

ONE_CONTRACT: Final = 100
"""In units of a count."""

_MICRO: Final = 1_000_000
_PRICE: Final = re.compile(r"0\.([0-9]{2,4})")
_COUNT: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{0,2}))?")


def price_of(text: str) -> int:
    """Read a price: more than 0 and less than 1 dollar, with 2 to 4 decimals.

    Raises:
        ValueError: If it is none.
    """
    match = _PRICE.fullmatch(text)
    price = int(match[1].ljust(4, "0")) if match else 0
    if not price:
        raise ValueError("must be a string between 0 and 1 dollar with 2 to 4 decimals")
    return price


def count_of(text: str) -> int:
    """Read a number of contracts with up to 2 decimals, more than 0.

    Raises:
        ValueError: If it is none.
    """
    match = _COUNT.fullmatch(text)
    count = int(match[1]) * ONE_CONTRACT + int((match[2] or "").ljust(2, "0")) if match else 0
    if not count:
        raise ValueError("must be a positive number with up to 2 decimals, as a string")
    return count


def price_text(price: int) -> str:
    """Write a price with 4 decimals."""
    return f"{price // ONE_DOLLAR}.{price % ONE_DOLLAR:04}"


def count_text(count: int) -> str:
    """Write a count with 2 decimals; it may be negative, as a position may."""
    sign = "-" if count < 0 else ""
    return f"{sign}{abs(count) // ONE_CONTRACT}.{abs(count) % ONE_CONTRACT:02}"


def money_text(money: int) -> str:
    """Write an amount of dollars with 6 decimals."""
    sign = "-" if money < 0 else ""
    return f"{sign}{abs(money) // _MICRO}.{abs(money) % _MICRO:06}"
