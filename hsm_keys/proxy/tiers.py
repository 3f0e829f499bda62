"""Kalshi's limits for the account: the buckets of its usage level, which all clients of the proxy share."""

from __future__ import annotations

from math import inf
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hsm_keys.kalshi.operations import DEFAULT_COST
from hsm_keys.proxy.limits import TokenBucket

__all__ = ["LEAST", "AccountLimits", "BucketLimit", "Tier"]

_Tokens = Annotated[int, Field(ge=DEFAULT_COST, le=1_000_000, strict=True)]


class BucketLimit(BaseModel):
    """A bucket as Kalshi describes it.

    Attributes:
        refill_rate: Tokens a second that come back.
        bucket_capacity: The most that it holds.
    """

    model_config = ConfigDict(frozen=True)

    refill_rate: _Tokens
    bucket_capacity: _Tokens

    def __str__(self) -> str:
        """Return it as the log says it."""
        return f"{self.refill_rate} a second, {self.bucket_capacity} at once"


def _folded(tier: object) -> object:
    return tier.lower() if isinstance(tier, str) else tier


class AccountLimits(BaseModel):
    """The answer to ``GET /account/limits``."""

    model_config = ConfigDict(frozen=True)

    usage_tier: Annotated[
        Literal["basic", "advanced", "expert", "premier", "paragon", "prime", "prestige"], BeforeValidator(_folded)
    ]
    read: BucketLimit
    write: BucketLimit

    def __str__(self) -> str:
        """Return it as the log says it."""
        return f"tier {self.usage_tier}; read: {self.read}; write: {self.write}"


LEAST: Final = AccountLimits(
    usage_tier="basic",
    read=BucketLimit(refill_rate=200, bucket_capacity=200),
    write=BucketLimit(refill_rate=100, bucket_capacity=100),
)
"""What every account has: the lowest level, as Kalshi's page had it in summer 2026."""


class Tier:
    """The account's two buckets. They count what all clients are allowed, and never hold more than Kalshi's do.

    Until Kalshi has said what the account's are, they are those of the lowest level. The level that Kalshi names later
    gives no tokens at once: its buckets fill from what is there, at their own rate.

    Attributes:
        limits: The numbers in use.
        is_known: Whether they are Kalshi's own.
    """

    def __init__(self) -> None:
        self.limits = LEAST
        self.is_known = False
        self._reads = _bucket(LEAST.read)
        self._writes = _bucket(LEAST.write)

    def follow(self, limits: AccountLimits, now: float) -> None:
        """Have these limits from now on.

        Args:
            limits: What Kalshi says.
            now: Seconds of a steady clock.
        """
        self.limits = limits
        self.is_known = True
        for bucket, limit in ((self._reads, limits.read), (self._writes, limits.write)):
            bucket.settle(now)  # the time until now counts at the old rate
            bucket.change(limit.refill_rate, limit.bucket_capacity)

    def wait_for(self, method: str, cost: int, now: float) -> float:
        """Return the seconds until there are so many tokens; infinity if Kalshi's bucket never holds them. Takes none.

        Args:
            method: HTTP method, which tells the bucket.
            cost: Tokens.
            now: Seconds of a steady clock.
        """
        bucket = self._of(method)
        if self.is_known and cost > bucket.capacity:
            return inf
        return bucket.wait_for(cost, now)

    def spend(self, method: str, cost: int, now: float) -> None:
        """Count a request, whether or not it was held against the buckets: what they don't have, Kalshi refuses."""
        bucket = self._of(method)
        bucket.settle(now)
        bucket.take_up_to(cost)

    def _of(self, method: str) -> TokenBucket:
        return self._reads if method == "GET" else self._writes


def _bucket(limit: BucketLimit) -> TokenBucket:
    return TokenBucket(limit.refill_rate, limit.bucket_capacity)
