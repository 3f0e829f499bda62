# ruff: noqa: INP001 - a script
"""What the caps on money add to a decision: all of them against none, in turns in one run.

``python benchmarks/caps.py``
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from hsm_keys.proxy.journal import Journal
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.reservations import Reservations

ORDERS = 12_000
PATH = "/trade-api/v2/portfolio/events/orders"
LIMITS = 'version = 1\n[clients.default]\nmax_count = 100\nmax_price_cents = 60\nmarkets = ["KX*"]\n'
CAPS = """max_order_dollars = 90
max_dollars_a_day = 500000000
max_open_dollars = 200000000
max_contracts_a_market = 500000000
duplicate_seconds = 1
"""


def main() -> None:
    """Print the microseconds of half of the decisions, and of the fastest tenth: on a busy machine that says more."""
    with tempfile.TemporaryDirectory() as folder:
        capped = Judge(parse_policy(f"{LIMITS}{CAPS}[all]\n{CAPS}"), reservations=Reservations(Journal(Path(folder))))
        judges = {"without": Judge(parse_policy(LIMITS)), "with all caps": capped}
        times: dict[str, list[int]] = {name: [] for name in judges}
        for number in range(ORDERS):
            body = json.dumps(
                {
                    "ticker": "KXTEST-1",
                    "side": "bid",
                    "count": f"{1 + number % 90}.{number % 100:02}",
                    "price": f"0.{1 + number % 59:02}",
                    "time_in_force": "good_till_canceled",
                    "self_trade_prevention_type": "taker_at_cross",
                    "client_order_id": f"order-{number}",
                }
            ).encode()
            for name, judge in judges.items():
                started = time.perf_counter_ns()
                judge.judge("default", "POST", PATH, body, at=datetime.now(UTC), now=0)
                times[name].append(time.perf_counter_ns() - started)
        p50 = {name: statistics.median(taken) / 1000 for name, taken in times.items()}
        p10 = {name: statistics.quantiles(taken, n=10)[0] / 1000 for name, taken in times.items()}
        for name in judges:
            sys.stdout.write(f"{name}: p50 {p50[name]:.1f} us, p10 {p10[name]:.1f} us\n")
        more = [times["with all caps"], times["without"]]
        each = statistics.median(capped - plain for capped, plain in zip(*more, strict=True)) / 1000
        sys.stdout.write(f"more with all caps: {each:.1f} us for half of the orders\n")


if __name__ == "__main__":
    main()
