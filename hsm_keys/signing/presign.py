"""Signing ahead: headers made before they are needed.

Kalshi signs timestamp, method and path, not the body, and takes a timestamp that is some seconds old. So the headers of
a route that is used often can wait for the request, instead of the other way round. The price: whoever reads the
memory of the process finds headers that are good for that one route, for as long as Kalshi takes their timestamp.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import isfinite
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Self

from hsm_keys.errors import UsageError
from hsm_keys.forks import ProcessLock, fork_generation
from hsm_keys.signing.presign_pool import HeaderPools, Route, RoutePool, elapsed_ns
from hsm_keys.signing.presign_schedule import REPLACED_AT, PresignSchedule
from hsm_keys.signing.signer import DEFAULT_RATE, RequestSigner, now_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from hsm_keys.signing.signer import MessageSigner

__all__ = ["PresignCost", "PresignStats", "PresigningSigner", "presign_cost"]

_MAX_AGE_S: Final = 3.0
"""Kalshi's limit is about 5 seconds: what is left is for the way there and for clocks that differ."""

_MAX_DEPTH: Final = 1000
_JOIN_S: Final = 10.0
_changing = ProcessLock()
_open: weakref.WeakSet[PresigningSigner] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class PresignStats:
    """Counters of signing ahead, since the start or the last fork.

    Attributes:
        made: Headers that were made ahead.
        taken: Those of them that were handed out.
        missed: Headers for kept routes that were signed at once because none were ready.
        expired: Those that nobody took in time.
        discarded: Those dropped because the clock was set, the key was rotated, or their route was discarded.
        in_hand: Those there are now, of all routes.
        errors: How often a signature ahead failed.
        error: The last such error, without its traceback.
    """

    made: int
    taken: int
    missed: int
    expired: int
    discarded: int
    in_hand: int
    errors: int
    error: Exception | None


@dataclass(frozen=True, slots=True)
class PresignCost:
    """The cost of signing ahead while no header is used; each used header adds at most one signature.

    Attributes:
        signatures_per_hour: How many are made ahead.
        price_per_hour: What they cost, in the currency of the price; None without a price.
    """

    signatures_per_hour: float
    price_per_hour: float | None


def presign_cost(
    *,
    routes: int,
    depth: int = 4,
    max_age: float = 1.0,
    rate: float = DEFAULT_RATE,
    price_per_10_000: float | None = None,
) -> PresignCost:
    """Return what a setting costs, as with KMS each signature is paid for.

    Args:
        routes: How many routes are kept.
        depth: As for ``RequestSigner.ahead``.
        max_age: The same.
        rate: The same.
        price_per_10_000: What 10,000 signatures cost, in any currency.

    Raises:
        UsageError: If the setting would be refused.
    """
    _check(depth, max_age, rate, learn=0)
    if routes < 0:
        raise UsageError(f"{routes} is not a number of routes", hint="give 0 or more")
    an_hour = min(rate, routes * depth / (max_age * REPLACED_AT)) * 3600
    return PresignCost(an_hour, None if price_per_10_000 is None else an_hour * price_per_10_000 / 10_000)


class PresigningSigner(RequestSigner):
    """A signer that keeps a few unused headers ready. ``signer.ahead()`` makes it; it replaces a signer anywhere.

    ``headers`` hands each of them out once, and signs at once where it has none that is fresh; so it never waits for
    the worker, a daemon thread. Close it, or use it as a context manager: then it drops what it has, and goes on as
    a plain signer. A forked child has no headers ready, and begins at its first use of this object.

    Args:
        key: As for ``RequestSigner``; so are ``api_key_id``, ``clock`` and ``follow``.
        routes: Methods and paths to sign ahead for; paths with their ``/trade-api/...`` prefix.
        depth: How many headers to keep for each route.
        max_age: Seconds after which headers aren't handed out any more; 3 at most.
        rate: Signatures a second that are made ahead in each process, at most. Those made at once aren't counted.
        learn: How many further routes are learned from use at most: those asked for twice, until they weren't asked
            for in a minute. As many headers of each are kept as are asked for in 50 milliseconds: ``depth`` at least,
            32 at most.
        elapsed: Gives the time in nanoseconds, on a clock that isn't set.

    Raises:
        KeyNotRegisteredError: If there is no API key id.
        UsageError: If a number is out of range, or a route can't be signed.
    """

    def __init__(
        self,
        key: MessageSigner,
        *,
        api_key_id: str | None = None,
        clock: Callable[[], int] = now_ms,
        follow: Callable[[], MessageSigner] | None = None,
        routes: Iterable[Route] = (),
        depth: int = 4,
        max_age: float = 1.0,
        rate: float = DEFAULT_RATE,
        learn: int = 0,
        elapsed: Callable[[], int] = elapsed_ns,
    ) -> None:
        super().__init__(key, api_key_id=api_key_id, clock=clock, follow=follow)
        _check(depth, max_age, rate, learn=learn)
        self._depth = depth
        self._new_pools = partial(HeaderPools, clock, elapsed, max_age=max_age, learn=learn)
        self._new_schedule = partial(PresignSchedule, max_age=max_age, rate=rate)
        self._closed = False
        self._afresh([(method, path, depth) for method, path in routes])

    def headers(self, method: str, path: str, *, timestamp_ms: int | None = None) -> dict[str, str]:
        """Return the three headers that authenticate one request: signed ahead if there are any, else signed now.

        Args:
            method: HTTP method.
            path: Absolute path as it goes over the wire.
            timestamp_ms: Unix time in milliseconds, to sign for at once; without it, headers that are ready are used.

        Raises:
            UsageError: If the method or the path can't be signed.
            HsmKeysError: Whatever the store raises when it can't sign at once.
        """
        if timestamp_ms is not None:
            return super().headers(method, path, timestamp_ms=timestamp_ms)
        taken = self.take(method, path)
        if taken is not None:
            return taken
        signed = super().headers(method, path)
        self._signed_at_once(method, path)
        return signed

    def take(
        self, method: str, path: str, *, later: Callable[[Callable[[], None]], object] | None = None
    ) -> dict[str, str] | None:
        """Return headers that were signed ahead, or None. Never signs, never blocks.

        Args:
            method: HTTP method.
            path: Absolute path as it goes over the wire.
            later: Is given what wakes the worker, to call it soon; by default it is woken at once, and may hold the
                GIL while the request is sent that these headers are for.

        Raises:
            UsageError: If the method or the path can't be signed.
        """
        pool = self._by_route.get((method, path)) or self._find(method, path)
        if pool is None:
            return None
        pool.drawn += 1
        entries = pool.entries
        try:
            # popleft is atomic: no lock, however many threads draw. The clocks are read after it, or a thread that
            # is kept waiting in between would take what has grown too old.
            while not self._is_good(entry := entries.popleft(), self._live[0]):
                self._pools.dropped(entry)
        except IndexError:
            entry = None
        if len(entries) <= pool.low and not pool.worker_knows:
            pool.worker_knows = True
            if later is None:
                self._wake_ups.put(pool)
            else:
                later(partial(self._wake_ups.put, pool))
        return None if entry is None else entry[0]

    def add(self, method: str, path: str, *, depth: int | None = None) -> None:
        """Sign ahead for a further route, such as the one that cancels an order; without effect once closed.

        Args:
            method: HTTP method.
            path: Absolute path with its prefix.
            depth: How many headers to keep; 1 is enough for a route that is used once.

        Raises:
            UsageError: If the method or the path can't be signed, or the depth is out of range.
        """
        depth = self._depth if depth is None else depth
        _check_depth(depth)
        if self._generation != fork_generation():
            self._after_fork()
        with _changing:
            if not self._closed:
                self._wake_ups.put(self._pools.add(method, path, depth))

    def discard(self, method: str, path: str) -> None:
        """Stop signing ahead for a route, and drop its headers. An unknown route is no error.

        Raises:
            UsageError: If the method or the path can't be signed.
        """
        if self._generation != fork_generation():
            self._after_fork()
        self._pools.discard(method, path)

    @property
    def stats(self) -> PresignStats:
        """The counters so far. While headers are taken, they may lag behind a little."""
        if self._generation != fork_generation():
            self._after_fork()
        pools, schedule = self._pools, self._schedule
        in_hand, dropped = pools.in_hand(), pools.expired + pools.discarded
        return PresignStats(
            made=pools.made,
            taken=max(0, pools.made - dropped - in_hand),
            missed=pools.missed,
            expired=pools.expired,
            discarded=pools.discarded,
            in_hand=in_hand,
            errors=schedule.errors,
            error=schedule.error,
        )

    def close(self) -> None:
        """End the worker and drop all headers. A signature that is under way is waited for, at most 10 seconds."""
        self._end()
        self._join(_JOIN_S)
        self._pools.clear()

    def _end(self) -> None:
        with _changing:
            self._closed = True
        self._wake_ups.put(None)

    def _join(self, seconds: float) -> None:
        worker = self._worker if self._generation == fork_generation() else None
        if worker is not None and worker.is_alive() and worker is not threading.current_thread():
            worker.join(seconds)

    def _stamp(self, method: str, path: str) -> int:
        pool = None if self._closed else self._find(method, path)
        return self._clock() if pool is None else self._pools.stamp(pool)

    def _find(self, method: str, path: str) -> RoutePool | None:
        if self._generation != fork_generation():
            self._after_fork()
        return self._pools.find(method, path)

    def _signed_at_once(self, method: str, path: str) -> None:
        if self._closed:
            return
        learned = self._pools.missed_one(method, path, self._depth)
        if self._schedule.resume() or learned is not None:
            self._wake_ups.put(learned)

    def _afresh(self, routes: Iterable[tuple[str, str, int]]) -> None:
        """Begin without headers, and with locks, queues and a thread that belong to this process."""
        self._pools = self._new_pools()
        # Direct references save the callers that take headers two look-ups.
        self._by_route, self._is_good = self._pools.by_route, self._pools.is_good
        self._schedule = self._new_schedule(self._pools)
        self._wake_ups: SimpleQueue[RoutePool | None] = SimpleQueue()
        for method, path, depth in routes:
            self._wake_ups.put(self._pools.add(method, path, depth))
        # The worker holds no reference to the signer, so a signer that was forgotten stops signing.
        gone = weakref.ref(self, partial(_put_none, self._wake_ups))
        self._worker = threading.Thread(target=_work, args=(gone, self._wake_ups), name="hsm-keys-ahead", daemon=True)
        self._generation = fork_generation()
        if not self._closed:
            _open.add(self)
            with suppress(RuntimeError):  # no thread can be started: then everything is signed at once
                self._worker.start()

    def _after_fork(self) -> None:
        with _changing:
            if self._generation == fork_generation():
                return  # another thread of the child was first
            routes = [(*pool.route, pool.depth) for pool in self._pools.by_route.values() if not pool.learned]
            self._afresh(routes)

    def _work_once(self, pool: RoutePool | None = None) -> float | None:
        """Do what is due, as the worker; return seconds until there is more, None until somebody asks."""
        wake_ups: list[RoutePool | None] = [pool]
        with suppress(Empty):
            while True:
                wake_ups.append(self._wake_ups.get_nowait())
        for one in wake_ups:
            if one is not None:
                self._schedule.look_at(one, self._live[0])
        return self._schedule.tick(self._headers_of, self._live[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        routes = len(self._pools.by_route)
        return f"PresigningSigner(key={self.key.name!r}, api_key_id={self.api_key_id!r}, routes={routes})"


def _work(ref: weakref.ref[PresigningSigner], wake_ups: SimpleQueue[RoutePool | None]) -> None:
    """Make headers until the signer is closed or gone.

    Each time that this thread runs it takes the GIL from the program. So it polls nothing: it sleeps in C until a
    pool is half empty, the oldest headers need successors, or the rate allows the next signature.
    """
    pool = None
    while True:
        signer = ref()
        if signer is None or signer._closed:  # noqa: SLF001 - the other half of the class
            return
        wait = signer._work_once(pool)  # noqa: SLF001
        del signer
        try:
            pool = wake_ups.get(timeout=wait)
        except Empty:
            pool = None


def _put_none(wake_ups: SimpleQueue[RoutePool | None], _ref: object) -> None:
    wake_ups.put(None)


def _empty_in_child() -> None:
    """Take away what the parent hands out; each signer begins again when it doesn't find its route."""
    for signer in list(_open):
        signer._by_route = {}  # noqa: SLF001


os.register_at_fork(after_in_child=_empty_in_child)


@atexit.register
def _close_all() -> None:
    """End the workers before the libraries that they sign with are unloaded; they share their time for it."""
    signers, until = list(_open), time.monotonic() + _JOIN_S
    for signer in signers:
        signer._end()  # noqa: SLF001
    for signer in signers:
        signer._join(max(0.0, until - time.monotonic()))  # noqa: SLF001
        signer._pools.clear()  # noqa: SLF001


def _check(depth: int, max_age: float, rate: float, *, learn: int) -> None:
    _check_depth(depth)
    if not 0 < max_age <= _MAX_AGE_S:
        raise UsageError(
            f"max_age is {max_age} seconds, and has to be above 0 and at most {_MAX_AGE_S:.0f}",
            hint="Kalshi refuses timestamps that are about 5 seconds old, and a request takes time too",
        )
    if not (isfinite(rate) and rate > 0):
        raise UsageError(f"a rate of {rate} signatures a second is not possible", hint="give a number above 0")
    if learn < 0:
        raise UsageError(f"learn is {learn}, and has to be a number of routes", hint="give 0 or more")


def _check_depth(depth: int) -> None:
    if not 1 <= depth <= _MAX_DEPTH:
        raise UsageError(
            f"depth is {depth}, and has to be a number of headers for a route", hint=f"give 1 to {_MAX_DEPTH}"
        )
