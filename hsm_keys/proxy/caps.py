"""Caps on money, as a policy says them: for a client, and in ``[all]`` for all clients together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hsm_keys.proxy.amounts import whole

__all__ = ["LONGEST_DUPLICATE_S", "Caps", "Contracts", "MoneyCaps"]

LONGEST_DUPLICATE_S: Final = 600
"""For how long an order is remembered at most, so that it isn't sent twice."""


@dataclass(frozen=True, slots=True)
class Caps:
    """Caps in whole numbers; None where there is none.

    Attributes:
        order: Hundredths of a cent that an order may cost.
        day: The same in any 24 hours.
        open: The same of orders that rest.
        market: Hundredths of a contract in a market, net, either way.
        duplicate_ms: Milliseconds in which an order doesn't go out twice.
    """

    order: int | None = None
    day: int | None = None
    open: int | None = None
    market: int | None = None
    duplicate_ms: int | None = None

    def __bool__(self) -> bool:
        return self != _NONE


_NONE: Final = Caps()


def _number(value: object, decimals: int, example: str) -> int:
    """Read a whole number, or a decimal string, in its least unit."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    number = whole(text, decimals)
    if not number:
        raise ValueError(f'has to be a whole number, or a string such as "{example}", and more than nothing')
    return number


def _dollars(value: object) -> int:
    return _number(value, 4, "50.25")


def _contracts(value: object) -> int:
    return _number(value, 2, "2.50")


_Dollars = Annotated[int, BeforeValidator(_dollars)]
Contracts = Annotated[int, BeforeValidator(_contracts)]


class MoneyCaps(BaseModel):
    """The settings that cap money."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    max_order_dollars: _Dollars | None = None
    max_dollars_a_day: _Dollars | None = None
    max_open_dollars: _Dollars | None = None
    max_contracts_a_market: Contracts | None = None
    duplicate_seconds: Annotated[int, Field(gt=0, le=LONGEST_DUPLICATE_S)] | None = None

    @cached_property
    def caps(self) -> Caps:
        """The same in whole numbers."""
        return Caps(
            order=self.max_order_dollars,
            day=self.max_dollars_a_day,
            open=self.max_open_dollars,
            market=self.max_contracts_a_market,
            duplicate_ms=None if self.duplicate_seconds is None else self.duplicate_seconds * 1000,
        )
