"""What the account has: balance, orders, fills, positions; of events, and of perpetuals below ``/margin``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsm_keys.sandbox.fixed_point import count_text, money_text, price_text
from hsm_keys.sandbox.markets import MARKETS, PERPS
from hsm_keys.sandbox.matching import START_MONEY
from hsm_keys.sandbox.paging import page_of
from hsm_keys.sandbox.shapes import fill_json, margin_order_json, order_json, position_json
from hsm_keys.sandbox.subaccounts import asked_subaccount, subaccount_of
from hsm_keys.sandbox.wire import Answer, Call, flat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.sandbox.matching import Book, Order

__all__ = [
    "balance",
    "fills",
    "margin_balance",
    "margin_fills",
    "margin_order",
    "margin_orders",
    "margin_positions",
    "order",
    "orders",
    "positions",
    "queue_position",
    "queue_positions",
    "resting_value",
]

_STATUSES = ("resting", "canceled", "executed")
_CENT = 10_000  # in 1/1,000,000 dollar


def _only(call: Call) -> int | None:
    return subaccount_of(call, asked_subaccount(call))


async def balance(call: Call) -> Answer:
    """``GET /portfolio/balance``, in cents and in dollars."""
    money = call.state.book.money_of(_only(call) or 0)
    held = sum(position.cost for position in call.state.book.positions.values())
    return Answer(
        200,
        {
            "balance": money // _CENT,
            "balance_dollars": money_text(money),
            "portfolio_value": held // _CENT,
            "updated_ts": call.now_ms // 1000,
        },
    )


def _listed(call: Call, book: Book) -> list[tuple[int, Order]]:
    """Return the orders that the query asks for, each with its place."""
    book.expire(call.now_ms)
    status = call.query.get("status")
    if status is not None and status not in _STATUSES:
        raise flat(400, "invalid_parameters", f"status must be {', '.join(_STATUSES)}")
    ticker, only = call.query.get("ticker"), _only(call)
    return [
        (kept.position, kept)
        for kept in book.orders.values()
        if status in {None, kept.status} and ticker in {None, kept.market.ticker} and only in {None, kept.subaccount}
    ]


def _page(call: Call, name: str, listed: Sequence[tuple[int, Any]]) -> Answer:
    page, cursor = page_of(listed, call.query)
    return Answer(200, {name: None if call.state.null_lists and not page else page, "cursor": cursor})


async def orders(call: Call) -> Answer:
    """``GET /portfolio/orders``, page by page."""
    listed = _listed(call, call.state.book)
    return _page(call, "orders", [(place, order_json(kept, call.state.user_id)) for place, kept in listed])


def _found(call: Call, book: Book) -> Order:
    book.expire(call.now_ms)
    kept = book.orders.get(call.path["order_id"])
    if kept is None or _only(call) not in {None, kept.subaccount}:
        raise flat(404, "not_found", "order not found")
    return kept


async def order(call: Call) -> Answer:
    """``GET /portfolio/orders/{order_id}``."""
    return Answer(200, {"order": order_json(_found(call, call.state.book), call.state.user_id)})


async def queue_position(call: Call) -> Answer:
    """``GET /portfolio/orders/{order_id}/queue_position``: nobody else is in the queue."""
    _found(call, call.state.book)
    return Answer(200, {"queue_position_fp": count_text(0)})


async def queue_positions(call: Call) -> Answer:
    """``GET /portfolio/orders/queue_positions``."""
    shown = [
        {"order_id": kept.order_id, "market_ticker": kept.market.ticker, "queue_position_fp": count_text(0)}
        for _, kept in _listed(call, call.state.book)
        if kept.status == "resting"
    ]
    return Answer(200, {"queue_positions": shown})


async def fills(call: Call) -> Answer:
    """``GET /portfolio/fills``, page by page."""
    ticker, order_id, only = call.query.get("ticker"), call.query.get("order_id"), _only(call)
    listed = [
        (place, fill_json(fill))
        for place, fill in enumerate(call.state.book.fills)
        if ticker in {None, fill.order.market.ticker}
        and order_id in {None, fill.order.order_id}
        and only in {None, fill.order.subaccount}
    ]
    return _page(call, "fills", listed)


async def positions(call: Call) -> Answer:
    """``GET /portfolio/positions``: by market and by event."""
    only, ticker = _only(call), call.query.get("ticker")
    markets: list[dict[str, Any]] = []
    events: dict[str, list[Any]] = {}
    for (subaccount, name), position in call.state.book.positions.items():
        if only in {None, subaccount} and ticker in {None, name}:
            markets.append(position_json(name, MARKETS[name].shard, position))
            events.setdefault(MARKETS[name].event.ticker, []).append(position)
    by_event = [
        {
            "event_ticker": event,
            "total_cost_dollars": money_text(sum(held.traded for held in all_held)),
            "total_cost_shares_fp": count_text(sum(abs(held.count) for held in all_held)),
            "event_exposure_dollars": money_text(sum(held.cost for held in all_held)),
            "realized_pnl_dollars": money_text(sum(held.realized for held in all_held)),
            "fees_paid_dollars": money_text(sum(held.fees for held in all_held)),
        }
        for event, all_held in events.items()
    ]
    return Answer(200, {"market_positions": markets, "event_positions": by_event, "cursor": ""})


async def resting_value(call: Call) -> Answer:
    """``GET /portfolio/summary/total_resting_order_value``, in cents."""
    value = sum(kept.locked for kept in call.state.book.orders.values()) // _CENT
    return Answer(
        200,
        {
            "total_resting_order_value": value,
            "resting_order_value_breakdown": [{"exchange_index": 0, "balance": money_text(value * _CENT)}],
        },
    )


async def margin_orders(call: Call) -> Answer:
    """``GET /margin/orders``, page by page."""
    listed = _listed(call, call.state.margin)
    return _page(call, "orders", [(place, margin_order_json(kept, call.state.user_id)) for place, kept in listed])


async def margin_order(call: Call) -> Answer:
    """``GET /margin/orders/{order_id}``."""
    return Answer(200, {"order": margin_order_json(_found(call, call.state.margin), call.state.user_id)})


async def margin_fills(call: Call) -> Answer:
    """``GET /margin/fills``, page by page."""
    listed = []
    for place, fill in enumerate(call.state.margin.fills):
        shown = fill_json(fill)
        kept = {name: shown[name] for name in ("fill_id", "order_id", "is_taker", "ticker", "created_time")}
        price = price_text(fill.price)
        more = {"side": fill.order.side, "count": count_text(fill.count), "price": price, "entry_price": price}
        listed.append((place, kept | more | {"fees": money_text(fill.fee), "realized_pnl": money_text(0)}))
    return _page(call, "fills", listed)


async def margin_positions(call: Call) -> Answer:
    """``GET /margin/positions``."""
    shown = [
        {
            "subaccount": subaccount,
            "market_ticker": ticker,
            "position": count_text(position.count),
            "entry_price": price_text(PERPS[ticker].ask if position.count > 0 else PERPS[ticker].bid),
            "unrealized_pnl": money_text(0),
            "margin_used": money_text(position.cost),
            "fees": money_text(position.fees),
            "roe": 0 if position.cost else None,
            "is_portfolio": False,
        }
        for (subaccount, ticker), position in call.state.margin.positions.items()
    ]
    return Answer(200, {"positions": shown})


async def margin_balance(call: Call) -> Answer:
    """``GET /margin/balance``."""
    money = call.state.margin.money_of(0)
    zero = money_text(0)
    shown = {
        "subaccount": 0,
        "position_value": zero,
        "account_equity": money_text(call.state.margin.money.get(0, START_MONEY)),
        "maintenance_margin": zero,
        "initial_margin": zero,
        "resting_orders_margin": zero,
        "available_balance": money_text(money),
    }
    return Answer(200, {"subaccount_balances": [shown], "settled_funds": money_text(money)})
