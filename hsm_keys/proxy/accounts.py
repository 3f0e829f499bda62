"""How much of the caps one client, or all together, have used, as running sums."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from hsm_keys.proxy.amounts import contracts, dollars, worst_case

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.proxy.cap_clock import CapClock
    from hsm_keys.proxy.caps import Caps
    from hsm_keys.proxy.exposures import Exposure, Key

__all__ = ["DAY_MS", "MINUTE_MS", "CapAccount", "CapDenial", "DaySum", "Demand", "MarketSums"]

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000


class Demand:
    """Orders that go out together, and what they ask for, summed up once for all accounts.

    Args:
        orders: The orders.

    Attributes:
        orders: The same.
        costs: Hundredths of a cent that each may cost.
        most: The same of the dearest.
        total: The same of all.
        resting: The same of those that rest.
        sizes: Hundredths of a contract, by market and side, without what can only reduce a position. Tickers are in
            upper case: a server that takes both for one market is no way round a cap.
        keys: Of each order that is new and counted, what is the same for one that is sent twice: name, and likeness.
    """

    __slots__ = ("costs", "keys", "most", "orders", "resting", "sizes", "total")

    def __init__(self, orders: Sequence[Exposure]) -> None:
        most = total = resting = 0
        sizes: dict[tuple[str, str], int] = {}
        costs: list[int] = []
        keys: list[Key] = []
        for order in orders:
            market, side, size, each, rests, name, amends, perps, _, _ = order
            cost = worst_case(size, each)
            costs.append(cost)
            most = max(most, cost)
            total += cost
            if rests:
                resting += cost
            if each:
                place = market.upper(), side
                sizes[place] = sizes.get(place, 0) + size
            if not (amends or perps):
                keys += name, order[:5]
        self.orders, self.costs, self.most, self.total, self.resting = orders, costs, most, total, resting
        self.sizes, self.keys = sizes, keys

    @property
    def repeated(self) -> Key | None:
        """One of the keys that stands there twice; None if there is none."""
        if len(self.costs) == 1:
            return None
        return next((key for key, times in Counter(self.keys).items() if times > 1), None)


class CapDenial(NamedTuple):
    """Which cap is against a request, why, and the seconds after which time alone helps; 0 if it doesn't."""

    rule: str
    message: str
    retry_after: int = 0


class DaySum:
    """What was spent in the last 24 hours. It is kept by the minute, so that it counts for up to a minute longer."""

    __slots__ = ("minutes", "total")

    def __init__(self) -> None:
        self.minutes: deque[list[int]] = deque()
        self.total = 0

    def add(self, amount: int, now_ms: int) -> None:
        """Count an amount."""
        minute = now_ms // MINUTE_MS
        if self.minutes and self.minutes[-1][0] >= minute:
            self.minutes[-1][1] += amount
        else:
            self.forget(now_ms)
            self.minutes.append([minute, amount])
        self.total += amount

    def forget(self, now_ms: int) -> None:
        """Drop what is older than a day."""
        while self.minutes and _over_at(self.minutes[0][0]) <= now_ms:
            self.total -= self.minutes.popleft()[1]

    def back_at(self, amount: int) -> int | None:
        """Return when so much of it is over, in Unix milliseconds; None if it isn't that much."""
        for minute, spent in self.minutes:
            amount -= spent
            if amount <= 0:
                return _over_at(minute)
        return None


def _over_at(minute: int) -> int:
    return (minute + 1) * MINUTE_MS + DAY_MS


class MarketSums:
    """Hundredths of a contract in one market: the net position, and what may still be bought and sold."""

    __slots__ = ("asks", "bids", "net")

    def __init__(self) -> None:
        self.net = self.bids = self.asks = 0


class CapAccount:
    """How much of the caps one client, or all together, have used.

    Attributes:
        live: Hundredths of a cent that orders may still cost.
        open: The same of those that rest.
        day: What was spent.
        markets: Positions, by ticker in upper case.
    """

    __slots__ = ("day", "live", "markets", "open")

    def __init__(self) -> None:
        self.live = self.open = 0
        self.day = DaySum()
        self.markets: defaultdict[str, MarketSums] = defaultdict(MarketSums)

    def against(self, caps: Caps, whose: str, demand: Demand, clock: CapClock) -> CapDenial | None:
        """Return the cap that is against orders that go out together; None if none is.

        Args:
            caps: What is allowed.
            whose: What messages call this account.
            demand: What they ask for.
            clock: Gives the time; it is asked where a day's cap is reached.
        """
        if caps.order is not None and demand.most > caps.order:
            most = dollars(demand.most)
            return CapDenial(
                "max_order_dollars", f"an order may cost {most}; {dollars(caps.order)} is allowed to {whose}"
            )
        if caps.day is not None and demand.total and self.live + self.day.total + demand.total > caps.day:
            now_ms = clock.now_ms()
            self.day.forget(now_ms)
            if self.live + self.day.total + demand.total > caps.day:
                return self._against_day(caps.day, whose, demand.total, now_ms)
        if caps.open is not None and demand.resting and self.open + demand.resting > caps.open:
            left = max(0, caps.open - self.open)
            return CapDenial(
                "max_open_dollars",
                f"{dollars(left)} of {dollars(caps.open)} is left to {whose} for orders that rest, and "
                f"{dollars(demand.resting)} is asked for; what is cancelled or filled makes room",
            )
        if caps.market is not None:
            for (ticker, side), size in demand.sizes.items():
                if size > self.room(ticker, side, caps.market):
                    return self._against_market(caps.market, whose, ticker, side, size)
        return None

    def _against_day(self, most: int, whose: str, amount: int, now_ms: int) -> CapDenial:
        surplus = self.live + self.day.total + amount - most
        left = dollars(max(0, amount - surplus))
        reason = f"{left} of {dollars(most)} is left to {whose}, and {dollars(amount)} is asked for"
        back_at = self.day.back_at(surplus)
        if back_at is None or amount > most:
            return CapDenial("max_dollars_a_day", f"{reason}; time alone gives back too little: orders hold the rest")
        seconds = -(-(back_at - now_ms) // 1000)
        return CapDenial("max_dollars_a_day", f"{reason}; there is room in {seconds} seconds", max(1, seconds))

    def _against_market(self, most: int, whose: str, ticker: str, side: str, size: int) -> CapDenial:
        left = contracts(max(0, self.room(ticker, side, most)))
        verb = "bought" if side == "bid" else "sold"
        return CapDenial(
            "max_contracts_a_market",
            f"{left} contracts more may be {verb} by {whose} in this market, and {contracts(size)} are asked for; "
            f"the cap is {contracts(most)} net",
        )

    def room(self, ticker: str, side: str, most: int) -> int:
        """Return how many hundredths of a contract more may be bought ("bid") or sold ("ask") in a market."""
        market = self.markets.get(ticker)
        if market is None:
            return most
        return most - market.net - market.bids if side == "bid" else most + market.net - market.asks
