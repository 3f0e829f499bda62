"""Matching: orders that reach the fixed bid or ask are filled, others rest.

Bid and ask refer to the YES leg: a bid buys YES at its price, an ask sells YES, which is buying NO at 1 - price.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from uuid import uuid4

from hsm_keys.sandbox.fixed_point import ONE_DOLLAR
from hsm_keys.sandbox.markets import DEPTH

if TYPE_CHECKING:
    from hsm_keys.sandbox.markets import Market

__all__ = ["Book", "Fill", "LevelChange", "Order", "OrderRefused", "Position"]

Side: TypeAlias = Literal["bid", "ask"]
Listener: TypeAlias = Callable[[str, object], None]

START_MONEY: Final = 10_000_000_000
"""What an account has to begin with: 10,000 dollars, in 1/1,000,000."""

_FEE_STEP: Final = 100  # fees are rounded up to the hundredth of a cent


class OrderRefused(Exception):  # noqa: N818 - an answer, not a defect
    """The exchange doesn't take an order.

    Args:
        status: The HTTP status.
        code: Kalshi's word for it; its message is the same with spaces.
        details: What more there is to say.
    """

    def __init__(self, status: int, code: str, details: str | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.details = details


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it is now; changed by replacing it."""

    order_id: str
    client_order_id: str
    market: Market
    side: Side
    price: int
    initial: int
    remaining: int
    subaccount: int
    time_in_force: str
    self_trade_prevention: str
    created_ms: int
    updated_ms: int
    filled: int = 0
    fill_cost: int = 0
    fees: int = 0
    status: Literal["resting", "canceled", "executed"] = "resting"
    group: str | None = None
    expires_s: int | None = None
    cancel_on_pause: bool = False
    position: int = 0
    """Where it stands in the order of arrival."""
    in_book: bool = False
    """Whether others can see what remains of it; not before it has met what it crosses."""

    @property
    def shown(self) -> int:
        """How much of it is in the order book."""
        return self.remaining if self.in_book and self.status == "resting" else 0

    @property
    def locked(self) -> int:
        """The money that it could still cost."""
        each = self.price if self.side == "bid" else ONE_DOLLAR - self.price
        return each * self.remaining if self.status == "resting" else 0


@dataclass(frozen=True, slots=True)
class Fill:
    """A trade of an order with the others."""

    fill_id: str
    order: Order
    count: int
    price: int
    fee: int
    ms: int


@dataclass(frozen=True, slots=True)
class LevelChange:
    """More or less of what is in the order book at one price, by a change of one order."""

    order: Order
    price: int
    delta: int


@dataclass(slots=True)
class Position:
    """What is held in a market: YES contracts; fewer than none are NO contracts."""

    count: int = 0
    cost: int = 0
    traded: int = 0
    realized: int = 0
    fees: int = 0
    updated_ms: int = 0

    def take(self, side: Side, count: int, price: int) -> int:
        """Add a trade, and return the money that it brings; negative if it costs."""
        signed, own = (count, price) if side == "bid" else (-count, ONE_DOLLAR - price)
        closing = min(count, abs(self.count)) if self.count * signed < 0 else 0
        released = self.cost * closing // abs(self.count) if closing else 0
        proceeds = (ONE_DOLLAR - own) * closing
        paid = own * (count - closing)
        self.realized += proceeds - released
        self.cost += paid - released
        self.traded += own * count
        self.count += signed
        return proceeds - paid


@dataclass
class Book:
    """All orders, fills and positions of one account on one exchange.

    Args:
        tell: Called with a kind of event and what it is about, in the order of events: ``order`` and an Order,
            ``level`` and a LevelChange, ``fill`` and a Fill.
    """

    tell: Listener
    orders: dict[str, Order] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    positions: dict[tuple[int, str], Position] = field(default_factory=dict)
    money: dict[int, int] = field(default_factory=dict)

    def money_of(self, subaccount: int) -> int:
        """Return what a subaccount has, and hasn't promised to resting orders."""
        promised = sum(order.locked for order in self.orders.values() if order.subaccount == subaccount)
        return self.money.get(subaccount, START_MONEY) - promised

    def place(self, order: Order, *, post_only: bool, reduce_only: bool) -> Order:
        """Take an order: fill what crosses, and let the rest of it rest or end, as its time in force says.

        Raises:
            Refused: If Kalshi would refuse it; nothing was kept.
        """
        if any(resting.client_order_id == order.client_order_id for resting in self.orders.values()):
            raise OrderRefused(409, "order_already_exists")
        if reduce_only:
            order = self._reduced(order)
        crosses = self._crosses(order)
        if post_only and crosses:
            raise OrderRefused(400, "invalid_order", "post only cross")
        if order.time_in_force == "fill_or_kill" and not (crosses and order.remaining <= DEPTH):
            raise OrderRefused(409, "fill_or_kill_insufficient_resting_volume")
        if not reduce_only and order.locked > self.money_of(order.subaccount):
            raise OrderRefused(400, "insufficient_balance")
        order = self._keep(replace(order, position=len(self.orders)))
        order = self._prevent_self_trade(order)
        if crosses and order.status == "resting":
            order = self._fill(order)
        if order.status == "resting" and order.time_in_force != "good_till_canceled":
            order = self.end(order, order.updated_ms)
        return self._show(order)

    def _reduced(self, order: Order) -> Order:
        held = self.positions.get((order.subaccount, order.market.ticker), Position()).count
        room = max(0, -held if order.side == "bid" else held)
        if not room:
            raise OrderRefused(400, "invalid_order", "there is no position that a reduce_only order could reduce")
        return replace(order, initial=min(order.initial, room), remaining=min(order.remaining, room))

    def _crosses(self, order: Order) -> bool:
        return order.price >= order.market.ask if order.side == "bid" else order.price <= order.market.bid

    def _keep(self, order: Order) -> Order:
        before = self.orders.get(order.order_id)
        self.orders[order.order_id] = order
        self.tell("order", order)
        self._tell_levels(before, order)
        return order

    def _show(self, order: Order) -> Order:
        """Put what remains of an order into the order book, now that it has met what it crosses."""
        if order.status != "resting" or order.in_book:
            return order
        shown = self.orders[order.order_id] = replace(order, in_book=True)
        self._tell_levels(None, shown)
        return shown

    def _tell_levels(self, before: Order | None, after: Order) -> None:
        changes = {after.price: after.shown}
        if before is not None:
            changes[before.price] = changes.get(before.price, 0) - before.shown
        for price, delta in changes.items():
            if delta:
                self.tell("level", LevelChange(after, price, delta))

    def _prevent_self_trade(self, order: Order) -> Order:
        """End one of two orders of the account that would trade with each other."""
        for other in list(self.orders.values()):
            meets = other.price <= order.price if order.side == "bid" else other.price >= order.price
            if other.status != "resting" or other.market != order.market or other.side == order.side or not meets:
                continue
            if order.self_trade_prevention == "taker_at_cross":
                return self.end(order, order.updated_ms)
            self.end(other, order.updated_ms)
        return order

    def _fill(self, order: Order) -> Order:
        price = order.market.ask if order.side == "bid" else order.market.bid
        count = min(order.remaining, DEPTH)
        fee = -(-7 * count * price * (ONE_DOLLAR - price) // (1_000_000 * _FEE_STEP)) * _FEE_STEP
        own = price if order.side == "bid" else ONE_DOLLAR - price
        remaining = order.remaining - count
        order = self._keep(
            replace(
                order,
                remaining=remaining,
                filled=order.filled + count,
                fill_cost=order.fill_cost + own * count,
                fees=order.fees + fee,
                status="resting" if remaining else "executed",
            )
        )
        position = self.positions.setdefault((order.subaccount, order.market.ticker), Position())
        brought = position.take(order.side, count, price)
        position.fees += fee
        position.updated_ms = order.updated_ms
        self.money[order.subaccount] = self.money.get(order.subaccount, START_MONEY) + brought - fee
        fill = Fill(str(uuid4()), order, count, price, fee, order.updated_ms)
        self.fills.append(fill)
        self.tell("fill", fill)
        return order

    def end(self, order: Order, now_ms: int) -> Order:
        """Cancel what remains of an order."""
        return self._keep(replace(order, status="canceled", remaining=0, updated_ms=now_ms))

    def decrease(self, order: Order, remaining: int, now_ms: int) -> Order:
        """Lower what remains of an order; nothing left ends it."""
        if not remaining:
            return self.end(order, now_ms)
        lowered = order.initial - (order.remaining - remaining)
        return self._keep(replace(order, remaining=remaining, initial=lowered, updated_ms=now_ms))

    def amend(self, order: Order, changed: Order) -> Order:
        """Replace a resting order's price, count and names; it may be filled by that.

        Raises:
            Refused: If the balance doesn't cover it; the order stays as it was.
        """
        if changed.locked > self.money_of(order.subaccount) + order.locked:
            raise OrderRefused(400, "insufficient_balance")
        kept = self._prevent_self_trade(self._keep(replace(changed, in_book=not self._crosses(changed))))
        if kept.status == "resting" and self._crosses(kept):
            kept = self._fill(kept)
        return self._show(kept)

    def expire(self, now_ms: int) -> None:
        """End resting orders whose time has come."""
        for order in list(self.orders.values()):
            if order.status == "resting" and order.expires_s is not None and order.expires_s * 1000 <= now_ms:
                self.end(order, now_ms)
