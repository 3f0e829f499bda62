"""What anybody may read of perpetuals: the exchange's status, markets, order books and trades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsm_keys.sandbox.fixed_point import ONE_DOLLAR, count_text, price_text
from hsm_keys.sandbox.market_data import book_levels, pairs
from hsm_keys.sandbox.markets import DEPTH, MARKET_VERSION, PERPS, Market
from hsm_keys.sandbox.paging import page_of
from hsm_keys.sandbox.queries import names, wanted
from hsm_keys.sandbox.shapes import iso
from hsm_keys.sandbox.wire import Call, SandboxAnswer, flat

if TYPE_CHECKING:
    from hsm_keys.sandbox.matching import Book

__all__ = ["enabled", "market", "markets", "orderbook", "orderbooks", "sides", "status", "trades"]


def _margin_json(market: Market) -> dict[str, Any]:
    return {
        "ticker": market.ticker,
        "title": market.event.title,
        "status": "active",
        "contract_size": "1.0000",
        "underlying_multiplier": "1",
        "tick_size": price_text(market.tick),
        "fractional_trading_enabled": True,
        "schedule": None,
        "exchange_index": market.shard,
        "market_version": MARKET_VERSION,
        "funding_deadband": 0,
        "funding_cap": 0.01,
        "funding_limit_unit": "percentage",
        "funding_invalid_premium_handling": "dampen",
        "bid": price_text(market.bid),
        "bid_size": count_text(DEPTH),
        "ask": price_text(market.ask),
        "ask_size": count_text(DEPTH),
    }


def _perp(ticker: str) -> Market:
    market = PERPS.get(ticker)
    if market is None:
        raise flat(404, "not_found", "market not found")
    return market


async def status(call: Call) -> SandboxAnswer:  # noqa: ARG001 - a handler
    """``GET /margin/exchange/status``."""
    return SandboxAnswer(200, {"exchange_active": True, "trading_active": True})


async def enabled(call: Call) -> SandboxAnswer:  # noqa: ARG001 - a handler
    """``GET /margin/enabled``."""
    return SandboxAnswer(200, {"enabled": True})


async def markets(call: Call) -> SandboxAnswer:  # noqa: ARG001 - a handler
    """``GET /margin/markets``."""
    return SandboxAnswer(200, {"markets": [_margin_json(market) for market in PERPS.values()]})


async def market(call: Call) -> SandboxAnswer:
    """``GET /margin/markets/{ticker}``."""
    return SandboxAnswer(200, {"market": _margin_json(_perp(call.path["ticker"]))})


def sides(market: Market, book: Book) -> tuple[dict[int, int], dict[int, int]]:
    """Return what is bid and what is asked, by price."""
    bids, no = book_levels(market, book)
    return bids, {ONE_DOLLAR - price: count for price, count in no.items()}


def _orderbook(call: Call, ticker: str) -> dict[str, Any]:
    bids, asks = sides(_perp(ticker), call.state.margin)
    return {"ticker": ticker, "bids": pairs(bids), "asks": pairs(asks)}


async def orderbook(call: Call) -> SandboxAnswer:
    """``GET /margin/markets/{ticker}/orderbook``."""
    return SandboxAnswer(200, {"orderbook": _orderbook(call, call.path["ticker"])})


async def orderbooks(call: Call) -> SandboxAnswer:
    """``GET /margin/markets/orderbooks``: of several markets, with commas between them."""
    listed = names(call.query, "tickers")
    if listed is None:
        raise flat(400, "invalid_parameters", "tickers is needed")
    return SandboxAnswer(200, {"orderbooks": [_orderbook(call, ticker) for ticker in sorted(listed)]})


async def trades(call: Call) -> SandboxAnswer:
    """``GET /margin/trades``, page by page: those of the account, since nobody else trades."""
    which = wanted(call)
    listed = [
        (
            place,
            {
                "trade_id": fill.fill_id,
                "ticker": fill.order.market.ticker,
                "count": count_text(fill.count),
                "price": price_text(fill.price),
                "created_time": iso(fill.ms),
                "taker_side": fill.order.side,
            },
        )
        for place, fill in enumerate(call.state.margin.fills)
        if which.takes(fill.order.market, fill.order.subaccount, fill.ms)
    ]
    page, cursor = page_of(listed, call.query)
    return SandboxAnswer(200, {"trades": page, "cursor": cursor})
