"""What the WebSocket of events says, in the shapes of Kalshi's AsyncAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsm_keys.sandbox.fixed_point import ONE_DOLLAR, count_text, money_text, price_text
from hsm_keys.sandbox.market_data import book_levels, pairs
from hsm_keys.sandbox.shapes import iso, order_json

if TYPE_CHECKING:
    from hsm_keys.sandbox.markets import Market
    from hsm_keys.sandbox.matching import Book, Fill, LevelChange, Order, Position

__all__ = ["delta", "fill", "position", "snapshot", "ticker", "trade", "user_order"]


def snapshot(market: Market, book: Book) -> dict[str, Any]:
    """Return a whole order book."""
    yes, no = book_levels(market, book)
    return {
        "market_ticker": market.ticker,
        "market_id": market.market_id,
        "yes_dollars_fp": pairs(yes),
        "no_dollars_fp": pairs(no),
    }


def delta(change: LevelChange, *, own: bool) -> dict[str, Any]:
    """Return a change of an order book at one price, and by which order, if that is one's own."""
    order = change.order
    bid = order.side == "bid"
    return {
        "market_ticker": order.market.ticker,
        "market_id": order.market.market_id,
        "price_dollars": price_text(change.price if bid else ONE_DOLLAR - change.price),
        "delta_fp": count_text(change.delta),
        "side": "yes" if bid else "no",
        "ts": iso(order.updated_ms),
        "ts_ms": order.updated_ms,
    } | ({"client_order_id": order.client_order_id, "subaccount": order.subaccount} if own else {})


def ticker(market: Market, book: Book, now_ms: int) -> dict[str, Any]:
    """Return what is offered at best, and what was traded."""
    yes, no = book_levels(market, book)
    bid, no_bid = max(yes), max(no)
    fills = [fill for fill in book.fills if fill.order.market == market]
    volume = sum(fill.count for fill in fills)
    money = sum(fill.count * fill.price for fill in fills)
    return {
        "market_ticker": market.ticker,
        "market_id": market.market_id,
        "price_dollars": price_text(fills[-1].price if fills else market.bid),
        "yes_bid_dollars": price_text(bid),
        "yes_ask_dollars": price_text(ONE_DOLLAR - no_bid),
        "no_bid_dollars": price_text(no_bid),
        "no_ask_dollars": price_text(ONE_DOLLAR - bid),
        "yes_bid_size_fp": count_text(yes[bid]),
        "yes_ask_size_fp": count_text(no[no_bid]),
        "last_trade_size_fp": count_text(fills[-1].count if fills else 0),
        "volume_fp": count_text(volume),
        "open_interest_fp": count_text(volume),
        "dollar_volume": money // 1_000_000,
        "dollar_open_interest": money // 1_000_000,
        "ts": now_ms // 1000,
        "ts_ms": now_ms,
    }


def _sides(order: Order) -> dict[str, Any]:
    side = "yes" if order.side == "bid" else "no"
    return {"side": side, "outcome_side": side, "book_side": order.side}


def user_order(order: Order, user_id: str) -> dict[str, Any]:
    """Return an order of the account, as it is now."""
    dropped = ("action", "type", "no_price_dollars", "cancel_order_on_pause")
    shown = {name: value for name, value in order_json(order, user_id).items() if name not in dropped}
    if order.expires_s is not None:
        shown["expiration_ts_ms"] = order.expires_s * 1000
    return shown | {
        "is_yes": order.side == "bid",
        "created_ts_ms": order.created_ms,
        "last_updated_ts_ms": order.updated_ms,
    }


def fill(fill: Fill, held: Position) -> dict[str, Any]:
    """Return a fill of the account, and what it holds since."""
    order = fill.order
    return {
        **_sides(order),
        "trade_id": fill.fill_id,
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "market_ticker": order.market.ticker,
        "is_taker": True,
        "yes_price_dollars": price_text(fill.price),
        "count_fp": count_text(fill.count),
        "fee_cost": money_text(fill.fee),
        "action": "buy",
        "purchased_side": "yes" if order.side == "bid" else "no",
        "post_position_fp": count_text(held.count),
        "subaccount": order.subaccount,
        "exchange_index": order.market.shard,
        "ts": fill.ms // 1000,
        "ts_ms": fill.ms,
    }


def trade(fill: Fill) -> dict[str, Any]:
    """Return a trade, as anybody sees it."""
    side = "yes" if fill.order.side == "bid" else "no"
    return {
        "trade_id": fill.fill_id,
        "market_ticker": fill.order.market.ticker,
        "yes_price_dollars": price_text(fill.price),
        "no_price_dollars": price_text(ONE_DOLLAR - fill.price),
        "count_fp": count_text(fill.count),
        "taker_side": side,
        "taker_outcome_side": side,
        "taker_book_side": fill.order.side,
        "is_block_trade": False,
        "ts": fill.ms // 1000,
        "ts_ms": fill.ms,
    }


def position(fill: Fill, held: Position, user_id: str) -> dict[str, Any]:
    """Return what the account holds in a market since a fill."""
    return {
        "user_id": user_id,
        "market_ticker": fill.order.market.ticker,
        "position_fp": count_text(held.count),
        "position_cost_dollars": money_text(held.cost),
        "realized_pnl_dollars": money_text(held.realized),
        "fees_paid_dollars": money_text(held.fees),
        "position_fee_cost_dollars": money_text(held.fees),
        "volume_fp": count_text(fill.count),
        "subaccount": fill.order.subaccount,
    }
