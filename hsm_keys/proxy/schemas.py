"""Bodies of Kalshi's order routes: names, types and choices exactly as Kalshi's newest clients send them.

One schema for each route. Counts are read as whole hundredths of a contract, prices as whole hundredths of a cent,
never as floats. A body that another program might read in another way (an unknown field, a number for a string,
``Bid``) is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hsm_keys.proxy.amounts import DOLLAR, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "QUERIES",
    "SCHEMAS",
    "AmendOrder",
    "Body",
    "CancelBatch",
    "CreateBatch",
    "CreateOrder",
    "DecreaseOrder",
    "PerpsAmend",
    "PerpsDecrease",
    "PerpsOrder",
]


_NO_COUNT: Final = 'has to be a string of at most two decimals, such as "2.50"'
_NO_PRICE: Final = 'has to be dollars in a string of at most four decimals, such as "0.5600", and not nothing'


def _count_or_none_at_all(value: object) -> int:
    count = whole(value, 2)
    if count is None:
        raise ValueError(_NO_COUNT)
    return count


def _count(value: object) -> int:
    count = whole(value, 2)
    if not count:
        raise ValueError(_NO_COUNT if count is None else "has to be more than nothing")
    return count


def _any_price(value: object) -> int:
    price = whole(value, 4)
    if not price:
        raise ValueError(_NO_PRICE)
    return price


def _price(value: object) -> int:
    price = whole(value, 4)
    if not price:
        raise ValueError(_NO_PRICE)
    if price >= DOLLAR:
        raise ValueError("has to be below one dollar")
    return price


_Ticker = Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
# A lost order is looked up by this id, so Kalshi must not trim or normalise it.
_OrderName = Annotated[str, Field(pattern=r"^([!-~]([ -~]{0,198}[!-~])?)?$")]
_Count = Annotated[int, BeforeValidator(_count)]
_CountOrNone = Annotated[int, BeforeValidator(_count_or_none_at_all)]
_Price = Annotated[int, BeforeValidator(_price)]
_AnyPrice = Annotated[int, BeforeValidator(_any_price)]
# Larger numbers aren't read in one way by all programs (RFC 8259, section 6).
_Whole = Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)]
_Natural = Annotated[int, Field(ge=0, le=2**53 - 1)]
_Side = Literal["bid", "ask"]


class Body(BaseModel):
    """A body; null stands for what isn't said."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _NewOrder(Body):
    side: _Side
    count: _Count
    time_in_force: Literal["fill_or_kill", "good_till_canceled", "immediate_or_cancel"]
    self_trade_prevention_type: Literal["taker_at_cross", "maker"]
    client_order_id: _OrderName | None = None
    expiration_time: _Whole | None = None
    post_only: bool | None = None
    cancel_order_on_pause: bool | None = None
    reduce_only: bool | None = None
    subaccount: _Natural | None = None
    order_group_id: str | None = None

    @model_validator(mode="after")
    def _check_reduce_only(self) -> Self:
        if self.reduce_only and self.time_in_force != "immediate_or_cancel":
            raise ValueError("reduce_only goes with immediate_or_cancel alone")
        return self


class CreateOrder(_NewOrder):
    """``POST /portfolio/events/orders``. Side and price speak of the YES leg."""

    ticker: _Ticker
    price: _Price
    exchange_index: _Whole | None = None


class PerpsOrder(_NewOrder):
    """``POST /margin/orders``; ``market_id`` may name the market in place of the ticker, which comes first."""

    ticker: _Ticker
    price: _AnyPrice
    market_version: _Whole | None = None
    market_id: str | None = None


class _Amend(Body):
    ticker: _Ticker
    side: _Side
    count: _Count
    client_order_id: _OrderName | None = None
    updated_client_order_id: _OrderName | None = None
    expiration_time: _Natural | None = None


class AmendOrder(_Amend):
    """``POST /portfolio/events/orders/{order_id}/amend``."""

    price: _Price
    exchange_index: _Whole | None = None


class PerpsAmend(_Amend):
    """``POST /margin/orders/{order_id}/amend``."""

    price: _AnyPrice
    market_id: str | None = None


class PerpsDecrease(Body):
    """``POST /margin/orders/{order_id}/decrease``: one of the two."""

    reduce_by: _Count | None = None
    reduce_to: _CountOrNone | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.reduce_by is None) == (self.reduce_to is None):
            raise ValueError("one of reduce_by and reduce_to has to be said")
        return self


class DecreaseOrder(PerpsDecrease):
    """``POST /portfolio/events/orders/{order_id}/decrease``: one of ``reduce_by`` and ``reduce_to``."""

    exchange_index: _Whole | None = None
    market_ticker: _Ticker | None = None


class CreateBatch(Body):
    """``POST /portfolio/events/orders/batched``."""

    orders: Annotated[list[CreateOrder], Field(min_length=1)]


class _Cancel(Body):
    order_id: str
    subaccount: _Natural | None = None
    exchange_index: _Whole | None = None
    market_ticker: _Ticker | None = None


class CancelBatch(Body):
    """``DELETE /portfolio/events/orders/batched``."""

    orders: Annotated[list[_Cancel], Field(min_length=1)]


SCHEMAS: Final[Mapping[str, type[Body]]] = {
    "POST /portfolio/events/orders": CreateOrder,
    "POST /portfolio/events/orders/batched": CreateBatch,
    "DELETE /portfolio/events/orders/batched": CancelBatch,
    "POST /portfolio/events/orders/{order_id}/amend": AmendOrder,
    "POST /portfolio/events/orders/{order_id}/decrease": DecreaseOrder,
    "POST /margin/orders": PerpsOrder,
    "POST /margin/orders/{order_id}/amend": PerpsAmend,
    "POST /margin/orders/{order_id}/decrease": PerpsDecrease,
}
"""Schemas by the names of the table's operations."""

_SUBACCOUNT: Final = re.compile("subaccount=[0-9]{1,9}")
QUERIES: Final[Mapping[str, re.Pattern[str]]] = {
    "POST /portfolio/events/orders/{order_id}/amend": _SUBACCOUNT,
    "POST /portfolio/events/orders/{order_id}/decrease": _SUBACCOUNT,
}
"""The queries that these operations take beside a body; the others take none."""
