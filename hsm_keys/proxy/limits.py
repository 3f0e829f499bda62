"""Limits that are kept in memory: a token bucket like Kalshi's, and a limit for each minute."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

__all__ = ["MinuteCap", "TokenBucket"]

_MINUTE_S: Final = 60.0


class TokenBucket:
    """A token bucket, which refills at a steady rate up to its capacity, and is full at first.

    Args:
        rate: Tokens a second.
        capacity: The most that it holds; one second's worth by default.
    """

    __slots__ = ("_at", "_left", "capacity", "rate")

    def __init__(self, rate: float, capacity: float | None = None) -> None:
        self.change(rate, capacity)
        self._left = self.capacity
        self._at: float | None = None

    def change(self, rate: float, capacity: float | None = None) -> None:
        """Change rate and capacity from now on; tokens that were taken stay taken."""
        self.rate = rate
        self.capacity = rate if capacity is None else capacity

    def settle(self, now: float) -> None:
        """Add what has come back by now."""
        if self._at is not None:
            self._left = min(self.capacity, self._left + max(0.0, now - self._at) * self.rate)
        self._at = now

    def wait_for(self, cost: float, now: float) -> float:
        """Return the seconds until it has so many tokens; 0 if it has them. Takes none.

        What costs more than a whole bucket goes when the bucket is full.
        """
        self.settle(now)
        return max(0.0, min(cost, self.capacity) - self._left) / self.rate

    def left(self, now: float) -> float:
        """Return how many tokens there are; less than none if it owes some."""
        self.settle(now)
        return self._left

    def take(self, cost: float) -> None:
        """Take tokens; it may end up owing some."""
        self._left -= cost

    def take_up_to(self, cost: float) -> None:
        """Take tokens, as many as it has."""
        self._left = max(0.0, self._left - cost)


class MinuteCap:
    """At most so many in any 60 seconds.

    Args:
        most: How many.
    """

    __slots__ = ("_taken", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: deque[tuple[float, int]] = deque()

    def wait_for(self, count: int, now: float) -> float:
        """Return the seconds until there is room for so many; 0 if there is, infinity if there never is. Takes none."""
        while self._taken and self._taken[0][0] <= now - _MINUTE_S:
            self._taken.popleft()
        if count > self.most:
            return inf
        surplus = sum(taken for _, taken in self._taken) + count - self.most
        for at, taken in self._taken:
            if surplus <= 0:
                break
            surplus -= taken
            if surplus <= 0:
                return at + _MINUTE_S - now
        return 0.0

    def left(self, now: float) -> int:
        """Return how many there may be now."""
        return max(0, self.most - sum(taken for at, taken in self._taken if at > now - _MINUTE_S))

    def take(self, count: int, now: float) -> None:
        """Count them."""
        self._taken.append((now, count))
