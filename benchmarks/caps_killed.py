# ruff: noqa: INP001, T201 - a script that prints what it measures
"""Caps on money while eight clients trade and the proxy is killed: ``python benchmarks/caps_killed.py --kills 30``.

The whole target is ``--requests 1000000 --kills 1000``. Clients, the sandbox and the proxy share the processors. What
the orders that reached the sandbox may cost is held against the cap after each kill; at the end it is what the proxy
says is left, before and after it has looked up what the kills left open.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import tempfile
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from hsm_keys.proxy.amounts import worst_case
from hsm_keys.sandbox import SandboxServer
from tests.support.cli import run_json
from tests.support.door import Door, with_key_in_memory
from tests.support.orders import ORDERS, order_body

CLIENTS = 8
COUNT, PRICE = 101, 3300
SPENT_AT = 0.8
"""The share of the requests after which the cap is reached."""

LATE_S = 125


class Traders:
    """Clients that send orders, each as fast as it can."""

    def __init__(self, door: Door, requests: int) -> None:
        self.door = door
        self.is_up, self.done = threading.Event(), itertools.count()
        self.is_up.set()
        self.sent = 0
        self._requests = requests
        self.threads = [threading.Thread(target=self._trade, daemon=True) for _ in range(CLIENTS)]

    def _trade(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while (number := next(self.done)) < self._requests:
            self.sent = number + 1
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("localhost", timeout=20)
                    connection.sock = self.door.connect()
                body = order_body(count="1.01", price="0.3300", client_order_id=f"k{number}")
                connection.request("POST", ORDERS, json.dumps(body), {"Content-Type": "application/json"})
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):  # it was killed
                connection = None
                self.is_up.wait(60)


def reached(sandbox: SandboxServer) -> int:
    """Return what the orders that reached the sandbox may cost, in hundredths of a cent."""
    return sum(worst_case(order.initial, order.price) for order in list(sandbox.state.book.orders.values()))


def taken(door: Door, cap: int) -> int:
    """Return what the proxy holds taken."""
    said: Any = run_json("proxy", "limits", "--name", "prod", **door.environment)
    return cap - int(Decimal(said["limits"][0]["left"]) * 10_000)


def main() -> None:
    """Trade, kill, and print the sums."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=30)
    options = parser.parse_args()
    cap = int(options.requests * SPENT_AT) * worst_case(COUNT, PRICE)
    with tempfile.TemporaryDirectory() as name, SandboxServer(tier="premier", key_type="ed25519") as sandbox:
        folder = Path(name)
        os.environ |= {
            "KALSHI_API_BASE_URL": sandbox.base_url,
            "KALSHI_WS_URL": sandbox.ws_url,
            "KALSHI_KEY_ID": sandbox.bootstrap_key_id,
            "KALSHI_PRIVATE_KEY": sandbox.bootstrap_pem,
        }
        policy = folder / "policy.toml"
        policy.write_text(f'version = 1\n[clients.default]\nmax_dollars_a_day = "{Decimal(cap) / 10_000}"\n')
        policy.chmod(0o600)
        traders = Traders(with_key_in_memory(folder, policy=policy), options.requests)
        started = time.monotonic()
        for thread in traders.threads:
            thread.start()
        for kill in range(1, options.kills + 1):
            while traders.sent < kill * options.requests // (options.kills + 1):
                time.sleep(0.01)
            traders.is_up.clear()
            traders.door.process.kill()
            traders.door.process.wait(20)
            if reached(sandbox) > cap:
                raise SystemExit("the cap was exceeded")
            traders.door = with_key_in_memory(folder, policy=policy)
            traders.is_up.set()
        for thread in traders.threads:
            thread.join()
        took = time.monotonic() - started
        spent, held = reached(sandbox), taken(traders.door, cap)
        print(f"{options.requests} requests of {CLIENTS} clients, {options.kills} kills, {took:.0f} s")
        print(f"1,000,000 requests and 1,000 kills would take {took * 1_000_000 / options.requests / 3600:.1f} hours")
        print(f"reached {spent} of {cap} hundredths of a cent; exceeded: {'yes' if spent > cap else 'no'}")
        lost = held - spent
        print(f"held for what never came to be: {lost / cap:.3%}, {lost // worst_case(COUNT, PRICE)} orders")
        time.sleep(LATE_S)
        print(f"{LATE_S} s later: {(taken(traders.door, cap) - spent) / cap:.3%}")
        traders.door.stop()


if __name__ == "__main__":
    main()
