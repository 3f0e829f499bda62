"""Measures how fast something signs, on several threads for some seconds; every signature is timed."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.signing.message import REST_PREFIX, signing_message
from hsm_keys.signing.signer import now_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.signing.signer import RequestSigner

__all__ = ["Result", "in_memory", "measure", "measure_ahead", "measure_in_turns", "order_headers"]

_PATH: Final = f"{REST_PREFIX}/portfolio/events/orders"
_ORDER: Final = ("POST", _PATH)
_PACE_S: Final = 0.01
_FIRST_S: Final = 5.0
_WARM_UP: Final = 3
_TURN_S: Final = 0.02
_JOIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a measurement.

    Args:
        what: What signed.
        threads: On how many threads at once.
        seconds: For how long.
        latencies_us: Microseconds that each signature took, in ascending order.
    """

    what: str
    threads: int
    seconds: float
    latencies_us: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Signatures a second, all threads together."""
        return len(self.latencies_us) / self.seconds

    def percentile(self, percent: float) -> float:
        """Return the microseconds within which so many of a hundred signatures were made (nearest rank)."""
        rank = math.ceil(percent / 100 * len(self.latencies_us))
        return self.latencies_us[max(0, rank - 1)]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as it goes into JSON output; times in microseconds."""
        return {
            "what": self.what,
            "threads": self.threads,
            "signatures": len(self.latencies_us),
            "signatures_per_second": round(self.rate, 1),
            **{f"p{percent}_us": round(self.percentile(percent), 1) for percent in (50, 95, 99)},
            "max_us": round(self.latencies_us[-1], 1),
        }


def measure(what: str, sign: Callable[[bytes], object], *, threads: int, seconds: float) -> Result:
    """Sign on so many threads for so long.

    Args:
        what: What it is called in the result.
        sign: Makes one signature over a message.
        threads: How many sign at once.
        seconds: For how long; each thread signs once more if it has begun.

    Raises:
        HsmKeysError: Whatever the first thread that failed ran into.
    """
    for _ in range(_WARM_UP):  # so that sessions, look-ups and the first verification aren't measured
        sign(_message())
    barrier = threading.Barrier(threads + 1)
    latencies: list[list[float]] = [[] for _ in range(threads)]
    failures: list[BaseException] = []

    def work(mine: list[float]) -> None:
        barrier.wait()
        until = time.perf_counter() + seconds
        try:
            while (begun := time.perf_counter()) < until:
                sign(_message())
                mine.append((time.perf_counter() - begun) * 1e6)
        except Exception as error:  # noqa: BLE001 - the waiting thread raises it
            failures.append(error)

    workers = [threading.Thread(target=work, args=(mine,), daemon=True) for mine in latencies]
    for worker in workers:
        worker.start()
    barrier.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join(seconds + _JOIN_S)
    if failures:
        raise failures[0]
    return Result(
        what, threads, time.perf_counter() - begun, tuple(sorted(took for mine in latencies for took in mine))
    )


def measure_in_turns(calls: dict[str, Callable[[bytes], object]], *, seconds: float) -> list[Result]:
    """Sign with each on one thread for so long, in short turns: what else the machine does meets all of them alike.

    Args:
        calls: What signs a message, by what it is called in the results.
        seconds: How long each signs in all.

    Raises:
        HsmKeysError: Whatever the first that failed ran into.
    """
    for sign in calls.values():
        for _ in range(_WARM_UP):
            sign(_message())
    latencies: dict[str, list[float]] = {what: [] for what in calls}
    spent = dict.fromkeys(calls, 0.0)
    while min(spent.values()) < seconds:
        for what, sign in calls.items():
            began = at = time.perf_counter()
            while at < began + _TURN_S:
                sign(_message())
                latencies[what].append(((after := time.perf_counter()) - at) * 1e6)
                at = after
            spent[what] += at - began
    return [Result(what, 1, spent[what], tuple(sorted(times))) for what, times in latencies.items()]


def order_headers(signer: RequestSigner) -> Callable[[bytes], object]:
    """Return what makes an order's headers: what the signer adds to the signature is in it."""
    return lambda _: signer.headers(*_ORDER)


def measure_ahead(signer: RequestSigner, *, seconds: float) -> tuple[Result, int]:
    """Take an order's headers that were signed ahead, at a bot's pace, for so long.

    Returns:
        What taking them took, and how many had to be signed at once as none were in hand.

    Raises:
        HsmKeysError: If the store can't sign.
    """
    signer.headers(*_ORDER)  # otherwise an error would show only in the background
    times: list[float] = []
    with signer.ahead([_ORDER], rate=2 / _PACE_S) as ahead:
        begun = time.perf_counter()
        while not ahead.stats.in_hand and time.perf_counter() < begun + _FIRST_S:
            time.sleep(_PACE_S)
        begun = time.perf_counter()
        while (at := time.perf_counter()) < begun + seconds or not times:
            ahead.headers(*_ORDER)
            times.append((time.perf_counter() - at) * 1e6)
            time.sleep(_PACE_S)
        missed = ahead.stats.missed
    return Result("ahead", 1, time.perf_counter() - begun, tuple(sorted(times))), missed


def _message() -> bytes:
    return signing_message(now_ms(), "POST", _PATH)


def in_memory(key_type: str) -> Callable[[bytes], bytes]:
    """Return what signs as Kalshi wants it with a new key in memory: what the store is compared with."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

    if key_type == "ed25519":
        return ed25519.Ed25519PrivateKey.generate().sign
    key = rsa.generate_private_key(65537, int(key_type.removeprefix("rsa-")))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    algorithm = hashes.SHA256()
    return lambda message: key.sign(message, pss, algorithm)
