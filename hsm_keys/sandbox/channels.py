"""Messages of the WebSockets' channels: snapshots at the start, then the changes of the account's orders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.sandbox import event_messages, margin_messages
from hsm_keys.sandbox.fixed_point import count_text
from hsm_keys.sandbox.grouping import GroupEvent
from hsm_keys.sandbox.markets import MARKETS, PERPS
from hsm_keys.sandbox.matching import Fill, LevelChange, Order, Position

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from hsm_keys.sandbox.markets import Market
    from hsm_keys.sandbox.matching import Book
    from hsm_keys.sandbox.state import SandboxState

__all__ = ["Subscription", "channels_of"]

_COMMON: Final = {"orderbook_delta", "ticker", "trade", "fill", "order_group_updates", "user_orders"}
_EVENTS: Final = _COMMON | {
    "market_positions",
    "market_lifecycle_v2",
    "multivariate_market_lifecycle",
    "multivariate",
    "communications",
    "cfbenchmarks_value",
    "cfbenchmarks_value_5hz",
}
_PERPS: Final = _COMMON | {"corporate_actions"}


def channels_of(*, perps: bool) -> AbstractSet[str]:
    """Return the channels that Kalshi has; of those that aren't about orders nothing is ever told here."""
    return _PERPS if perps else _EVENTS


@dataclass(slots=True)
class Subscription:
    """What a session wants to be told.

    Args:
        channel: The channel's name.
        sid: The subscription's number.
        state: The account.
        tickers: The markets it is about; None is all of them.
        perps: Whether it is about perpetuals.
        subaccount: Whose orders, fills, positions and groups it is about; None is all of them.
        seq: The number of the last message.
    """

    channel: str
    sid: int
    state: SandboxState
    tickers: AbstractSet[str] | None
    perps: bool
    subaccount: int | None
    seq: int = 0
    _best: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last ticker of each market, times apart."""

    @property
    def _book(self) -> Book:
        return self.state.margin if self.perps else self.state.book

    @property
    def _markets(self) -> Mapping[str, Market]:
        return PERPS if self.perps else MARKETS

    def add(self, tickers: AbstractSet[str]) -> AbstractSet[str]:
        """Be about these markets as well, and return those that are new."""
        if self.tickers is None:
            return frozenset()
        new = tickers - self.tickers
        self.tickers |= tickers
        return new

    def remove(self, tickers: AbstractSet[str]) -> None:
        """Not be about these markets any more."""
        self.tickers = (self._markets.keys() if self.tickers is None else self.tickers) - tickers

    def next_seq(self) -> int:
        """Return the number of the next message."""
        self.seq += 1
        return self.seq

    def _message(self, kind: str, msg: dict[str, Any]) -> dict[str, Any]:
        return {"type": kind, "sid": self.sid, "seq": self.next_seq(), "msg": msg}

    def _wants(self, market: Market) -> bool:
        return self.tickers is None or market.ticker in self.tickers

    def _may_see(self, subaccount: int) -> bool:
        return self.subaccount in {None, subaccount}

    def snapshots(self, now_ms: int, tickers: AbstractSet[str] | None = None) -> Iterator[dict[str, Any]]:
        """Give what is told without anything happening: of these markets, by default of all it is about."""
        shapes = margin_messages if self.perps else event_messages
        for market in self._markets.values():
            if not (self._wants(market) if tickers is None else market.ticker in tickers):
                continue
            if self.channel == "orderbook_delta":
                yield self._message("orderbook_snapshot", shapes.snapshot(market, self._book))
            elif self.channel == "ticker":
                yield from self._ticker(market, now_ms)

    def messages(self, kind: str, subject: object, now_ms: int) -> Iterator[dict[str, Any]]:
        """Give what is told of an event in a Book; ``kind`` and ``subject`` are as it tells them."""
        match kind, subject:
            case "order", Order() if self._wants(subject.market) and self._may_see(subject.subaccount):
                yield from self._order(subject)
            case "level", LevelChange() if self._wants(subject.order.market):
                yield from self._level(subject, now_ms)
            case "fill", Fill() if self._wants(subject.order.market):
                yield from self._fill(subject, now_ms)
            case "group", GroupEvent() if self._may_see(subject.group.subaccount):
                if self.channel == "order_group_updates":
                    yield self._message("order_group_updates", _group(subject))

    def _order(self, order: Order) -> Iterator[dict[str, Any]]:
        if self.channel == "user_orders":
            shapes = margin_messages if self.perps else event_messages
            yield self._message("user_order", shapes.user_order(order, self.state.user_id))

    def _level(self, change: LevelChange, now_ms: int) -> Iterator[dict[str, Any]]:
        if self.channel == "orderbook_delta":
            shapes = margin_messages if self.perps else event_messages
            yield self._message("orderbook_delta", shapes.delta(change, own=self._may_see(change.order.subaccount)))
        elif self.channel == "ticker":
            yield from self._ticker(change.order.market, now_ms)

    def _fill(self, fill: Fill, now_ms: int) -> Iterator[dict[str, Any]]:
        shapes = margin_messages if self.perps else event_messages
        if self.channel == "trade":
            yield self._message("trade", shapes.trade(fill))
        elif self.channel == "ticker":
            yield from self._ticker(fill.order.market, now_ms)
        if not self._may_see(fill.order.subaccount):
            return
        held = self._book.positions.get((fill.order.subaccount, fill.order.market.ticker)) or Position()
        if self.channel == "fill":
            yield self._message("fill", shapes.fill(fill, held))
        elif self.channel == "market_positions":
            yield self._message("market_position", event_messages.position(fill, held, self.state.user_id))

    def _ticker(self, market: Market, now_ms: int) -> Iterator[dict[str, Any]]:
        """Give a market's ticker, if it changed since it was last told."""
        shapes = margin_messages if self.perps else event_messages
        now = shapes.ticker(market, self._book, now_ms)
        timeless = {name: value for name, value in now.items() if name not in {"ts", "ts_ms"}}
        if self._best.get(market.ticker) != timeless:
            self._best[market.ticker] = timeless
            yield self._message("ticker", now)


def _group(event: GroupEvent) -> dict[str, Any]:
    shown = {"event_type": event.kind, "order_group_id": event.group.group_id, "ts_ms": event.ms}
    has_limit = event.kind in {"created", "limit_updated"}
    return shown | ({"contracts_limit_fp": count_text(event.group.limit)} if has_limit else {})
