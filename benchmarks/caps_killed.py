# ruff: noqa: INP001, T201 - a script that prints what it measures
"""Caps on money while eight clients trade and the proxy is killed: ``python -m benchmarks.caps_killed --kills 30``.

The whole target is ``--requests 1000000 --kills 1000``. Clients, a stand-in for Kalshi, and the proxy share the
processors. At the stand-in orders fill, rest, fill by a part, are refused, have no answer, or never come to be; clients
cancel what rests for long. The stand-in keeps its own sums, and the largest that each came to: after each kill they are
held against the caps. Each proxy has a larger cap of the day than the one before, which is reached before it is killed,
so that all of them have to keep to the cent. At the end it is what the proxy holds beyond what Kalshi has, before and
after it has looked up what the kills left open.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any, Final

from benchmarks.exchange import Exchange
from benchmarks.traders import CLIENTS, Traders
from hsm_keys.proxy.amounts import worst_case
from tests.support.cli import run_json
from tests.support.running_proxy import RunningProxy, with_key_in_memory

EACH: Final = worst_case(101, 3333)
DAY: Final = "max_dollars_a_day"
DAY_SHARE: Final = 0.55
"""What may be spent between two kills, in orders for each request: a little less than would be."""
OPEN: Final = 300 * EACH
CONTRACTS: Final = 1500
KEEPS: Final = 20
PAUSE_S: Final = 0.02

LATE_S: Final = 190
"""Two minutes after which nothing comes any more, and the minute between two looks."""


class Run:
    """A run.

    Args:
        folder: Where the proxy's files are.
        exchange: The stand-in.
        requests: How many there are between two kills.
    """

    def __init__(self, folder: Path, exchange: Exchange, requests: int) -> None:
        self._folder = folder
        self._exchange = exchange
        self._more = int(requests * DAY_SHARE) * EACH
        self.cap = 0
        self.gaps: list[int] = []
        self.largest = [0, 0, 0]

    def start(self) -> RunningProxy:
        """Start a proxy with room for a little more than what was spent."""
        self.cap = self._exchange.counted()["spent"] + self._more
        policy = self._folder / "policy.toml"
        policy.write_text(
            f'version = 1\n[clients.default]\n{DAY} = "{_dollars(self.cap)}"\n'
            f'max_open_dollars = "{_dollars(OPEN)}"\nmax_contracts_a_market = "{Decimal(CONTRACTS) / 100}"\n'
        )
        policy.chmod(0o600)
        shutil.rmtree(self._folder / "audit", ignore_errors=True)  # of a million requests it would fill the disk
        return with_key_in_memory(self._folder, policy=policy, audit=self._folder / "audit")

    def check(self) -> None:
        """Hold what came to the stand-in against the caps."""
        most = self._exchange.counted()["most"]
        caps = [self.cap, OPEN, CONTRACTS]
        if any(got > cap for got, cap in zip(most, caps, strict=True)):
            raise SystemExit(f"a cap was exceeded: {most} of {caps}")
        self.gaps.append((self.cap - most[0]) // EACH)
        self.largest = [max(pair) for pair in zip(self.largest, most, strict=True)]

    def surplus(self, proxy: RunningProxy) -> int:
        """Return what the proxy holds taken beyond what came to the stand-in."""
        said: Any = run_json("proxy", "limits", "--name", "prod", **proxy.environment)
        [left] = [row["left"] for row in said["limits"] if row["cap"] == DAY]
        held = self.cap - int(Decimal(left) * 10_000)
        return held - int(self._exchange.counted()["spent"])


def _dollars(amount: int) -> Decimal:
    return Decimal(amount) / 10_000


def main() -> None:
    """Trade, kill, and print the sums."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=9000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=inf, help="stop then, and report what was done")
    options = parser.parse_args()
    each = options.requests // (options.kills + 1)
    with tempfile.TemporaryDirectory() as name, Exchange(mixed=True) as exchange:
        run = Run(Path(name), exchange, each)
        traders = Traders(run.start(), options.requests, sides=2, keeps=KEEPS, pause_s=PAUSE_S)
        started, down, full, refused, kills = time.monotonic(), 0.0, 0, 0, 0
        for kill in range(1, options.kills + 1):
            while traders.sent < kill * each:
                time.sleep(0.01)
            if time.monotonic() - started > options.minutes * 60:
                break
            kills = kill
            traders.is_up.clear()
            killed = time.monotonic()
            with traders.proxy as proxy:
                proxy.process.kill()
                proxy.process.wait(20)
            run.check()
            full += traders.refused[DAY] > refused
            refused = traders.refused[DAY]
            traders.proxy = run.start()
            traders.is_up.set()
            down += time.monotonic() - killed
            if kill % max(1, options.kills // 20) == 0:
                print(f"{kill} kills, {time.monotonic() - started:.0f} s, refused {dict(traders.refused)}", flush=True)
        if kills < options.kills:
            traders.is_over.set()
        traders.join()
        run.check()
        took = time.monotonic() - started
        print(f"{traders.sent:,} requests of {CLIENTS} clients, {kills} kills, {took:.0f} s", end=", ")
        print(f"{down:.0f} s of that without a proxy; no cap was exceeded")
        print(f"orders at Kalshi: {exchange.counted()['orders']:,}; refused by the proxy: {dict(traders.refused)}")
        print(f"the cap of the day was full at {full} kills; what Kalshi had came", end=" ")
        print(f"{min(run.gaps)} orders below it at least, {statistics.median(run.gaps):.0f} in half of the cases")
        print(f"the largest sums were {run.largest}")
        whole = exchange.counted()["spent"]
        for later_s in (0, LATE_S):
            time.sleep(later_s)
            held = run.surplus(traders.proxy)
            print(f"{later_s} s later held for what never came to be: {held / whole:.4%}, {held / EACH:.0f} orders")
        traders.proxy.stop()


if __name__ == "__main__":
    main()
