"""Headers that were signed ahead, in a pool for each route, and which of them may still be used.

Time is read from two clocks. Kalshi compares timestamps with the wall clock; a clock that can't be set, and that keeps
running while the machine sleeps, tells how much time has really passed. If the two disagree about the age of a header,
the wall clock was set or the machine was suspended meanwhile, and the header isn't used.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable  # noqa: TC003 - annotates a value of this module
from contextlib import suppress
from functools import partial
from typing import Final

from hsm_keys.errors import UsageError
from hsm_keys.forks import ProcessLock
from hsm_keys.signing.headers import KEY_HEADER
from hsm_keys.signing.message import canonical_method, canonical_path
from hsm_keys.values import shown_path

__all__ = ["HeaderPools", "PoolEntry", "Route", "RoutePool", "elapsed_ns"]

Route = tuple[str, str]
"""Method and path, as they are signed."""

PoolEntry = tuple[dict[str, str], int, int]
"""Headers, the elapsed time when they were begun (nanoseconds), and their timestamp (milliseconds)."""

_STEP_NS: Final = 100_000_000
"""How far the clocks may disagree about an age: more than rounding, slewing and a busy machine, and harmless."""

_STAMPS_AHEAD_MS: Final = 20
"""How far timestamps may run ahead of the clock so that no two are alike; harmless as well."""

_COUNTED_NS: Final = 20_000_000
"""For how long it is counted at least how often a route is asked for."""

_IN_HAND_S: Final = 0.05
_DEEPEST: Final = 32
"""The most that is kept of a learned route; more of them would have timestamps that are further apart."""

_PREFIX: Final = "/trade-api/"
_REMEMBERED: Final = 256
_bookkeeping = ProcessLock()  # held for microseconds: never while something is signed


elapsed_ns: Callable[[], int] = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic_ns
)
"""Nanoseconds on a clock that nobody sets; on Linux it counts the time in suspend too."""


class RoutePool:
    """The headers that are ready for one route, the oldest first. Each entry is popped by one caller only.

    Attributes:
        worker_knows: The worker knows that something is missing, or has been told to look.
        drawn: How often something was asked for since ``counted_at``; about as often, if threads draw at one time.
        counted_at: The elapsed time since which that is counted, in nanoseconds.
        least: How many entries are kept however seldom they are asked for.
        gone: The route was discarded.
        low: How many entries are left when the worker is told. With half of them in hand it may sleep on.
        stamped: The last timestamp that was signed for, in milliseconds.
    """

    __slots__ = (
        "counted_at",
        "depth",
        "drawn",
        "entries",
        "gone",
        "learned",
        "least",
        "low",
        "route",
        "stamped",
        "used_at",
        "worker_knows",
    )

    def __init__(self, route: Route, depth: int, used_at: int, *, learned: bool) -> None:
        self.route = route
        self.keep(depth, learned=learned)
        self.used_at = self.counted_at = used_at
        self.entries: deque[PoolEntry] = deque()
        self.stamped = self.drawn = 0
        self.worker_knows = self.gone = False

    def keep(self, depth: int, *, learned: bool) -> None:
        """Keep so many entries: of a route that is learned at least so many."""
        self.learned = learned
        self.least = self.depth = depth
        self.low = depth // 2

    def follow_use(self, now: int, fastest: float) -> None:
        """Keep what is asked for in 50 milliseconds, if the route is learned: a burst finds some, an idle one few.

        Args:
            now: The elapsed time, in nanoseconds.
            fastest: Entries a second that can be made.
        """
        counted_ns = now - self.counted_at
        if counted_ns < _COUNTED_NS:
            return
        drawn, self.drawn, self.counted_at = self.drawn, 0, now
        if drawn:
            self.used_at = now
        if self.learned:
            rate = min(drawn * 1_000_000_000 / counted_ns, fastest)
            self.depth = max(self.least, min(int(rate * _IN_HAND_S), _DEEPEST))
            self.low = self.depth // 2


class HeaderPools:
    """The pools of one process.

    Args:
        wall: Gives the Unix time in milliseconds.
        elapsed: Gives the elapsed time in nanoseconds.
        max_age: Seconds for which headers may be handed out.
        learn: How many routes are learned from use at most.

    Attributes:
        by_route: The pool of each route. Read without a lock; changed under one.
    """

    def __init__(self, wall: Callable[[], int], elapsed: Callable[[], int], *, max_age: float, learn: int) -> None:
        self.wall = wall
        self.elapsed = elapsed
        self.by_route: dict[Route, RoutePool] = {}
        self.made = self.missed = self.expired = self.discarded = 0
        self._max_age_ns = int(max_age * 1_000_000_000)
        self._max_age_ms = int(max_age * 1000)
        self._learn = learn
        self._seen: OrderedDict[Route, None] = OrderedDict()

    def is_good(self, entry: PoolEntry, api_key_id: str) -> bool:
        """Tell whether headers may be handed out now."""
        headers, begun, stamp = entry
        age = self.elapsed() - begun
        by_wall = self.wall() - stamp
        return (
            age <= self._max_age_ns
            and by_wall <= self._max_age_ms
            and -_STEP_NS <= by_wall * 1_000_000 - age <= _STEP_NS
            and headers[KEY_HEADER] == api_key_id
        )

    def stamp(self, pool: RoutePool) -> int:
        """Return a timestamp to sign for, in milliseconds: the time, and another one each time.

        Ed25519 signs the same message alike (RFC 8032): two headers of one route and one millisecond would be one
        header, used twice. Over 1,000 a second for one route, sustained, timestamps do repeat.
        """
        with _bookkeeping:
            now, following = self.wall(), pool.stamped + 1
            pool.stamped = following if now < following <= now + _STAMPS_AHEAD_MS else now
            return pool.stamped

    def put(self, pool: RoutePool, entry: PoolEntry) -> None:
        """Put headers into a pool; only the worker does."""
        self.made += 1
        pool.entries.append(entry)
        if pool.gone:  # discarded while this was signed
            self._clear(pool)

    def tidy(self, pool: RoutePool, api_key_id: str) -> None:
        """Drop what may not be handed out any more."""
        while True:
            try:
                entry = pool.entries.popleft()
            except IndexError:
                return
            if self.is_good(entry, api_key_id):
                pool.entries.appendleft(entry)
                return
            self.dropped(entry)

    def trim(self, pool: RoutePool) -> None:
        """Drop the oldest, which have successors by now: no header lies in memory longer than it has to."""
        with suppress(IndexError):
            while len(pool.entries) > pool.depth:
                pool.entries.popleft()
                with _bookkeeping:
                    self.expired += 1

    def find(self, method: str, path: str) -> RoutePool | None:
        """Return the pool of a route however it is written, if there is one.

        Raises:
            UsageError: If the method or the path can't be signed.
        """
        return self.by_route.get((canonical_method(method), canonical_path(path)))

    def add(self, method: str, path: str, depth: int) -> RoutePool:
        """Return the pool of a route, made if there is none; a learned one is kept from now on.

        Raises:
            UsageError: If the method or the path can't be signed, or isn't one of Kalshi's.
        """
        route = canonical_method(method), canonical_path(path)
        if not route[1].startswith(_PREFIX):
            raise UsageError(
                f"no request goes to {shown_path(path)}, so there is nothing to sign ahead for",
                hint="give the whole path, such as /trade-api/v2/portfolio/events/orders",
            )
        with _bookkeeping:
            pool = self.by_route.get(route)
            if pool is None:
                pool = self.by_route[route] = RoutePool(route, depth, self.elapsed(), learned=False)
            pool.keep(depth, learned=False)
        return pool

    def discard(self, method: str, path: str) -> None:
        """Drop a route and its headers, if there are any."""
        with _bookkeeping:
            pool = self.by_route.pop((canonical_method(method), canonical_path(path)), None)
        if pool is not None:
            self._clear(pool)

    def clear(self) -> None:
        """Drop all routes and all headers."""
        for route in list(self.by_route):
            self.discard(*route)

    def missed_one(self, method: str, path: str, depth: int) -> RoutePool | None:
        """Count headers that had to be signed at once; return the pool of a route that is learned from it.

        A route is learned when it is missed a second time: most cancel paths are used once.
        """
        route = canonical_method(method), canonical_path(path)
        with _bookkeeping:
            if route in self.by_route:
                self.missed += 1
                return None
            if not self._learn or not route[1].startswith(_PREFIX):
                return None
            if route not in self._seen:
                self._seen[route] = None
                if len(self._seen) > _REMEMBERED:
                    self._seen.popitem(last=False)
                return None
            del self._seen[route]
            learned = [pool for pool in self.by_route.values() if pool.learned]
            pool = self.by_route[route] = RoutePool(route, depth, self.elapsed(), learned=True)
        if len(learned) >= self._learn:
            self.discard(*min(learned, key=lambda one: (one.drawn > 0, one.used_at)).route)
        return pool

    def in_hand(self) -> int:
        """Return how many entries there are."""
        return sum(len(pool.entries) for pool in list(self.by_route.values()))

    def _clear(self, pool: RoutePool) -> None:
        pool.gone = True  # before the entries go: what the worker lays down after this it clears itself
        with suppress(IndexError):
            while True:
                pool.entries.popleft()
                with _bookkeeping:
                    self.discarded += 1

    def dropped(self, entry: PoolEntry) -> None:
        """Count an entry that wasn't good any more."""
        with _bookkeeping:
            if self._max_age_ns < self.elapsed() - entry[1]:
                self.expired += 1
            else:
                self.discarded += 1
