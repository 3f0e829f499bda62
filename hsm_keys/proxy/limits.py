"""Limits that are kept in memory: a token bucket as Kalshi has them, and a cap on what happens in a minute."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

__all__ = ["MinuteCap", "TokenBucket"]

_MINUTE_S: Final = 60.0


class TokenBucket:
    """Tokens that come back at a steady rate, up to one second's worth.

    Args:
        rate: Tokens a second; a bucket is full at first.
    """

    __slots__ = ("_at", "_left", "rate")

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._left = rate
        self._at: float | None = None

    def wait_for(self, cost: float, now: float) -> float:
        """Return the seconds until it has so many tokens; 0 if it has them. Takes none.

        What costs more than a whole bucket goes when the bucket is full.
        """
        if self._at is not None:
            self._left = min(self.rate, self._left + max(0.0, now - self._at) * self.rate)
        self._at = now
        return max(0.0, min(cost, self.rate) - self._left) / self.rate

    def take(self, cost: float) -> None:
        """Take tokens; it may end up owing some."""
        self._left -= cost


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

    def take(self, count: int, now: float) -> None:
        """Count them."""
        self._taken.append((now, count))
