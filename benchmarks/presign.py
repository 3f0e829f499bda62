# ruff: noqa: INP001, T201 - a script that prints what it measures
"""What headers that were signed ahead cost whoever takes them, against signing at once, in the same run.

    python benchmarks/presign.py [DRAWS]

The key is RSA-2048: in memory with ``cryptography``, one that takes 10 ms as KMS does, and in SoftHSM if that is there.
kalshi-sdk's own signature with a key in memory is measured beside them, if it is there, and what a thread that computes
all the time costs. With DRAWS (1,000,000, say), that many headers are drawn on four threads with a stand-in for a key,
to see that none comes twice or too old.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from hsm_keys import RequestSigner, open_store  # noqa: E402
from hsm_keys.signing.headers import SIGNATURE_HEADER, TIMESTAMP_HEADER  # noqa: E402
from hsm_keys.signing.pem import PemKey  # noqa: E402
from hsm_keys.signing.presign import presign_cost  # noqa: E402
from hsm_keys.signing.signer import now_ms  # noqa: E402
from tests.support import softhsm  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

ROUTE = ("POST", "/trade-api/v2/portfolio/events/orders")
ROUNDS = 1000
INTERVALS = (0.005, 0.0001)
IN_A_ROW = 4
PAUSE_S = 0.008
"""Between orders: so that the worker works as it does in a program, and may get in the way as it does there.
Longer where a key needs longer to make again what was drawn."""


class Numbers:
    """A key whose signature costs nothing, and comes once."""

    name, api_key_id = "numbers", "0f8fad5b-d9cb-469f-a165-70867728950e"

    def __init__(self) -> None:
        self._next = count()

    def sign(self, _message: bytes, /) -> bytes:
        """Return a number."""
        return next(self._next).to_bytes(8)


class Slow:
    """A key that takes as long as KMS from nearby."""

    name, api_key_id = "slow", Numbers.api_key_id

    def __init__(self, key: PemKey) -> None:
        self._key = key

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature, 10 ms later."""
        time.sleep(0.010)
        return self._key.sign(message)


def microseconds(call: Callable[[], object], rounds: int = ROUNDS, *, pause_s: float = PAUSE_S) -> list[list[float]]:
    """Return how long calls took: the first after a pause, with cold caches, and the next ones."""
    taken: list[list[float]] = [[] for _ in range(IN_A_ROW)]
    for _ in range(rounds):
        for times in taken:
            began = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - began) / 1000)
        time.sleep(pause_s)
    return taken


def compare(title: str, signer: RequestSigner, sdk: dict[str, float], *, depth: int = 32, rounds: int = ROUNDS) -> None:
    """Print what taking costs beside signing at once, and beside kalshi-sdk's own p50 with a key in memory."""
    at_once = microseconds(lambda: signer.headers(*ROUTE), rounds)
    pause_s = max(PAUSE_S, 2 * IN_A_ROW * statistics.median(at_once[0]) / 1e6)
    with signer.ahead([ROUTE], depth=depth, max_age=3.0, rate=3000) as ahead:
        while ahead.stats.in_hand < depth // 2:
            time.sleep(0.05)
        taken = microseconds(lambda: ahead.headers(*ROUTE), rounds, pause_s=pause_s)
        stats = ahead.stats
    for name, turn in {"first": slice(1), "next": slice(1, None)}.items():
        signed, drawn = (list(chain.from_iterable(each[turn])) for each in (at_once, taken))
        p50s = statistics.median(signed), statistics.median(drawn)
        p99s = statistics.quantiles(signed, n=100)[98], statistics.quantiles(drawn, n=100)[98]
        times = f"{p50s[0]:9.1f} {p99s[0]:9.1f} {p50s[1]:9.2f} {p99s[1]:9.2f} {p50s[0] / p50s[1]:7.0f}x"
        beside_sdk = f" {sdk[name] / p50s[1]:9.0f}x" if sdk else ""
        print(f"{title + ', ' + name:<26} {times}{beside_sdk}")
    print(f"{'':<26} {stats.taken} taken, {stats.missed} missed")


def beside_a_busy_thread(signer: RequestSigner) -> None:
    """Print what a header in hand costs with and without a thread that computes all the time."""
    over = threading.Event()

    def compute() -> None:
        number = 0
        while not over.is_set():
            number = (number * 31 + 7) % 1_000_003

    computing = threading.Thread(target=compute, daemon=True)
    medians: dict[float | None, tuple[float, float]] = {}
    for interval in (None, *INTERVALS):
        with signer.ahead([ROUTE], depth=32, max_age=3.0, rate=3000) as ahead:
            time.sleep(0.3)
            if interval is not None:
                sys.setswitchinterval(interval)
                if not computing.ident:
                    computing.start()
            first, *following = microseconds(lambda: ahead.headers(*ROUTE))
            medians[interval] = statistics.median(first), statistics.median(chain.from_iterable(following))
    over.set()
    computing.join()
    sys.setswitchinterval(INTERVALS[0])
    for interval in INTERVALS:
        for name, busy, alone in zip(("first", "next"), medians[interval], medians[None], strict=True):
            print(
                f"in hand beside a busy thread, {interval * 1000:g} ms, {name}: p50 {busy:.2f}, "
                f"without it {alone:.2f}: {busy / alone:.2f} times (about 1)"
            )


def empty_call() -> None:
    """Print what a call costs that does nothing: what is measured here holds as much."""
    first, *following = microseconds(lambda: None)
    for name, times in {"first": first, "next": list(chain.from_iterable(following))}.items():
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        print(f"{'an empty call, ' + name:<46} {p50:9.2f} {p99:9.2f}")


def kalshi_sdk(pem: bytes) -> dict[str, float]:
    """Print what kalshi-sdk's own signature costs with a key in memory; return its p50s."""
    try:
        from kalshi.auth import KalshiAuth
    except ImportError:
        print("kalshi-sdk isn't there to compare with")
        return {}
    auth = KalshiAuth(Numbers.api_key_id, serialization.load_pem_private_key(pem, None))
    taken = microseconds(lambda: auth.sign_request(*ROUTE))
    p50s = {}
    for name, turn in {"first": slice(1), "next": slice(1, None)}.items():
        times = list(chain.from_iterable(taken[turn]))
        p50s[name] = statistics.median(times)
        print(f"{'kalshi-sdk, ' + name:<26} {p50s[name]:9.1f} {statistics.quantiles(times, n=100)[98]:9.1f}")
    return p50s


def stands_in_the_way() -> None:
    """Print what an idle worker takes of a processor."""
    with RequestSigner(Numbers()).ahead([ROUTE]):
        time.sleep(0.2)
        began = time.process_time()
        time.sleep(3)
        print(
            f"an idle worker with the default setting: {(time.process_time() - began) / 3 * 100:.2f} % of a processor"
        )


def draws(number: int, threads: int = 4) -> None:
    """Draw, and look at each."""
    seen: list[list[str]] = [[] for _ in range(threads)]
    oldest = [0] * threads

    def draw(mine: int) -> None:
        for turn in range(number // threads):
            before = now_ms()
            headers = ahead.headers(*ROUTE)
            seen[mine].append(headers[SIGNATURE_HEADER])
            oldest[mine] = max(oldest[mine], before - int(headers[TIMESTAMP_HEADER]))
            if turn % 50 == 0:
                time.sleep(0.0005)  # or else the worker never gets the GIL

    with RequestSigner(Numbers()).ahead([ROUTE], depth=500, rate=1e6) as ahead:
        running = [threading.Thread(target=draw, args=(mine,)) for mine in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        stats = ahead.stats
    every = [one for mine in seen for one in mine]
    twice = len(every) - len(set(every))
    print(
        f"{len(every)} drawn, {stats.taken} of them in hand: {twice} twice, oldest {max(oldest)} ms (0, at most 1000)"
    )


def main() -> None:
    """Measure everything."""
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    print("targets in hand: p50 at most 10, p99 at most 50, at least 20x faster than kalshi-sdk's own key at p50")
    print(f"{'microseconds':<26} {'at once':>19} {'in hand':>19} {'faster at p50, than':>20}")
    print(f"{'':<26} {'p50':>9} {'p99':>9} {'p50':>9} {'p99':>9} {'at once':>8} {'the SDK':>10}")
    empty_call()
    sdk = kalshi_sdk(pem)
    in_memory = PemKey(Numbers.api_key_id, pem)
    compare("in memory", RequestSigner(in_memory), sdk)
    compare("takes 10 ms", RequestSigner(Slow(in_memory)), sdk, depth=16, rounds=250)
    if softhsm.missing() is None:
        with tempfile.TemporaryDirectory() as folder:
            hsm = softhsm.SoftHsm(Path(folder))
            os.environ["SOFTHSM2_CONF"] = str(hsm.conf)
            with open_store(hsm.init_token().uri) as store:
                key = store.bind(store.generate("prod"), Numbers.api_key_id, "prod")
                compare("SoftHSM", key.signer(), sdk)
    beside_a_busy_thread(RequestSigner(in_memory))
    stands_in_the_way()
    print(f"and {presign_cost(routes=1).signatures_per_hour:,.0f} signatures an hour")
    if len(sys.argv) > 1:
        draws(int(sys.argv[1]))


if __name__ == "__main__":
    main()
