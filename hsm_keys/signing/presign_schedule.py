"""The schedule of signing ahead: which headers are due next, the rate, and pauses after errors."""

from __future__ import annotations

import heapq
import logging
from collections import deque
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from hsm_keys.errors import PinError, StoreUnavailableError
from hsm_keys.signing.headers import KEY_HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.signing.presign_pool import HeaderPools, RoutePool

__all__ = ["REPLACED_AT", "PresignSchedule"]

REPLACED_AT: Final = 0.75
"""The part of ``max_age`` after which a successor is made: the old headers serve until it is there."""

_SECOND_NS: Final = 1_000_000_000
_FIRST_REST_NS: Final = _SECOND_NS // 2
_LONGEST_REST_NS: Final = 30 * _SECOND_NS
_FORGOTTEN_AFTER_NS: Final = 60 * _SECOND_NS

_log = logging.getLogger(__name__)


_MOST_AT_ONCE: Final = 8
_AT_ONCE_NS: Final = 5_000_000
"""How long signatures may take that are made together, and how far they may go ahead of their rate."""


class _Sign(Protocol):
    def __call__(self, method: str, path: str, stamps: Sequence[int]) -> list[dict[str, str]]: ...


class PresignSchedule:
    """Keeps pools filled. Used by one thread.

    A pool is in the queue of those that lack something, or has a time at which it is looked at again.

    Args:
        pools: The headers that are ready, of each route.
        max_age: Seconds for which headers may be handed out.
        rate: Signatures a second at most; also what fails counts.
    """

    def __init__(self, pools: HeaderPools, *, max_age: float, rate: float) -> None:
        self.errors = 0
        self.error: Exception | None = None
        self._pools = pools
        self._young_ns = int(max_age * REPLACED_AT * _SECOND_NS)
        self._max_age = max_age
        self._rate = rate
        self._gap_ns = int(_SECOND_NS / rate) + 1
        self._next_at: float = 0
        self._rests_until: float = 0
        self._rest_ns = 0
        self._looks: list[tuple[int, int, RoutePool]] = []
        self._look_of: dict[RoutePool, int] = {}  # the number of the one look that counts
        self._numbers = count()
        self._lacking: deque[RoutePool] = deque()
        self._queued: dict[RoutePool, int] = {}  # how many it lacks
        self._each_ns = _AT_ONCE_NS  # what the last signature took

    def look_at(self, pool: RoutePool, api_key_id: str) -> None:
        """See what a pool lacks: queue it, or note when to look again."""
        pool.worker_knows = pool in self._queued  # nobody needs to wake the worker for what it knows
        now = self._pools.elapsed()
        self._look_of.pop(pool, None)
        pool.follow_use(now, self._rate)
        if not pool.drawn and pool.learned and now - pool.used_at > _FORGOTTEN_AFTER_NS:
            self._pools.discard(*pool.route)
        self._pools.tidy(pool, api_key_id)
        if pool.gone:
            return
        young = [begun for _, begun, _ in list(pool.entries) if now - begun < self._young_ns]
        if len(young) >= pool.depth:
            self._pools.trim(pool)
            number = self._look_of[pool] = next(self._numbers)
            heapq.heappush(self._looks, (young[-pool.depth] + self._young_ns, number, pool))
        elif pool not in self._queued:
            pool.worker_knows = True
            self._queued[pool] = pool.depth - len(young)
            self._lacking.append(pool)

    def tick(self, sign: _Sign, api_key_id: str) -> float | None:
        """Do what is due: the signatures of one route at most, as many as take 5 milliseconds.

        Returns:
            Seconds until something is due again; None if nothing will be before somebody asks.
        """
        now = self._pools.elapsed()
        while self._looks and self._looks[0][0] <= now:
            _, number, pool = heapq.heappop(self._looks)
            if self._look_of.get(pool) == number:
                self.look_at(pool, api_key_id)
        if self._lacking and self._rests_until > now:
            return self._rest(now, api_key_id)
        if self._lacking and self._next_at <= now:
            self._make(sign, api_key_id)
        return self._seconds_left()

    def resume(self) -> bool:
        """End a rest, as the store has just signed for somebody; tell whether there was one."""
        resting = self._rests_until > 0 and not isinstance(self.error, _TooSlowError)
        if resting:
            self._rests_until = 0
        return resting

    def _make(self, sign: _Sign, api_key_id: str) -> None:
        pool = self._lacking.popleft()
        lacking = self._queued.pop(pool)
        if pool.gone:
            return
        at_once = max(1, min(lacking, _MOST_AT_ONCE, _AT_ONCE_NS // max(self._each_ns, self._gap_ns)))
        stamps, begun = [self._pools.stamp(pool) for _ in range(at_once)], self._pools.elapsed()
        self._next_at = begun + at_once * self._gap_ns
        try:
            made = sign(*pool.route, stamps)
            taken_ns = self._pools.elapsed() - begun
            self._each_ns, taken_s = taken_ns // at_once, taken_ns / _SECOND_NS
            if taken_s > self._max_age:
                raise _TooSlowError(
                    f"a signature took {taken_s:.1f} s, so that headers were too old when they were made",
                    hint="raise max_age (up to 3 seconds), or don't sign ahead with this store",
                )
        except Exception as error:  # noqa: BLE001 - a request that is signed at once raises it where it can be handled
            self._failed(error)
        else:
            if self._rest_ns:
                _log.info("signs ahead again")
            self._rest_ns = self._rests_until = 0
            for headers, stamp in zip(made, stamps, strict=True):
                self._pools.put(pool, (headers, begun, stamp))
            api_key_id = made[-1][KEY_HEADER]
        self.look_at(pool, api_key_id)

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        self.error = _without_frames(error)
        if not self._rest_ns:
            _log.warning("couldn't sign ahead (%s): %s", type(error).__name__, getattr(error, "message", ""))
        self._rest_ns = min(self._rest_ns * 2 or _FIRST_REST_NS, _LONGEST_REST_NS)
        # Waiting doesn't help after a refused PIN: only a successful signature of another caller ends this pause.
        self._rests_until = inf if isinstance(error, PinError) else self._pools.elapsed() + self._rest_ns

    def _rest(self, now: int, api_key_id: str) -> float | None:
        """Use up the headers, and drop those that become too old meanwhile."""
        for pool in self._lacking:
            self._pools.tidy(pool, api_key_id)
        left = (self._rests_until - now) / _SECOND_NS
        if self._pools.in_hand():
            return min(left, self._max_age)
        return None if left == inf else left

    def _seconds_left(self) -> float | None:
        times: list[float] = [self._looks[0][0]] if self._looks else []
        if self._lacking:
            times.append(max(self._next_at, self._rests_until))
        if not times or min(times) == inf:
            return None
        return max(0.0, (min(times) - self._pools.elapsed()) / _SECOND_NS)


def _without_frames(error: Exception) -> Exception:
    """Return an error that can be kept for long: frames hold whatever was in their variables."""
    links: list[BaseException | None] = [error]
    while links:
        link = links.pop()
        if link is not None and link.__traceback__ is not None:
            link.__traceback__ = None
            links += link.__cause__, link.__context__
    return error


class _TooSlowError(StoreUnavailableError):
    """The store signs, and takes longer than headers may be old."""
