"""Orders, fills and positions in the shapes of Kalshi's answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hsm_keys.sandbox.fixed_point import ONE_DOLLAR, count_text, money_text, price_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.sandbox.matching import Fill, Order, Position

__all__ = [
    "event_position_json",
    "fill_json",
    "iso",
    "margin_fill_json",
    "margin_order_json",
    "order_json",
    "position_json",
    "summary",
]


def iso(moment_ms: int) -> str:
    """Return a moment as RFC 3339, in UTC."""
    return datetime.fromtimestamp(moment_ms / 1000, tz=UTC).isoformat().replace("+00:00", "Z")


def summary(order: Order) -> dict[str, Any]:
    """Return what writes answer with: CreateOrderV2Response and its like."""
    answer: dict[str, Any] = {
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "fill_count": count_text(order.filled),
        "remaining_count": count_text(order.remaining),
        "ts_ms": order.updated_ms,
    }
    if order.filled:
        own = order.fill_cost // order.filled
        answer["average_fill_price"] = price_text(own if order.side == "bid" else ONE_DOLLAR - own)
        answer["average_fee_paid"] = money_text(order.fees * 100 // order.filled)
    return answer


def order_json(order: Order, user_id: str) -> dict[str, Any]:
    """Return an Order."""
    bid = order.side == "bid"
    shown: dict[str, Any] = {
        "order_id": order.order_id,
        "user_id": user_id,
        "client_order_id": order.client_order_id,
        "ticker": order.market.ticker,
        "side": "yes" if bid else "no",
        "action": "buy",
        "outcome_side": "yes" if bid else "no",
        "book_side": order.side,
        "type": "limit",
        "status": order.status,
        "yes_price_dollars": price_text(order.price),
        "no_price_dollars": price_text(ONE_DOLLAR - order.price),
        "fill_count_fp": count_text(order.filled),
        "remaining_count_fp": count_text(order.remaining),
        "initial_count_fp": count_text(order.initial),
        "taker_fill_cost_dollars": money_text(order.fill_cost),
        "maker_fill_cost_dollars": money_text(0),
        "taker_fees_dollars": money_text(order.fees),
        "maker_fees_dollars": money_text(0),
        "created_time": iso(order.created_ms),
        "last_update_time": iso(order.updated_ms),
        "self_trade_prevention_type": order.self_trade_prevention,
        "cancel_order_on_pause": order.cancel_on_pause,
        "subaccount_number": order.subaccount,
        "exchange_index": order.market.shard,
    }
    if order.expires_s is not None:
        shown["expiration_time"] = iso(order.expires_s * 1000)
    if order.group is not None:
        shown["order_group_id"] = order.group
    return shown


def margin_order_json(order: Order, user_id: str) -> dict[str, Any]:
    """Return a MarginOrder, as kalshi-sdk's perps client reads it."""
    reasons = {"resting": "", "canceled": "MarginCancel", "executed": "Trade"}
    shown = {
        "order_id": order.order_id,
        "user_id": user_id,
        "client_order_id": order.client_order_id,
        "ticker": order.market.ticker,
        "side": order.side,
        "last_update_reason": reasons[order.status],
        "price": price_text(order.price),
        "fill_count": count_text(order.filled),
        "remaining_count": count_text(order.remaining),
        "created_time": iso(order.created_ms),
        "last_update_time": iso(order.updated_ms),
        "self_trade_prevention_type": order.self_trade_prevention,
        "cancel_order_on_pause": order.cancel_on_pause,
    }
    return shown | ({"order_group_id": order.group} if order.group is not None else {})


def fill_json(fill: Fill) -> dict[str, Any]:
    """Return a Fill."""
    order = fill.order
    bid = order.side == "bid"
    return {
        "fill_id": fill.fill_id,
        "trade_id": fill.fill_id,
        "order_id": order.order_id,
        "ticker": order.market.ticker,
        "market_ticker": order.market.ticker,
        "side": "yes" if bid else "no",
        "action": "buy",
        "outcome_side": "yes" if bid else "no",
        "book_side": order.side,
        "count_fp": count_text(fill.count),
        "yes_price_dollars": price_text(fill.price),
        "no_price_dollars": price_text(ONE_DOLLAR - fill.price),
        "is_taker": True,
        "fee_cost": money_text(fill.fee),
        "created_time": iso(fill.ms),
        "ts": fill.ms // 1000,
        "subaccount_number": order.subaccount,
        "exchange_index": order.market.shard,
    }


def position_json(ticker: str, shard: int, position: Position) -> dict[str, Any]:
    """Return a MarketPosition."""
    return {
        "ticker": ticker,
        "exchange_index": shard,
        "total_traded_dollars": money_text(position.traded),
        "position_fp": count_text(position.count),
        "market_exposure_dollars": money_text(position.cost),
        "realized_pnl_dollars": money_text(position.realized),
        "fees_paid_dollars": money_text(position.fees),
        "last_updated_ts": iso(position.updated_ms),
    }


def event_position_json(event: str, held: Sequence[Position]) -> dict[str, Any]:
    """Return an EventPosition: the sum of those in an event's markets."""
    return {
        "event_ticker": event,
        "total_cost_dollars": money_text(sum(position.traded for position in held)),
        "total_cost_shares_fp": count_text(sum(abs(position.count) for position in held)),
        "event_exposure_dollars": money_text(sum(position.cost for position in held)),
        "realized_pnl_dollars": money_text(sum(position.realized for position in held)),
        "fees_paid_dollars": money_text(sum(position.fees for position in held)),
    }


def margin_fill_json(fill: Fill) -> dict[str, Any]:
    """Return a MarginFill, as kalshi-sdk's perps client reads it."""
    price = price_text(fill.price)
    return {
        "fill_id": fill.fill_id,
        "order_id": fill.order.order_id,
        "is_taker": True,
        "ticker": fill.order.market.ticker,
        "created_time": iso(fill.ms),
        "side": fill.order.side,
        "count": count_text(fill.count),
        "price": price,
        "entry_price": price,
        "fees": money_text(fill.fee),
        "realized_pnl": money_text(0),
    }
