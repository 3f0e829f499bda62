# ruff: noqa: INP001, T201 - a script that prints what it measures
"""What headers that were signed ahead cost whoever takes them, against signing at once, in the same run.

    python benchmarks/presign.py [DRAWS]

The key is RSA-2048: in memory with ``cryptography``, and in SoftHSM if that is there. With DRAWS (1,000,000, say), that
many headers are drawn on four threads with a stand-in for a key, to see that none comes twice or too old.
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
from hsm_keys.signing.pem import PemKey  # noqa: E402
from hsm_keys.signing.presign import presign_cost  # noqa: E402
from hsm_keys.signing.signer import SIGNATURE_HEADER, TIMESTAMP_HEADER, now_ms  # noqa: E402
from tests.support import softhsm  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

ROUTE = ("POST", "/trade-api/v2/portfolio/orders")
ROUNDS = 1000
IN_A_ROW = 4
PAUSE_S = 0.008
"""Between orders: so that the worker works as it does in a program, and may get in the way as it does there."""


class Numbers:
    """A key whose signature costs nothing, and comes once."""

    name, api_key_id = "numbers", "0f8fad5b-d9cb-469f-a165-70867728950e"

    def __init__(self) -> None:
        self._next = count()

    def sign(self, _message: bytes, /) -> bytes:
        """Return a number."""
        return next(self._next).to_bytes(8)


def microseconds(call: Callable[[], object]) -> list[list[float]]:
    """Return how long calls took: the first after a pause, with cold caches, and the next ones."""
    taken: list[list[float]] = [[] for _ in range(IN_A_ROW)]
    for _ in range(ROUNDS):
        for times in taken:
            began = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - began) / 1000)
        time.sleep(PAUSE_S)
    return taken


def compare(title: str, signer: RequestSigner) -> None:
    """Print what taking costs beside signing at once."""
    at_once = microseconds(lambda: signer.headers(*ROUTE))
    with signer.ahead([ROUTE], depth=32, rate=3000) as ahead:
        time.sleep(0.2)
        taken = microseconds(lambda: ahead.headers(*ROUTE))
        stats = ahead.stats
    for name, turn in {"first": slice(1), "next": slice(1, None)}.items():
        signed, drawn = (list(chain.from_iterable(each[turn])) for each in (at_once, taken))
        p50s = statistics.median(signed), statistics.median(drawn)
        p99s = statistics.quantiles(signed, n=100)[98], statistics.quantiles(drawn, n=100)[98]
        times = f"{p50s[0]:9.1f} {p99s[0]:9.1f} {p50s[1]:9.2f} {p99s[1]:9.2f} {p50s[0] / p50s[1]:7.0f}x"
        print(f"{title + ', ' + name:<26} {times}")
    print(f"{'':<26} {stats.taken} taken, {stats.missed} missed")


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
    print(f"{len(every)} drawn, {stats.taken} of them in hand: {twice} twice, oldest {max(oldest)} ms")


def main() -> None:
    """Measure everything."""
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    print(f"{'microseconds':<26} {'at once':>19} {'in hand':>19}")
    print(f"{'':<26} {'p50':>9} {'p99':>9} {'p50':>9} {'p99':>9} {'p50':>8}")
    compare("in memory", RequestSigner(PemKey(Numbers.api_key_id, pem)))
    if softhsm.missing() is None:
        with tempfile.TemporaryDirectory() as folder:
            hsm = softhsm.SoftHsm(Path(folder))
            os.environ["SOFTHSM2_CONF"] = str(hsm.conf)
            with open_store(hsm.init_token().uri) as store:
                key = store.bind(store.generate("prod"), Numbers.api_key_id)
                compare("SoftHSM", key.signer())
    stands_in_the_way()
    print(f"and {presign_cost(routes=1).signatures_per_hour:,.0f} signatures an hour")
    if len(sys.argv) > 1:
        draws(int(sys.argv[1]))


if __name__ == "__main__":
    main()
