"""What anybody may read: the exchange's status, markets, order books, events and series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsm_keys.sandbox.fixed_point import ONE_DOLLAR, count_text, price_text
from hsm_keys.sandbox.markets import DEPTH, EVENTS, MARKETS, Event, Market
from hsm_keys.sandbox.paging import page_of
from hsm_keys.sandbox.queries import choice, integer, names, wanted
from hsm_keys.sandbox.shapes import iso
from hsm_keys.sandbox.wire import Call, SandboxAnswer, flat

if TYPE_CHECKING:
    from hsm_keys.sandbox.matching import Book

__all__ = [
    "book_levels",
    "event",
    "events",
    "exchange_schedule",
    "exchange_status",
    "market",
    "markets",
    "orderbook",
    "orderbooks",
    "pairs",
    "series",
    "series_list",
    "trades",
    "user_data_timestamp",
]

_SHARDS = (0, 1)
_STATUSES = ("unopened", "open", "paused", "closed", "settled")


async def exchange_status(call: Call) -> SandboxAnswer:
    """``GET /exchange/status``."""
    active = {"exchange_active": True, "trading_active": True, "intra_exchange_transfers_active": True}
    status: dict[str, Any] = active | {
        "exchange_index_statuses": [active | {"exchange_index": shard, "description": "made up"} for shard in _SHARDS]
    }
    if call.state.null_lists:
        status["exchange_estimated_resume_time"] = None
    return SandboxAnswer(200, status)


async def exchange_schedule(call: Call) -> SandboxAnswer:  # noqa: ARG001 - a handler
    """``GET /exchange/schedule``: always open."""
    return SandboxAnswer(200, {"schedule": {"standard_hours": [], "maintenance_windows": []}})


async def user_data_timestamp(call: Call) -> SandboxAnswer:
    """``GET /exchange/user_data_timestamp``."""
    return SandboxAnswer(200, {"as_of_time": iso(call.now_ms)})


def _market(ticker: str) -> Market:
    market = MARKETS.get(ticker)
    if market is None:
        raise flat(404, "not_found", "market not found")
    return market


def book_levels(market: Market, book: Book) -> tuple[dict[int, int], dict[int, int]]:
    """Return what is bid for YES and for NO, by price: the others' offers and the account's own."""
    yes, no = {market.bid: DEPTH}, {ONE_DOLLAR - market.ask: DEPTH}
    for order in book.orders.values():
        if order.shown and order.market == market:
            levels, price = (yes, order.price) if order.side == "bid" else (no, ONE_DOLLAR - order.price)
            levels[price] = levels.get(price, 0) + order.shown
    return yes, no


def pairs(levels: dict[int, int]) -> list[list[str]]:
    """Return prices and counts as Kalshi writes them, the lowest price first."""
    return [[price_text(price), count_text(count)] for price, count in sorted(levels.items())]


def _orderbook(market: Market, book: Book, depth: int | None = None) -> dict[str, Any]:
    yes, no = (pairs(levels)[-(depth or 0) :] for levels in book_levels(market, book))
    return {"yes_dollars": yes, "no_dollars": no}


async def markets(call: Call) -> SandboxAnswer:
    """``GET /markets``, page by page, by event, series, status or tickers."""
    tickers, status = names(call.query, "tickers"), choice(call.query, "status", _STATUSES)
    listed = [
        market
        for market in MARKETS.values()
        if call.query.get("event_ticker") in {None, market.event.ticker}
        and call.query.get("series_ticker") in {None, market.event.series}
        and status in {None, "open"}
        and (tickers is None or market.ticker in tickers)
    ]
    page, cursor = page_of(list(enumerate(market.as_json() for market in listed)), call.query)
    return SandboxAnswer(200, {"markets": page, "cursor": cursor})


async def market(call: Call) -> SandboxAnswer:
    """``GET /markets/{ticker}``."""
    return SandboxAnswer(200, {"market": _market(call.path["ticker"]).as_json()})


async def orderbook(call: Call) -> SandboxAnswer:
    """``GET /markets/{ticker}/orderbook``: the best prices, as many as ``depth`` says; 0 is all."""
    depth = integer(call.query, "depth", 0, 100)
    return SandboxAnswer(200, {"orderbook_fp": _orderbook(_market(call.path["ticker"]), call.state.book, depth)})


async def orderbooks(call: Call) -> SandboxAnswer:
    """``GET /markets/orderbooks``: of several markets, named one by one."""
    named = [name for value in call.query.getall("tickers", []) for name in value.split(",")]
    if not named:
        raise flat(400, "invalid_parameters", "tickers is needed")
    shown = [{"ticker": name, "orderbook_fp": _orderbook(_market(name), call.state.book)} for name in named]
    return SandboxAnswer(200, {"orderbooks": shown})


async def trades(call: Call) -> SandboxAnswer:
    """``GET /markets/trades``: those of the account, since nobody else trades."""
    which = wanted(call)
    listed = [
        (
            place,
            {
                "trade_id": fill.fill_id,
                "ticker": fill.order.market.ticker,
                "count_fp": count_text(fill.count),
                "yes_price_dollars": price_text(fill.price),
                "no_price_dollars": price_text(ONE_DOLLAR - fill.price),
                "taker_side": "yes" if fill.order.side == "bid" else "no",
                "taker_outcome_side": "yes" if fill.order.side == "bid" else "no",
                "taker_book_side": fill.order.side,
                "created_time": iso(fill.ms),
                "is_block_trade": False,
            },
        )
        for place, fill in enumerate(call.state.book.fills)
        if which.takes(fill.order.market, fill.order.subaccount, fill.ms)
    ]
    page, cursor = page_of(listed, call.query)
    return SandboxAnswer(200, {"trades": page, "cursor": cursor})


def _event_json(event: Event, *, nested: bool) -> dict[str, Any]:
    shown = event.as_json() | {"settlement_sources": []}
    if nested:
        shown["markets"] = [market.as_json() for market in MARKETS.values() if market.event == event]
    return shown


async def events(call: Call) -> SandboxAnswer:
    """``GET /events``, page by page."""
    nested = call.query.get("with_nested_markets") == "true"
    listed = [event for event in EVENTS.values() if call.query.get("series_ticker") in {None, event.series}]
    page, cursor = page_of(list(enumerate(_event_json(event, nested=nested) for event in listed)), call.query)
    return SandboxAnswer(200, {"events": page, "cursor": cursor})


async def event(call: Call) -> SandboxAnswer:
    """``GET /events/{event_ticker}``."""
    event = EVENTS.get(call.path["event_ticker"])
    if event is None:
        raise flat(404, "not_found", "event not found")
    nested = call.query.get("with_nested_markets") == "true"
    own = [market.as_json() for market in MARKETS.values() if market.event == event]
    return SandboxAnswer(200, {"event": _event_json(event, nested=nested), "markets": own})


def _series_json(event: Event) -> dict[str, Any]:
    return {
        "ticker": event.series,
        "frequency": "daily",
        "title": event.title,
        "category": "Climate and Weather",
        "categories": ["Climate and Weather"],
        "tags": [],
        "settlement_sources": [],
        "contract_url": "",
        "contract_terms_url": "",
        "fee_type": "quadratic",
        "fee_multiplier": 1,
        "additional_prohibitions": [],
    }


async def series_list(call: Call) -> SandboxAnswer:  # noqa: ARG001 - a handler
    """``GET /series``."""
    return SandboxAnswer(200, {"series": [_series_json(event) for event in EVENTS.values()]})


async def series(call: Call) -> SandboxAnswer:
    """``GET /series/{series_ticker}``."""
    found = next((known for known in EVENTS.values() if known.series == call.path["series_ticker"]), None)
    if found is None:
        raise flat(404, "not_found", "series not found")
    return SandboxAnswer(200, {"series": _series_json(found)})
