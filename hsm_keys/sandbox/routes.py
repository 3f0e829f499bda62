"""What the sandbox serves: which function answers which of Kalshi's operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from hsm_keys.kalshi.operations import OPERATIONS, WEBSOCKETS, Operation
from hsm_keys.sandbox import account, api_keys, market_data, perpetuals, portfolio, rfqs
from hsm_keys.sandbox.groups import GroupDesk
from hsm_keys.sandbox.orders import Desk, gone
from hsm_keys.sandbox.wire import Call, SandboxAnswer

__all__ = ["HANDLERS", "SERVED", "is_premier", "manages_keys"]

Handler: TypeAlias = Callable[[Call], Awaitable[SandboxAnswer]]

_EVENTS: Final = Desk(perps=False)
_MARGIN: Final = Desk(perps=True)
_QUOTES: Final = ("/communications/quotes", "/communications/rfqs/{rfq_id}/quotes")


def _group_routes(below: str, desk: GroupDesk) -> dict[str, Handler]:
    return {
        f"GET {below}": desk.list_all,
        f"POST {below}/create": desk.create,
        f"GET {below}/{{order_group_id}}": desk.show,
        f"DELETE {below}/{{order_group_id}}": desk.delete,
        f"PUT {below}/{{order_group_id}}/limit": desk.limit,
        f"PUT {below}/{{order_group_id}}/reset": desk.reset,
        f"PUT {below}/{{order_group_id}}/trigger": desk.trigger,
    }


HANDLERS: Final[Mapping[str, Handler]] = {
    "GET /account/endpoint_costs": account.endpoint_costs,
    "GET /account/limits": account.limits,
    "GET /account/limits/perps": account.limits,
    "GET /api_keys": api_keys.list_keys,
    "POST /api_keys": api_keys.create_key,
    "POST /api_keys/generate": api_keys.generate_key,
    "DELETE /api_keys/{api_key}": api_keys.delete_key,
    "GET /communications/id": rfqs.communications_id,
    "GET /communications/rfqs": rfqs.rfqs,
    "POST /communications/rfqs": rfqs.create_rfq,
    "GET /communications/rfqs/{rfq_id}": rfqs.rfq,
    "DELETE /communications/rfqs/{rfq_id}": rfqs.delete_rfq,
    "GET /communications/quotes": rfqs.quotes,
    "POST /communications/quotes": rfqs.create_quote,
    **{f"GET {below}/{{quote_id}}": rfqs.quote for below in _QUOTES},
    **{f"DELETE {below}/{{quote_id}}": rfqs.delete_quote for below in _QUOTES},
    **{f"PUT {below}/{{quote_id}}/accept": rfqs.accept_quote for below in _QUOTES},
    **{f"PUT {below}/{{quote_id}}/confirm": rfqs.confirm_quote for below in _QUOTES},
    "GET /events": market_data.events,
    "GET /events/{event_ticker}": market_data.event,
    "GET /exchange/schedule": market_data.exchange_schedule,
    "GET /exchange/status": market_data.exchange_status,
    "GET /exchange/user_data_timestamp": market_data.user_data_timestamp,
    "GET /margin/balance": portfolio.margin_balance,
    "GET /margin/enabled": perpetuals.enabled,
    "GET /margin/exchange/status": perpetuals.status,
    "GET /margin/fills": portfolio.margin_fills,
    "GET /margin/markets": perpetuals.markets,
    "GET /margin/markets/orderbooks": perpetuals.orderbooks,
    "GET /margin/markets/{ticker}": perpetuals.market,
    "GET /margin/markets/{ticker}/orderbook": perpetuals.orderbook,
    "GET /margin/orders": portfolio.margin_orders,
    "POST /margin/orders": _MARGIN.create,
    "DELETE /margin/orders": _MARGIN.cancel_all,
    "GET /margin/orders/{order_id}": portfolio.margin_order,
    "DELETE /margin/orders/{order_id}": _MARGIN.cancel,
    "POST /margin/orders/{order_id}/amend": _MARGIN.amend,
    "POST /margin/orders/{order_id}/decrease": _MARGIN.decrease,
    "GET /margin/positions": portfolio.margin_positions,
    "GET /margin/trades": perpetuals.trades,
    "GET /markets": market_data.markets,
    "GET /markets/orderbooks": market_data.orderbooks,
    "GET /markets/trades": market_data.trades,
    "GET /markets/{ticker}": market_data.market,
    "GET /markets/{ticker}/orderbook": market_data.orderbook,
    "GET /portfolio/balance": portfolio.balance,
    "POST /portfolio/events/orders": _EVENTS.create,
    "DELETE /portfolio/events/orders": _EVENTS.cancel_all,
    "POST /portfolio/events/orders/batched": _EVENTS.create_batch,
    "DELETE /portfolio/events/orders/batched": _EVENTS.cancel_batch,
    "DELETE /portfolio/events/orders/{order_id}": _EVENTS.cancel,
    "POST /portfolio/events/orders/{order_id}/amend": _EVENTS.amend,
    "POST /portfolio/events/orders/{order_id}/decrease": _EVENTS.decrease,
    "GET /portfolio/fills": portfolio.fills,
    "GET /portfolio/orders": portfolio.orders,
    "GET /portfolio/orders/queue_positions": portfolio.queue_positions,
    "GET /portfolio/orders/{order_id}": portfolio.order,
    "GET /portfolio/orders/{order_id}/queue_position": portfolio.queue_position,
    "GET /portfolio/positions": portfolio.positions,
    "GET /portfolio/summary/total_resting_order_value": portfolio.resting_value,
    "GET /series": market_data.series_list,
    "GET /series/{series_ticker}": market_data.series,
    **_group_routes("/portfolio/order_groups", GroupDesk(perps=False)),
    **_group_routes("/margin/order_groups", GroupDesk(perps=True)),
    **{operation.name: gone for operation in OPERATIONS if operation.instead is not None},
}
"""By method and path template."""

SERVED: Final[tuple[Operation, ...]] = tuple(
    operation for operation in (*OPERATIONS, *WEBSOCKETS) if operation.name in HANDLERS or operation in WEBSOCKETS
)
"""The operations that the sandbox serves, in the order of Kalshi's list."""


def manages_keys(operation: Operation) -> bool:
    """Tell whether it manages API keys: a key that is restricted to a subaccount can't."""
    return operation.path.startswith("/api_keys")


def is_premier(operation: Operation) -> bool:
    """Tell whether it needs the usage level Premier."""
    return operation.name == "POST /api_keys"
