"""Bodies of orders, parsed so strictly that Kalshi can't read them in another way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Final, assert_never

from pydantic import ValidationError

from hsm_keys.proxy.amounts import DOLLAR, worst_case
from hsm_keys.proxy.exchanges import order_id_of
from hsm_keys.proxy.exposures import Exposure
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

__all__ = ["JUDGED_LIMIT", "OrderLimits", "Request", "UnclearBodyError", "read_request"]

_NEVER: Final = "(?!)"
"""A regular expression that nothing matches."""

JUDGED_LIMIT: Final = 32 * 1024
"""Bytes of a body that is judged: a hundred orders. Judging it takes some milliseconds of the event loop."""


_VALIDATORS: Final = {name: schema.__pydantic_validator__ for name, schema in SCHEMAS.items()}
_AMENDMENTS: Final = frozenset({AmendOrder, PerpsAmend})
_PERPS: Final = frozenset({PerpsOrder, PerpsAmend})


class UnclearBodyError(ValueError):
    """A body that can be read in two ways, or not at all; the message says why and quotes nothing of it."""


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
        contracts = 0
        for one in self.exposures:
            contracts += one.size
        return contracts

    @property
    def worst_case(self) -> int | None:
        """Hundredths of a cent that all orders together may cost; None where that can't be told."""
        costs = 0
        for one in self.exposures:
            if one.perps:
                return None
            costs += worst_case(one.size, one.cost)
        return costs


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
        return self.markets is None or _pattern_of(tuple(self.markets)).match(ticker) is not None

    def against(self, exposures: Sequence[Exposure]) -> tuple[str, str] | None:
        """Return the limit that is against one of them, and why; None if none is."""
        for exposure in exposures:
            against = self._against(exposure)
            if against is not None:
                return against
        return None

    def _against(self, asked: Exposure) -> tuple[str, str] | None:
        if not self.takes_market(asked.market):
            return "markets", "the order isn't for one of the markets that are allowed"
        if self.max_count is not None and asked.size > self.max_count:
            return "max_count", f"the order is for more than {Decimal(self.max_count) / 100} contracts"
        if self.max_price is None:
            return None
        if asked.perps:
            return "max_price_cents", "what a perpetual future may cost can't be told: name its route in allow_unjudged"
        if asked.cost > self.max_price:
            return "max_price_cents", f"a contract may cost more than {Decimal(self.max_price) / 100} cents"
        return None


@lru_cache
def _pattern_of(markets: Sequence[str]) -> re.Pattern[str]:
    """Return what a ticker has to match to be of one of these markets."""
    return re.compile("|".join(map(translate, markets)) or _NEVER)


def read_request(operation: Operation, path: str, body: bytes, query: str = "") -> Request:
    """Return what the body of a request asks for.

    Args:
        operation: One that has a schema.
        path: The request's, which names the order that is amended.
        body: The body.
        query: What follows the path's question mark; a field that stands there might be taken for the body's.

    Raises:
        UnclearBodyError: If they aren't of that schema exactly.
    """
    if query and not (operation.name in QUERIES and QUERIES[operation.name].fullmatch(query)):
        raise UnclearBodyError("the route doesn't take what the query says")
    try:
        return _understood(_VALIDATORS[operation.name].validate_python(strict_object(body)), path)
    except UnclearJsonError as error:
        raise UnclearBodyError(f"the body {error}") from None
    except ValidationError as error:
        raise UnclearBodyError(_problem(error)) from None


def _understood(body: Body, path: str) -> Request:
    match body:
        case CreateOrder() | PerpsOrder() | AmendOrder() | PerpsAmend():
            return Request(exposures=(_exposure(body, path),))
        case CreateBatch(orders=orders):
            return Request(len(orders), tuple(_exposure(order, path) for order in orders))
        case CancelBatch(orders=orders):
            return Request(len(orders))
        case PerpsDecrease():
            return Request()
    raise UnclearBodyError("the route has no body that this program knows")


def _exposure(order: CreateOrder | PerpsOrder | AmendOrder | PerpsAmend, path: str) -> Exposure:
    match order:
        case CreateOrder(side="ask", reduce_only=True):
            cost = 0
        case CreateOrder(side="ask", price=price):
            cost = DOLLAR - price
        case CreateOrder(price=price):
            cost = price
        case AmendOrder(price=price):  # it isn't known here whether the amended order is a bid or an ask
            cost = max(price, DOLLAR - price)
        case PerpsOrder(market_id=None) | PerpsAmend(market_id=None):
            cost = 0
        case PerpsOrder() | PerpsAmend():
            raise UnclearBodyError("market_id and ticker both name the market")
        case _:
            assert_never(order)
    return Exposure(
        order.ticker,
        order.side,
        order.count,
        cost,
        getattr(order, "time_in_force", "good_till_canceled") == "good_till_canceled",
        order.client_order_id or "",
        order_id_of(path) if type(order) in _AMENDMENTS else "",
        type(order) in _PERPS,
        getattr(order, "subaccount", None),
        order.price,
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
