"""What the bodies of writes may hold: as strict as Kalshi's published models, and nothing besides."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from hsm_keys.sandbox.fixed_point import count_of, price_of
from hsm_keys.sandbox.markets import PERPS
from hsm_keys.sandbox.wire import Call, WireError, flat

__all__ = [
    "AcceptQuote",
    "AmendMarginOrder",
    "AmendOrder",
    "CancelOrders",
    "CreateMarginOrder",
    "CreateOrder",
    "CreateOrderGroup",
    "CreateOrders",
    "CreateQuote",
    "CreateRfq",
    "DecreaseMarginOrder",
    "DecreaseOrder",
    "OrderGroupLimit",
    "body_of",
]

_Model = TypeVar("_Model", bound=BaseModel)

Count = Annotated[StrictStr, AfterValidator(count_of)]
Price = Annotated[StrictStr, AfterValidator(price_of)]
Name = Annotated[StrictStr, Field(min_length=1, max_length=256)]
Subaccount = Annotated[StrictInt, Field(ge=0, le=63)]
Shard = Annotated[StrictInt, Field(ge=-1)]
Seconds = Annotated[StrictInt, Field(ge=0, le=253_402_300_799)]  # to the end of the year 9999, RFC 3339's last
Side = Literal["bid", "ask"]
BATCH = 1000
"""The most orders of one batch; Kalshi's own limit isn't documented."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class CreateOrder(_Body):
    """``POST /portfolio/events/orders``."""

    ticker: Name
    side: Side
    count: Count
    price: Price
    time_in_force: Literal["fill_or_kill", "good_till_canceled", "immediate_or_cancel"]
    self_trade_prevention_type: Literal["taker_at_cross", "maker"]
    client_order_id: StrictStr | None = None
    expiration_time: Seconds | None = None
    post_only: StrictBool | None = None
    reduce_only: StrictBool | None = None
    cancel_order_on_pause: StrictBool | None = None
    subaccount: Subaccount | None = None
    order_group_id: StrictStr | None = None
    exchange_index: Shard | None = None

    @model_validator(mode="after")
    def _fits(self) -> CreateOrder:
        if self.reduce_only and self.time_in_force != "immediate_or_cancel":
            raise ValueError("reduce_only needs time_in_force immediate_or_cancel")
        if self.expiration_time is not None and self.time_in_force != "good_till_canceled":
            raise ValueError("expiration_time needs time_in_force good_till_canceled")
        if self.post_only and self.time_in_force != "good_till_canceled":
            raise ValueError("post_only needs time_in_force good_till_canceled")
        return self


def _by_market_id(body: Any) -> Any:
    """Name the market of a perpetual by its ticker; ``market_id`` may stand in for it."""
    if not isinstance(body, dict) or "ticker" in body or not isinstance(body.get("market_id"), str):
        return body
    wanted = body["market_id"]
    return body | {"ticker": next((ticker for ticker, it in PERPS.items() if it.market_id == wanted), wanted)}


class CreateMarginOrder(CreateOrder):
    """``POST /margin/orders``: there are no shards to choose from, and a market's version may be named."""

    client_order_id: StrictStr
    exchange_index: None = None
    market_version: StrictInt | None = None
    market_id: StrictStr | None = None

    _by_id = model_validator(mode="before")(_by_market_id)


class CreateOrders(_Body):
    """``POST /portfolio/events/orders/batched``; each order is judged by itself."""

    orders: Annotated[list[dict[str, object]], Field(min_length=1, max_length=BATCH)]


class AmendOrder(_Body):
    """``POST /portfolio/events/orders/{order_id}/amend``."""

    ticker: Name
    side: Side
    price: Price
    count: Count
    client_order_id: StrictStr | None = None
    updated_client_order_id: Name | None = None
    expiration_time: Seconds | None = None
    exchange_index: Shard | None = None


class AmendMarginOrder(AmendOrder):
    """``POST /margin/orders/{order_id}/amend``."""

    exchange_index: None = None
    market_id: StrictStr | None = None

    _by_id = model_validator(mode="before")(_by_market_id)


class DecreaseOrder(_Body):
    """``POST /portfolio/events/orders/{order_id}/decrease``."""

    reduce_by: Count | None = None
    reduce_to: StrictStr | None = None
    exchange_index: Shard | None = None
    market_ticker: Name | None = None

    @model_validator(mode="after")
    def _one(self) -> DecreaseOrder:
        if (self.reduce_by is None) == (self.reduce_to is None):
            raise ValueError("exactly one of reduce_by and reduce_to is needed")
        return self


class DecreaseMarginOrder(DecreaseOrder):
    """``POST /margin/orders/{order_id}/decrease``."""

    exchange_index: None = None
    market_ticker: None = None


class _CancelOrder(_Body):
    order_id: Name
    subaccount: Subaccount | None = None
    exchange_index: Shard | None = None
    market_ticker: Name | None = None


class CancelOrders(_Body):
    """``DELETE /portfolio/events/orders/batched``."""

    orders: Annotated[list[_CancelOrder], Field(min_length=1, max_length=BATCH)]


class _GroupLimit(_Body):
    contracts_limit: Annotated[StrictInt, Field(ge=1)] | None = None
    contracts_limit_fp: Count | None = None

    @model_validator(mode="after")
    def _one(self) -> _GroupLimit:
        limits = {(self.contracts_limit or 0) * 100, int(self.contracts_limit_fp or 0)} - {0}
        if len(limits) != 1:
            raise ValueError("contracts_limit or contracts_limit_fp is needed; given both, they must match")
        return self

    @property
    def limit(self) -> int:
        """The limit in hundredths of a contract."""
        return (self.contracts_limit or 0) * 100 or int(self.contracts_limit_fp or 0)


class CreateOrderGroup(_GroupLimit):
    """``POST /portfolio/order_groups/create``."""

    subaccount: Subaccount | None = None
    exchange_index: Shard | None = None


class OrderGroupLimit(_GroupLimit):
    """``PUT /portfolio/order_groups/{order_group_id}/limit``."""


class CreateRfq(_Body):
    """``POST /communications/rfqs``."""

    market_ticker: Name
    rest_remainder: StrictBool
    contracts: Annotated[StrictInt, Field(ge=0)] | None = None
    contracts_fp: Count | None = None
    target_cost_centi_cents: Annotated[StrictInt, Field(ge=0)] | None = None
    target_cost_dollars: StrictStr | None = None
    replace_existing: StrictBool | None = None
    subtrader_id: StrictStr | None = None
    subaccount: Subaccount | None = None


class CreateQuote(_Body):
    """``POST /communications/quotes``."""

    rfq_id: Name
    yes_bid: StrictStr
    no_bid: StrictStr
    rest_remainder: StrictBool
    subaccount: Subaccount | None = None
    post_only: StrictBool | None = None


class AcceptQuote(_Body):
    """``PUT /communications/quotes/{quote_id}/accept``."""

    accepted_side: Literal["yes", "no"]


def body_of(call: Call, model: type[_Model]) -> _Model:
    """Return a request's body as that model.

    Raises:
        WireError: 400, naming the field that is wrong and never its value.
    """
    return checked(call.json_object(), model)


def checked(body: dict[str, object], model: type[_Model]) -> _Model:
    """Return an object as that model.

    Raises:
        WireError: 400, naming the field that is wrong and never its value.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> WireError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return flat(400, "invalid_parameters", f"{place}: {message}" if place else message)
