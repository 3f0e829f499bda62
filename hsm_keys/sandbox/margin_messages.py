"""What the WebSocket of perpetuals says: bids and asks in place of YES and NO, and times in milliseconds alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsm_keys.sandbox.fixed_point import count_text, money_text, price_text
from hsm_keys.sandbox.market_data import pairs
from hsm_keys.sandbox.perpetuals import sides

if TYPE_CHECKING:
    from hsm_keys.sandbox.markets import Market
    from hsm_keys.sandbox.matching import Book, Fill, LevelChange, Order, Position

__all__ = ["delta", "fill", "snapshot", "ticker", "trade", "user_order"]


def snapshot(market: Market, book: Book) -> dict[str, Any]:
    """Return a whole order book."""
    bids, asks = sides(market, book)
    return {"market_ticker": market.ticker, "bid": pairs(bids), "ask": pairs(asks)}


def delta(change: LevelChange, *, own: bool) -> dict[str, Any]:
    """Return a change of an order book at one price, and by which order, if that is one's own."""
    order = change.order
    return {
        "market_ticker": order.market.ticker,
        "price": price_text(change.price),
        "delta": count_text(change.delta),
        "side": order.side,
        "ts_ms": order.updated_ms,
    } | ({"client_order_id": order.client_order_id, "subaccount": order.subaccount} if own else {})


def ticker(market: Market, book: Book, now_ms: int) -> dict[str, Any]:
    """Return what is offered at best, and what was traded."""
    bids, asks = sides(market, book)
    fills = [fill for fill in book.fills if fill.order.market == market]
    volume = count_text(sum(fill.count for fill in fills))
    money = money_text(sum(fill.count * fill.price for fill in fills))
    return {
        "market_ticker": market.ticker,
        "price": price_text(fills[-1].price if fills else market.bid),
        "bid": price_text(max(bids)),
        "ask": price_text(min(asks)),
        "bid_size_fp": count_text(bids[max(bids)]),
        "ask_size_fp": count_text(asks[min(asks)]),
        "last_trade_size_fp": count_text(fills[-1].count if fills else 0),
        "volume": volume,
        "volume_24h": volume,
        "open_interest": volume,
        "volume_notional_value_dollars": money,
        "volume_24h_notional_value_dollars": money,
        "open_interest_notional_value_dollars": money,
        "ts_ms": now_ms,
    }


def user_order(order: Order, user_id: str) -> dict[str, Any]:
    """Return an order of the account, as it is now."""
    shown: dict[str, Any] = {
        "order_id": order.order_id,
        "user_id": user_id,
        "client_order_id": order.client_order_id,
        "ticker": order.market.ticker,
        "side": order.side,
        "price": price_text(order.price),
        "fill_count": count_text(order.filled),
        "remaining_count": count_text(order.remaining),
        "created_ts_ms": order.created_ms,
        "last_updated_ts_ms": order.updated_ms,
        "order_source": "user",
        "self_trade_prevention_type": order.self_trade_prevention,
        "subaccount_number": order.subaccount,
    }
    if order.expires_s is not None:
        shown["expiration_ts_ms"] = order.expires_s * 1000
    return shown | ({"order_group_id": order.group} if order.group is not None else {})


def fill(fill: Fill, held: Position) -> dict[str, Any]:
    """Return a fill of the account, and what it holds since."""
    order = fill.order
    return {
        "trade_id": fill.fill_id,
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "market_ticker": order.market.ticker,
        "is_taker": True,
        "side": order.side,
        "price": price_text(fill.price),
        "count": count_text(fill.count),
        "fee_cost": money_text(fill.fee),
        "post_position": count_text(held.count),
        "order_source": "user",
        "subaccount": order.subaccount,
        "ts_ms": fill.ms,
    }


def trade(fill: Fill) -> dict[str, Any]:
    """Return a trade, as anybody sees it."""
    return {
        "trade_id": fill.fill_id,
        "market_ticker": fill.order.market.ticker,
        "price": price_text(fill.price),
        "count": count_text(fill.count),
        "taker_side": fill.order.side,
        "ts_ms": fill.ms,
    }
