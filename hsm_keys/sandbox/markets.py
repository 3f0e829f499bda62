"""The made-up markets, and the only other trader in them, who always bids and asks at fixed prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from hsm_keys.sandbox.fixed_point import ONE_DOLLAR, count_text, price_text

__all__ = ["DEPTH", "EVENTS", "MARKETS", "MARKET_VERSION", "PERPS", "Event", "Market"]

DEPTH: Final = 100_000
"""How many hundredths of a contract the others bid and ask for, anew for each order."""

_OPENED: Final = "2026-01-01T00:00:00Z"
_CLOSES: Final = "2036-12-31T23:00:00Z"


@dataclass(frozen=True, slots=True)
class Event:
    """A question with one or more markets."""

    ticker: str
    series: str
    title: str

    def as_json(self) -> dict[str, Any]:
        """Return it in the shape of Kalshi's EventData."""
        return {
            "event_ticker": self.ticker,
            "series_ticker": self.series,
            "title": self.title,
            "sub_title": self.title,
            "collateral_return_type": "",
            "mutually_exclusive": False,
            "product_metadata": {},
            "category": "Climate and Weather",
            "strike_date": _CLOSES,
        }


@dataclass(frozen=True, slots=True)
class Market:
    """A market of an event.

    Args:
        ticker: Its name.
        event: Its event.
        bid: What the others bid for YES, in 1/10,000 dollar.
        ask: What they ask for YES.
        tick: The step between two prices.
        shard: Kalshi's ``exchange_index``.
    """

    ticker: str
    event: Event
    bid: int = 4_000
    ask: int = 6_000
    tick: int = 100
    shard: int = 0

    @property
    def market_id(self) -> str:
        """Kalshi's id of it, a UUID."""
        return str(uuid5(NAMESPACE_URL, self.ticker))

    def as_json(self) -> dict[str, Any]:
        """Return it in the shape of Kalshi's Market."""
        depth, bid, ask = count_text(DEPTH), price_text(self.bid), price_text(self.ask)
        return {
            "ticker": self.ticker,
            "event_ticker": self.event.ticker,
            "market_type": "binary",
            "title": self.event.title,
            "subtitle": "",
            "yes_sub_title": "yes",
            "no_sub_title": "no",
            "created_time": _OPENED,
            "updated_time": _OPENED,
            "open_time": _OPENED,
            "close_time": _CLOSES,
            "latest_expiration_time": _CLOSES,
            "expected_expiration_time": _CLOSES,
            "settlement_timer_seconds": 3600,
            "status": "active",
            "yes_bid_dollars": bid,
            "yes_bid_size_fp": depth,
            "yes_ask_dollars": ask,
            "yes_ask_size_fp": depth,
            "no_bid_dollars": price_text(ONE_DOLLAR - self.ask),
            "no_ask_dollars": price_text(ONE_DOLLAR - self.bid),
            "last_price_dollars": bid,
            "previous_yes_bid_dollars": bid,
            "previous_yes_ask_dollars": ask,
            "previous_price_dollars": bid,
            "liquidity_dollars": price_text(0),
            "volume_fp": count_text(0),
            "volume_24h_fp": count_text(0),
            "open_interest_fp": count_text(0),
            "notional_value_dollars": price_text(ONE_DOLLAR),
            "result": "",
            "can_close_early": True,
            "expiration_value": "",
            "settlement_bounds_type": "default",
            "rules_primary": "made up: it settles never",
            "rules_secondary": "",
            "price_level_structure": "linear_cent" if self.tick == 100 else "deci_cent",  # noqa: PLR2004 - a cent
            "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": price_text(self.tick)}],
            "strike_type": "greater",
            "floor_strike": 55,
            "exchange_index": self.shard,
        }


_TEST: Final = Event("KXTEST", "KXTEST", "Will the sandbox answer?")
_WEATHER: Final = Event("KXHIGHNY-26DEC31", "KXHIGHNY", "Highest temperature in New York?")
_SHARD: Final = Event("KXSHARD", "KXSHARD", "A market on another shard?")

EVENTS: Final = {event.ticker: event for event in (_TEST, _WEATHER, _SHARD)}

MARKETS: Final = {
    market.ticker: market
    for market in (
        Market("KXTEST-1", _TEST),
        Market("KXTEST-2", _TEST, bid=4_950, ask=5_050, tick=10),
        Market("KXHIGHNY-26DEC31-T55", _WEATHER),
        Market("KXSHARD-1", _SHARD, shard=1),
    )
}
"""Markets of events, by ticker."""

_PERPETUAL: Final = Event("KXPERPTEST", "KXPERPTEST", "A perpetual?")

PERPS: Final = {"KXPERPTEST": Market("KXPERPTEST", _PERPETUAL, tick=1)}
"""Perpetual contracts, by ticker."""

MARKET_VERSION: Final = 1
"""How often Kalshi has changed a perpetual's terms; an order may name the version that it is meant for."""
