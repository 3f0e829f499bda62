"""Exchange status, balance and orders: made-up data in the shapes of Kalshi's OpenAPI document 3.13."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from hsm_keys.sandbox.api_keys import check_subaccount
from hsm_keys.sandbox.paging import page_of
from hsm_keys.sandbox.wire import Answer, WireError, flat, nested

if TYPE_CHECKING:
    from hsm_keys.sandbox.wire import Call

__all__ = ["cancel_order", "create_order", "exchange_status", "get_balance", "list_orders"]

_BALANCE_CENTS: Final = 1_000_000
_CENTS: Final = {"yes_price", "no_price"}
_DOLLARS: Final = {"yes_price_dollars", "no_price_dollars"}
_DOLLARS_FORM: Final = re.compile(r"0\.[0-9]{1,6}")
_COUNT_FORM: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,2})?")
_ONE_DOLLAR_CENTS: Final = 100


async def exchange_status(call: Call) -> Answer:
    """``GET /exchange/status``: public."""
    status: dict[str, Any] = {"exchange_active": True, "trading_active": True}
    if call.state.null_lists:
        status["exchange_estimated_resume_time"] = None
    return Answer(200, status)


async def get_balance(call: Call) -> Answer:
    """``GET /portfolio/balance``, in cents and, since version 3.18, in dollars; every subaccount holds the same."""
    _subaccount(call, _query_subaccount(call))
    balance = {"balance": _BALANCE_CENTS, "balance_dollars": f"{_BALANCE_CENTS / 100:.4f}"}
    return Answer(200, {**balance, "portfolio_value": 0, "updated_ts": call.now_ms // 1000})


async def list_orders(call: Call) -> Answer:
    """``GET /portfolio/orders`` with the filters ``ticker``, ``status`` and ``subaccount``, page by page."""
    asked = _query_subaccount(call)
    only = _subaccount(call, asked)
    filters = {name: call.query[name] for name in ("ticker", "status") if name in call.query}
    orders = [
        (position, order)
        for position, order in enumerate(call.state.orders.values())
        if all(order[name] == wanted for name, wanted in filters.items())
        and (only is None or order["subaccount_number"] == only)
    ]
    page, cursor = page_of(orders, call.query)
    return Answer(200, {"orders": None if call.state.null_lists and not page else page, "cursor": cursor})


async def create_order(call: Call) -> Answer:
    """``POST /portfolio/orders``: the order rests until it is cancelled."""
    body = call.json_object()
    asked = body.get("subaccount")
    if "subaccount" in body:
        asked = _checked_subaccount(asked)
    subaccount = _subaccount(call, asked)
    now = datetime.fromtimestamp(call.now_ms / 1000, tz=UTC).isoformat().replace("+00:00", "Z")
    yes_dollars = _yes_price(body)
    count = _count(body)
    order = {
        "order_id": str(uuid4()),
        "user_id": call.state.user_id,
        "client_order_id": _text(body, "client_order_id", required=False) or str(uuid4()),
        "ticker": _text(body, "ticker"),
        "side": _choice(body, "side", ("yes", "no")),
        "action": _choice(body, "action", ("buy", "sell")),
        "type": "limit",
        "status": "resting",
        "yes_price_dollars": f"{yes_dollars:.4f}",
        "no_price_dollars": f"{1 - yes_dollars:.4f}",
        "fill_count_fp": "0.00",
        "remaining_count_fp": count,
        "initial_count_fp": count,
        "taker_fees_dollars": "0.0000",
        "maker_fees_dollars": "0.0000",
        "taker_fill_cost_dollars": "0.0000",
        "maker_fill_cost_dollars": "0.0000",
        "created_time": now,
        "last_update_time": now,
        "subaccount_number": subaccount or 0,
    }
    if not call.state.add_order(order):
        raise flat(409, "order_already_exists", "an order with this client_order_id exists")
    return Answer(201, {"order": order})


async def cancel_order(call: Call) -> Answer:
    """``DELETE /portfolio/orders/{order_id}``: zeroes what remains and answers with the order."""
    order_id = call.path["order_id"]
    only = _subaccount(call, _query_subaccount(call))
    order = call.state.orders.get(order_id)
    if order is None or order["status"] != "resting" or (only is not None and order["subaccount_number"] != only):
        raise flat(404, "not_found", "order not found")
    reduced_by = order["remaining_count_fp"]
    order = call.state.change_order(order_id, status="canceled", remaining_count_fp="0.00")
    return Answer(200, {"order": order, "reduced_by_fp": reduced_by})


def _query_subaccount(call: Call) -> int | None:
    text = call.query.get("subaccount")
    if text is None:
        return None
    if re.fullmatch("[0-9]{1,2}", text) is None:
        raise _bad("subaccount must be an integer from 0 to 63")
    return _checked_subaccount(int(text))


def _checked_subaccount(value: object) -> int:
    try:
        return check_subaccount(value)
    except ValueError as error:
        raise _bad(str(error)) from None


def _subaccount(call: Call, asked: int | None) -> int | None:
    """Return the subaccount that a call is about; None for a key and a call that name none.

    A restricted key that names none is taken to mean its own; the documents don't say.
    """
    own = call.key.subaccount if call.key is not None else None
    if own is None:
        return asked
    if asked not in {None, own}:
        raise nested(403, "forbidden", f"the API key is restricted to subaccount {own}", service="sandbox")
    return own


def _text(body: dict[str, Any], field: str, *, required: bool = True) -> str:
    value = body.get(field, "")
    if not isinstance(value, str) or (required and not value):
        raise _bad(f"{field} must be a string, and not be empty")
    return value


def _choice(body: dict[str, Any], field: str, choices: tuple[str, ...]) -> str:
    value = _text(body, field)
    if value not in choices:
        raise _bad(f"{field} must be {' or '.join(choices)}")
    return value


def _yes_price(body: dict[str, Any]) -> Decimal:
    given = [field for field in sorted(_CENTS | _DOLLARS) if field in body]
    if len(given) != 1:
        raise _bad("exactly one of yes_price, no_price, yes_price_dollars and no_price_dollars is needed")
    (field,) = given
    value = body[field]
    if field in _CENTS:
        if type(value) is not int or not 0 < value < _ONE_DOLLAR_CENTS:
            raise _bad(f"{field} must be an integer from 1 to 99")
        price = Decimal(value) / _ONE_DOLLAR_CENTS
    else:
        if not isinstance(value, str) or _DOLLARS_FORM.fullmatch(value) is None or not Decimal(value):
            raise _bad(f"{field} must be a string between 0 and 1 with up to 6 decimals")
        price = Decimal(value)
    return price if field.startswith("yes") else 1 - price


def _count(body: dict[str, Any]) -> str:
    """Return the number of contracts with two decimals, from ``count``, ``count_fp``, or both if they match."""
    counts: set[Decimal] = set()
    if "count" in body:
        if type(body["count"]) is not int or body["count"] < 1:
            raise _bad("count must be a positive integer")
        counts.add(Decimal(body["count"]))
    if body.get("count_fp") is not None:  # nullable in the OpenAPI
        text = body["count_fp"]
        if not isinstance(text, str) or _COUNT_FORM.fullmatch(text) is None or not Decimal(text):
            raise _bad("count_fp must be a positive number with up to 2 decimals, as a string")
        counts.add(Decimal(text))
    if len(counts) != 1:
        raise _bad("count or count_fp is needed; given both, they must match")
    return f"{counts.pop():.2f}"


def _bad(message: str) -> WireError:
    return flat(400, "invalid_parameters", message)
