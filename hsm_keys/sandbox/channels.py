"""What the WebSockets' channels tell: snapshots at the start, then what happens to the account's orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.sandbox.fixed_point import ONE_DOLLAR, count_text, money_text, price_text
from hsm_keys.sandbox.market_data import book_levels, pairs
from hsm_keys.sandbox.markets import DEPTH, MARKETS, PERPS
from hsm_keys.sandbox.matching import Fill, Order, Position
from hsm_keys.sandbox.shapes import order_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.sandbox.markets import Market
    from hsm_keys.sandbox.state import SandboxState

__all__ = ["CHANNELS", "Subscription", "messages", "snapshots"]

CHANNELS: Final = frozenset(
    {
        "orderbook_delta",
        "ticker",
        "trade",
        "fill",
        "market_positions",
        "market_lifecycle_v2",
        "multivariate_market_lifecycle",
        "multivariate",
        "communications",
        "order_group_updates",
        "user_orders",
        "cfbenchmarks_value",
        "cfbenchmarks_value_5hz",
    }
)
"""Those that Kalshi has; of some nothing is ever told here."""

_MARKET_ID: Final = "00000000-0000-4000-8000-000000000000"


@dataclass(slots=True)
class Subscription:
    """What a session wants to be told.

    Args:
        channel: The channel's name.
        sid: The subscription's number.
        tickers: The markets it is about; none is all of them.
        perps: Whether those are perpetuals.
        seq: The number of the last message.
    """

    channel: str
    sid: int
    tickers: set[str]
    perps: bool
    seq: int = 0

    def next_seq(self) -> int:
        """Return the number of the next message."""
        self.seq += 1
        return self.seq

    def message(self, kind: str, msg: dict[str, Any]) -> dict[str, Any]:
        """Return a message of this subscription."""
        return {"type": kind, "sid": self.sid, "seq": self.next_seq(), "msg": msg}

    def wants(self, ticker: str) -> bool:
        """Tell whether it is about a market."""
        return not self.tickers or ticker in self.tickers


def snapshots(subscription: Subscription, state: SandboxState) -> Iterator[dict[str, Any]]:
    """Give what a subscription is told at once."""
    markets = PERPS if subscription.perps else MARKETS
    wanted = [market for market in markets.values() if subscription.wants(market.ticker)]
    if subscription.channel == "orderbook_delta":
        for market in wanted:
            yield subscription.message("orderbook_snapshot", _snapshot(market, state, perps=subscription.perps))
    elif subscription.channel == "ticker":
        for market in wanted:
            yield subscription.message("ticker", _ticker(market))


def _snapshot(market: Market, state: SandboxState, *, perps: bool) -> dict[str, Any]:
    yes, no = book_levels(market, state.margin if perps else state.book)
    levels = {"yes_dollars_fp": pairs(yes), "no_dollars_fp": pairs(no)}
    return {"market_ticker": market.ticker, "market_id": _MARKET_ID, **levels}


def _ticker(market: Market) -> dict[str, Any]:
    return {
        "market_ticker": market.ticker,
        "market_id": _MARKET_ID,
        "price_dollars": price_text(market.bid),
        "yes_bid_dollars": price_text(market.bid),
        "yes_ask_dollars": price_text(market.ask),
        "no_bid_dollars": price_text(ONE_DOLLAR - market.ask),
        "no_ask_dollars": price_text(ONE_DOLLAR - market.bid),
        "yes_bid_size_fp": count_text(DEPTH),
        "yes_ask_size_fp": count_text(DEPTH),
        "last_trade_size_fp": count_text(0),
        "volume_fp": count_text(0),
        "open_interest_fp": count_text(0),
        "dollar_volume": 0,
        "dollar_open_interest": 0,
        "ts": 1_700_000_000,
        "ts_ms": 1_700_000_000_000,
    }


def messages(subscription: Subscription, kind: str, subject: object, state: SandboxState) -> Iterator[dict[str, Any]]:
    """Give what a subscription is told of an order that changed, or of a fill."""
    if isinstance(subject, Order) and kind == "order" and subscription.wants(subject.market.ticker):
        if subscription.channel == "user_orders":
            yield subscription.message("user_order", _user_order(subject, state.user_id))
        elif subscription.channel == "orderbook_delta":
            yield subscription.message("orderbook_snapshot", _snapshot(subject.market, state, perps=subscription.perps))
    elif isinstance(subject, Fill) and kind == "fill" and subscription.wants(subject.order.market.ticker):
        if subscription.channel == "fill":
            yield subscription.message("fill", _fill(subject, _held(subject, state)))
        elif subscription.channel == "trade":
            yield subscription.message("trade", _trade(subject))
        elif subscription.channel == "market_positions":
            yield subscription.message("market_position", _position(subject, _held(subject, state), state.user_id))


def _held(fill: Fill, state: SandboxState) -> Position:
    key = (fill.order.subaccount, fill.order.market.ticker)
    return state.book.positions.get(key) or state.margin.positions.get(key) or Position()


def _user_order(order: Order, user_id: str) -> dict[str, Any]:
    dropped = ("action", "type", "no_price_dollars", "cancel_order_on_pause")
    shown = {name: value for name, value in order_json(order, user_id).items() if name not in dropped}
    return shown | {
        "is_yes": order.side == "bid",
        "created_ts_ms": order.created_ms,
        "last_updated_ts_ms": order.updated_ms,
    }


def _sides(order: Order) -> dict[str, Any]:
    side = "yes" if order.side == "bid" else "no"
    return {"side": side, "outcome_side": side, "book_side": order.side}


def _fill(fill: Fill, held: Position) -> dict[str, Any]:
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


def _trade(fill: Fill) -> dict[str, Any]:
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


def _position(fill: Fill, held: Position, user_id: str) -> dict[str, Any]:
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
