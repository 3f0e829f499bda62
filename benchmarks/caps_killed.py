# ruff: noqa: INP001, T201 - a script that prints what it measures
"""Caps on money while eight clients trade and the proxy is killed: ``python -m benchmarks.caps_killed --kills 30``.

The whole target is ``--requests 1000000 --kills 1000``. Clients, a stand-in for Kalshi that counts, and the proxy share
the processors. What the orders that came to Kalshi may cost is held against the cap after each kill; at the end it is
what the proxy says is left, before and after it has looked up what the kills left open.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from benchmarks.exchange import Exchange
from benchmarks.traders import CLIENTS, Traders
from hsm_keys.proxy.amounts import worst_case
from tests.support.cli import run_json
from tests.support.running_proxy import RunningProxy, with_key_in_memory

EACH: Final = worst_case(101, 3300)
SPENT_AT: Final = 0.8
"""The share of the requests after which the cap is reached."""

LATE_S: Final = 125


def taken(proxy: RunningProxy, cap: int) -> int:
    """Return what the proxy holds taken."""
    said: Any = run_json("proxy", "limits", "--name", "prod", **proxy.environment)
    return cap - int(Decimal(said["limits"][0]["left"]) * 10_000)


def main() -> None:
    """Trade, kill, and print the sums."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=30)
    options = parser.parse_args()
    cap = int(options.requests * SPENT_AT) * EACH
    with tempfile.TemporaryDirectory() as name, Exchange() as exchange:
        folder = Path(name)
        policy = folder / "policy.toml"
        policy.write_text(f'version = 1\n[clients.default]\nmax_dollars_a_day = "{Decimal(cap) / 10_000}"\n')
        policy.chmod(0o600)

        def start() -> RunningProxy:
            shutil.rmtree(folder / "audit", ignore_errors=True)  # of a million requests it would fill the disk
            return with_key_in_memory(folder, policy=policy, audit=folder / "audit")

        traders = Traders(start(), options.requests)
        started = time.monotonic()
        down = 0.0
        for kill in range(1, options.kills + 1):
            while traders.sent < kill * options.requests // (options.kills + 1):
                time.sleep(0.01)
            traders.is_up.clear()
            killed = time.monotonic()
            with traders.proxy as proxy:
                proxy.process.kill()
                proxy.process.wait(20)
            if exchange.counted()["spent"] > cap:
                raise SystemExit("the cap was exceeded")
            traders.proxy = start()
            traders.is_up.set()
            down += time.monotonic() - killed
        traders.join()
        took = time.monotonic() - started
        spent, held = exchange.counted()["spent"], taken(traders.proxy, cap)
        print(f"{options.requests:,} requests of {CLIENTS} clients, {options.kills} kills, {took:.0f} s", end=", ")
        print(f"{down:.0f} s of that without a proxy")
        hours = ((took - down) / options.requests * 1e6 + down / options.kills * 1000) / 3600
        print(f"1,000,000 requests and 1,000 kills would take {hours:.1f} hours")
        print(f"reached {spent} of {cap} hundredths of a cent; exceeded: {'yes' if spent > cap else 'no'}")
        print(f"held for what never came to be: {(held - spent) / cap:.4%}, {(held - spent) // EACH} orders")
        time.sleep(LATE_S)
        print(f"{LATE_S} s later: {(taken(traders.proxy, cap) - spent) / cap:.4%}")
        traders.proxy.stop()


if __name__ == "__main__":
    main()
