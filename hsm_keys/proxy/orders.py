"""Bodies that trade: what they ask for, read so strictly that Kalshi can't read them in another way."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, assert_never

from pydantic import ValidationError

from hsm_keys.proxy.amounts import DOLLAR, worst_case
from hsm_keys.proxy.schemas import (
    QUERIES,
    SCHEMAS,
    AmendOrder,
    Body,
    CancelBatch,
    CreateBatch,
    CreateOrder,
    PerpsAmend,
    PerpsDecrease,
    PerpsOrder,
)
from hsm_keys.proxy.strict_json import UnclearJsonError, strict_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.kalshi.operations import Operation

__all__ = ["JUDGED_LIMIT", "Exposure", "OrderLimits", "Request", "UnclearBodyError", "read_request"]

JUDGED_LIMIT: Final = 32 * 1024
"""Bytes of a body that is judged: a hundred orders. Judging it takes some milliseconds of the event loop."""


class UnclearBodyError(ValueError):
    """A body that can be read in two ways, or not at all; the message says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What an order may come to: all that the limits look at.

    Attributes:
        market: The market's ticker.
        count: Hundredths of a contract.
        cost: What a contract may cost at most, in hundredths of a cent; 0 if the order can only reduce a position. None
            where that can't be told: a perpetual future has no dollar at the end.
        price: The price of the YES leg, in hundredths of a cent.
        side: ``bid`` or ``ask``, of the YES leg.
        rests: Whether it stays in the book until it is filled or cancelled.
        client_order_id: Its name; None if it has none.
        amends: Whether it changes an order that there is.
        perps: Whether it is for a perpetual future.
        subaccount: The subaccount that it names; None if it names none.
    """

    market: str
    count: int
    cost: int | None
    price: int = 0
    side: str = "bid"
    rests: bool = True
    client_order_id: str | None = None
    amends: bool = False
    perps: bool = False
    subaccount: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A body that was read.

    Attributes:
        count: How many orders it is about.
        exposures: What may be added; nothing for a request that can only reduce.
    """

    count: int = 1
    exposures: tuple[Exposure, ...] = ()

    @property
    def contracts(self) -> int:
        """Hundredths of a contract, of all orders together."""
        return sum(exposure.count for exposure in self.exposures)

    @property
    def worst_case(self) -> int | None:
        """Hundredths of a cent that all orders together may cost; None where that can't be told."""
        costs = [None if one.cost is None else worst_case(one.count, one.cost) for one in self.exposures]
        return None if None in costs else sum(cost or 0 for cost in costs)


@dataclass(frozen=True, slots=True)
class OrderLimits:
    """What an order may ask for; None where it may ask for anything.

    Args:
        max_count: Hundredths of a contract.
        max_price: Hundredths of a cent that a contract may cost.
        markets: Patterns of which the ticker has to match one; ``*`` stands for any characters.
    """

    max_count: int | None
    max_price: int | None
    markets: Sequence[str] | None

    def __bool__(self) -> bool:
        return not (self.max_count is None and self.max_price is None and self.markets is None)

    def takes_market(self, ticker: str) -> bool:
        """Tell whether orders in a market are allowed."""
        return self.markets is None or any(fnmatchcase(ticker, pattern) for pattern in self.markets)

    def against(self, exposures: Sequence[Exposure]) -> tuple[str, str] | None:
        """Return the limit that is against one of them, and why; None if none is."""
        return next((against for exposure in exposures if (against := self._against(exposure))), None)

    def _against(self, asked: Exposure) -> tuple[str, str] | None:
        if not self.takes_market(asked.market):
            return "markets", "the order isn't for one of the markets that are allowed"
        if self.max_count is not None and asked.count > self.max_count:
            return "max_count", f"the order is for more than {Decimal(self.max_count) / 100} contracts"
        if self.max_price is None:
            return None
        if asked.cost is None:
            return "max_price", "what a perpetual future may cost can't be told: name its route in allow_unjudged"
        if asked.cost > self.max_price:
            return "max_price", f"a contract may cost more than {Decimal(self.max_price) / 100} cents"
        return None


def read_request(operation: Operation, body: bytes, query: str = "") -> Request:
    """Return what the body of a request asks for.

    Args:
        operation: One that has a schema.
        body: The body.
        query: What follows the path's question mark; a field that stands there might be taken for the body's.

    Raises:
        UnclearBodyError: If they aren't of that schema exactly.
    """
    if query and not (operation.name in QUERIES and QUERIES[operation.name].fullmatch(query)):
        raise UnclearBodyError("the route doesn't take what the query says")
    try:
        return _understood(SCHEMAS[operation.name].model_validate(strict_object(body)))
    except UnclearJsonError as error:
        raise UnclearBodyError(f"the body {error}") from None
    except ValidationError as error:
        raise UnclearBodyError(_problem(error)) from None


def _understood(body: Body) -> Request:
    match body:
        case CreateBatch(orders=orders):
            return Request(len(orders), tuple(_exposure(order) for order in orders))
        case CancelBatch(orders=orders):
            return Request(len(orders))
        case PerpsDecrease():
            return Request()
        case CreateOrder() | PerpsOrder() | AmendOrder() | PerpsAmend():
            return Request(exposures=(_exposure(body),))
    raise UnclearBodyError("the route has no body that this program knows")


def _exposure(order: CreateOrder | PerpsOrder | AmendOrder | PerpsAmend) -> Exposure:
    match order:
        case CreateOrder(side="ask", reduce_only=True):
            cost: int | None = 0
        case CreateOrder(side="ask", price=price):
            cost = DOLLAR - price
        case CreateOrder(price=price):
            cost = price
        case AmendOrder(price=price):  # whether the order that is amended is a bid or an ask isn't known here
            cost = max(price, DOLLAR - price)
        case PerpsOrder(market_id=None) | PerpsAmend(market_id=None):
            cost = None
        case PerpsOrder() | PerpsAmend():
            raise UnclearBodyError("market_id and ticker both name the market")
        case _:
            assert_never(order)
    return Exposure(
        order.ticker,
        order.count,
        cost,
        order.price,
        order.side,
        rests=getattr(order, "time_in_force", "good_till_canceled") == "good_till_canceled",
        client_order_id=order.client_order_id,
        amends=isinstance(order, AmendOrder | PerpsAmend),
        perps=isinstance(order, PerpsOrder | PerpsAmend),
        subaccount=getattr(order, "subaccount", None),
    )


def _problem(error: ValidationError) -> str:
    """Say what is wrong, without a word of the body: a name stands here only if the schema has it."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "extra_forbidden":
        return "it has a field that this route doesn't take"
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{where} is missing"
    return f"{where} {first['msg'].removeprefix('Value error, ')}".strip()
