"""Which models two published clients read Kalshi's answers with."""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tests.support.sdk_operations import bare, trees

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["KALSHI_SDK", "NO_MODEL", "documented_statuses", "generated_model", "kalshi_sdk_model"]

_Answers = dict[str, str | None]

NO_MODEL = ""
"""kalshi-sdk reads such an answer without a model, or not at all."""

KALSHI_SDK = {
    "GET /account/endpoint_costs": "AccountEndpointCosts",
    "GET /account/limits": "AccountApiLimits",
    "GET /account/limits/perps": "AccountApiLimits",
    "GET /api_keys": "GetApiKeysResponse",
    "POST /api_keys": "CreateApiKeyResponse",
    "POST /api_keys/generate": "GenerateApiKeyResponse",
    "DELETE /api_keys/{api_key}": NO_MODEL,
    "GET /communications/id": "GetCommunicationsIDResponse",
    "GET /communications/rfqs": "GetRFQsResponse",
    "POST /communications/rfqs": "CreateRFQResponse",
    "GET /communications/rfqs/{rfq_id}": "GetRFQResponse",
    "DELETE /communications/rfqs/{rfq_id}": NO_MODEL,
    "GET /communications/quotes": "GetQuotesResponse",
    "POST /communications/quotes": "CreateQuoteResponse",
    "GET /communications/quotes/{quote_id}": "GetQuoteResponse",
    "DELETE /communications/quotes/{quote_id}": NO_MODEL,
    "PUT /communications/quotes/{quote_id}/accept": NO_MODEL,
    "PUT /communications/quotes/{quote_id}/confirm": NO_MODEL,
    "GET /communications/rfqs/{rfq_id}/quotes/{quote_id}": "GetQuoteResponse",
    "DELETE /communications/rfqs/{rfq_id}/quotes/{quote_id}": NO_MODEL,
    "PUT /communications/rfqs/{rfq_id}/quotes/{quote_id}/accept": NO_MODEL,
    "PUT /communications/rfqs/{rfq_id}/quotes/{quote_id}/confirm": NO_MODEL,
    "GET /events": "events[] Event",
    "GET /events/{event_ticker}": "event Event",
    "GET /exchange/schedule": "schedule Schedule",
    "GET /exchange/status": "ExchangeStatus",
    "GET /exchange/user_data_timestamp": "UserDataTimestamp",
    "GET /margin/balance": "GetMarginBalanceResponse",
    "GET /margin/enabled": "MarginEnabledResponse",
    "GET /margin/exchange/status": "ExchangeStatus",
    "GET /margin/fills": "GetMarginFillsResponse",
    "GET /margin/markets": "markets[] MarginMarket",
    "GET /margin/markets/{ticker}": "market MarginMarket",
    "GET /margin/markets/{ticker}/orderbook": NO_MODEL,
    "GET /margin/order_groups": "order_groups[] OrderGroup",
    "POST /margin/order_groups/create": "CreateOrderGroupResponse",
    "GET /margin/order_groups/{order_group_id}": "GetOrderGroupResponse",
    "DELETE /margin/order_groups/{order_group_id}": NO_MODEL,
    "PUT /margin/order_groups/{order_group_id}/limit": NO_MODEL,
    "PUT /margin/order_groups/{order_group_id}/reset": NO_MODEL,
    "PUT /margin/order_groups/{order_group_id}/trigger": NO_MODEL,
    "GET /margin/orders": "GetMarginOrdersResponse",
    "POST /margin/orders": "CreateMarginOrderResponse",
    "DELETE /margin/orders": NO_MODEL,
    "GET /margin/orders/{order_id}": "GetMarginOrderResponse",
    "DELETE /margin/orders/{order_id}": "CancelMarginOrderResponse",
    "POST /margin/orders/{order_id}/amend": "AmendMarginOrderResponse",
    "POST /margin/orders/{order_id}/decrease": "DecreaseMarginOrderResponse",
    "GET /margin/markets/orderbooks": NO_MODEL,
    "GET /margin/trades": "GetMarginTradesResponse",
    "GET /margin/positions": "GetMarginPositionsResponse",
    "GET /markets": "markets[] Market",
    "GET /markets/orderbooks": NO_MODEL,
    "GET /markets/trades": "trades[] Trade",
    "GET /markets/{ticker}": "market Market",
    "GET /markets/{ticker}/orderbook": NO_MODEL,
    "GET /portfolio/balance": "Balance",
    "POST /portfolio/events/orders": "CreateOrderV2Response",
    "DELETE /portfolio/events/orders": NO_MODEL,
    "POST /portfolio/events/orders/batched": "BatchCreateOrdersV2Response",
    "DELETE /portfolio/events/orders/batched": "BatchCancelOrdersV2Response",
    "DELETE /portfolio/events/orders/{order_id}": "CancelOrderV2Response",
    "POST /portfolio/events/orders/{order_id}/amend": "AmendOrderV2Response",
    "POST /portfolio/events/orders/{order_id}/decrease": "DecreaseOrderV2Response",
    "GET /portfolio/fills": "fills[] Fill",
    "GET /portfolio/order_groups": "order_groups[] OrderGroup",
    "POST /portfolio/order_groups/create": "CreateOrderGroupResponse",
    "GET /portfolio/order_groups/{order_group_id}": "GetOrderGroupResponse",
    "DELETE /portfolio/order_groups/{order_group_id}": NO_MODEL,
    "PUT /portfolio/order_groups/{order_group_id}/limit": NO_MODEL,
    "PUT /portfolio/order_groups/{order_group_id}/reset": NO_MODEL,
    "PUT /portfolio/order_groups/{order_group_id}/trigger": NO_MODEL,
    "GET /portfolio/orders": "orders[] Order",
    "GET /portfolio/orders/queue_positions": "queue_positions[] OrderQueuePosition",
    "GET /portfolio/orders/{order_id}": "order Order",
    "GET /portfolio/orders/{order_id}/queue_position": NO_MODEL,
    "GET /portfolio/positions": "PositionsResponse",
    "GET /portfolio/summary/total_resting_order_value": "TotalRestingOrderValue",
    "GET /series": "series[] Series",
    "GET /series/{series_ticker}": "series Series",
}
"""Of each operation: where in the answer it is, unless it is the whole, and the model; ``[]`` is each of a list."""


def kalshi_sdk_model(name: str, *, perps: bool) -> type[BaseModel]:
    """Return a model of kalshi-sdk; perpetuals have their own, except where they borrow one."""
    own = import_module("kalshi.perps.models") if perps else None
    found: type[BaseModel] = getattr(own, name, None) or getattr(import_module("kalshi.models"), name)
    return found


@cache
def _generated() -> dict[tuple[str, str], _Answers]:
    """Read out of kalshi-python-sync's code which model it has for each operation and status."""
    found: dict[tuple[str, str], _Answers] = {}
    for tree in trees("kalshi_python_sync", "api"):
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            if function.name.endswith("_serialize"):
                said = _keywords(function)
                route = (said["method"], bare(said["resource_path"]))
                found[route] = _answers(tree, function.name[1:].removesuffix("_serialize"))
    return found


def _keywords(function: ast.FunctionDef) -> dict[str, Any]:
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    return {
        keyword.arg: keyword.value.value
        for call in calls
        for keyword in call.keywords
        if keyword.arg is not None and isinstance(keyword.value, ast.Constant)
    }


def _answers(tree: ast.Module, name: str) -> _Answers:
    function = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
    statement = next(node for node in ast.walk(function) if isinstance(node, ast.AnnAssign))
    assert statement.value is not None
    answers: _Answers = ast.literal_eval(statement.value)
    return answers


def documented_statuses(method: str, path: str) -> set[int] | None:
    """Return the statuses that Kalshi's document has for an operation; None if kalshi-python-sync doesn't know it."""
    answers = _generated().get((method, bare(path)))
    return None if answers is None else {int(status) for status in answers}


def generated_model(method: str, path: str, status: int) -> type[BaseModel] | None:
    """Return kalshi-python-sync's model of an answer; None if it has none."""
    name = _generated().get((method, bare(path)), {}).get(str(status))
    if name in {None, "object"}:
        return None
    found: type[BaseModel] = getattr(import_module("kalshi_python_sync.models"), str(name))
    return found
