"""What the account has: balance, orders, fills, positions; of events, and of perpetuals below ``/margin``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsm_keys.sandbox.fixed_point import count_text, money_text, price_text
from hsm_keys.sandbox.markets import MARKETS, PERPS
from hsm_keys.sandbox.matching import START_MONEY
from hsm_keys.sandbox.paging import page_of
from hsm_keys.sandbox.queries import choice, names, wanted
from hsm_keys.sandbox.shapes import (
    event_position_json,
    fill_json,
    margin_fill_json,
    margin_order_json,
    order_json,
    position_json,
)
from hsm_keys.sandbox.wire import Call, SandboxAnswer, flat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.sandbox.matching import Book, Fill, Order, Position
    from hsm_keys.sandbox.queries import Selection

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
_COUNT_FILTERS = frozenset({"position", "total_traded"})
_CENT = 10_000  # in 1/1,000,000 dollar


async def balance(call: Call) -> SandboxAnswer:
    """``GET /portfolio/balance``, in cents and in dollars: of the primary subaccount unless one is named."""
    subaccount, book = wanted(call).subaccount or 0, call.state.book
    money = book.money_of(subaccount)
    held = sum(position.cost for (owner, _), position in book.positions.items() if owner == subaccount)
    return SandboxAnswer(
        200,
        {
            "balance": money // _CENT,
            "balance_dollars": money_text(money),
            "portfolio_value": held // _CENT,
            "updated_ts": call.now_ms // 1000,
        },
    )


def _listed(call: Call, book: Book, which: Selection) -> list[tuple[int, Order]]:
    """Return the orders that are asked for, each with its place."""
    book.expire(call.now_ms)
    status = choice(call.query, "status", _STATUSES)
    return [
        (kept.position, kept)
        for kept in book.orders.values()
        if status in {None, kept.status} and which.takes(kept.market, kept.subaccount, kept.created_ms)
    ]


def _page(call: Call, name: str, listed: Sequence[tuple[int, Any]]) -> SandboxAnswer:
    page, cursor = page_of(listed, call.query)
    return SandboxAnswer(200, {name: None if call.state.null_lists and not page else page, "cursor": cursor})


async def orders(call: Call) -> SandboxAnswer:
    """``GET /portfolio/orders``, page by page."""
    listed = _listed(call, call.state.book, wanted(call))
    return _page(call, "orders", [(place, order_json(kept, call.state.user_id)) for place, kept in listed])


def _found(call: Call, book: Book) -> Order:
    book.expire(call.now_ms)
    order = book.orders.get(call.path["order_id"])
    if order is None or wanted(call).subaccount not in {None, order.subaccount}:
        raise flat(404, "not_found", "order not found")
    return order


async def order(call: Call) -> SandboxAnswer:
    """``GET /portfolio/orders/{order_id}``."""
    return SandboxAnswer(200, {"order": order_json(_found(call, call.state.book), call.state.user_id)})


async def queue_position(call: Call) -> SandboxAnswer:
    """``GET /portfolio/orders/{order_id}/queue_position``: nobody else is in the queue."""
    _found(call, call.state.book)
    return SandboxAnswer(200, {"queue_position_fp": count_text(0)})


async def queue_positions(call: Call) -> SandboxAnswer:
    """``GET /portfolio/orders/queue_positions``."""
    listed = _listed(call, call.state.book, wanted(call, tickers="market_tickers"))
    shown = [
        {"order_id": order.order_id, "market_ticker": order.market.ticker, "queue_position_fp": count_text(0)}
        for _, order in listed
        if order.status == "resting"
    ]
    return SandboxAnswer(200, {"queue_positions": shown})


def _fills(call: Call, book: Book) -> list[tuple[int, Fill]]:
    """Return the fills that are asked for, each with its place."""
    which, order_id = wanted(call), call.query.get("order_id") or None
    return [
        (place, fill)
        for place, fill in enumerate(book.fills)
        if order_id in {None, fill.order.order_id} and which.takes(fill.order.market, fill.order.subaccount, fill.ms)
    ]


async def fills(call: Call) -> SandboxAnswer:
    """``GET /portfolio/fills``, page by page."""
    return _page(call, "fills", [(place, fill_json(fill)) for place, fill in _fills(call, call.state.book)])


async def positions(call: Call) -> SandboxAnswer:
    """``GET /portfolio/positions``, page by page: by market and event, of the primary subaccount unless one is named.

    No market of the sandbox settles.
    """
    which, filters = wanted(call), names(call.query, "count_filter") or frozenset()
    if not filters <= _COUNT_FILTERS:
        raise flat(400, "invalid_parameters", f"count_filter must be of {', '.join(sorted(_COUNT_FILTERS))}")
    settled = choice(call.query, "settlement_status", ("all", "settled", "unsettled")) == "settled"
    listed = [
        (place, (MARKETS[ticker], position))
        for place, ((owner, ticker), position) in enumerate(call.state.book.positions.items())
        if not settled and owner == (which.subaccount or 0) and which.takes(MARKETS[ticker], owner)
        if not filters or ("position" in filters and position.count) or ("total_traded" in filters and position.traded)
    ]
    page, cursor = page_of(listed, call.query)
    events: dict[str, list[Position]] = {}
    for market, position in page:
        events.setdefault(market.event.ticker, []).append(position)
    return SandboxAnswer(
        200,
        {
            "market_positions": [position_json(market.ticker, market.shard, held) for market, held in page],
            "event_positions": [event_position_json(event, held) for event, held in events.items()],
            "cursor": cursor,
        },
    )


async def resting_value(call: Call) -> SandboxAnswer:
    """``GET /portfolio/summary/total_resting_order_value``, in cents."""
    value = sum(order.locked for order in call.state.book.orders.values()) // _CENT
    return SandboxAnswer(
        200,
        {
            "total_resting_order_value": value,
            "resting_order_value_breakdown": [{"exchange_index": 0, "balance": money_text(value * _CENT)}],
        },
    )


async def margin_orders(call: Call) -> SandboxAnswer:
    """``GET /margin/orders``, page by page."""
    listed = _listed(call, call.state.margin, wanted(call))
    return _page(call, "orders", [(place, margin_order_json(order, call.state.user_id)) for place, order in listed])


async def margin_order(call: Call) -> SandboxAnswer:
    """``GET /margin/orders/{order_id}``."""
    return SandboxAnswer(200, {"order": margin_order_json(_found(call, call.state.margin), call.state.user_id)})


async def margin_fills(call: Call) -> SandboxAnswer:
    """``GET /margin/fills``, page by page."""
    return _page(call, "fills", [(place, margin_fill_json(fill)) for place, fill in _fills(call, call.state.margin)])


async def margin_positions(call: Call) -> SandboxAnswer:
    """``GET /margin/positions``."""
    which = wanted(call)
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
        if which.takes(PERPS[ticker], subaccount)
    ]
    return SandboxAnswer(200, {"positions": shown})


async def margin_balance(call: Call) -> SandboxAnswer:
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
    return SandboxAnswer(200, {"subaccount_balances": [shown], "settled_funds": money_text(money)})
