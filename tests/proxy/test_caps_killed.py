"""Caps on money while clients trade and the proxy is killed again and again."""

from __future__ import annotations

import itertools
import json
import threading
from http.client import HTTPException
from typing import TYPE_CHECKING

from hsm_keys.proxy.amounts import worst_case
from tests.support.orders import ORDERS, order_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox import SandboxServer
    from tests.support.running_proxy import RunningProxy

    Start = Callable[..., RunningProxy]

KILLS = 6
CLIENTS = 4
CAP = 300_000
POLICY = "[clients.default]\nmax_dollars_a_day = 30"


def reached(sandbox: SandboxServer) -> int:
    """Return what the orders that reached the sandbox may cost, in hundredths of a cent."""
    return sum(worst_case(order.initial, order.price) for order in list(sandbox.state.book.orders.values()))


class Traders:
    """Clients that send orders and batches, each as fast as it can, until it is over."""

    def __init__(self, proxy: RunningProxy) -> None:
        self.proxy = proxy
        self.is_up, self.is_over = threading.Event(), threading.Event()
        self.is_up.set()
        self.denied: set[str] = set()
        self._names = itertools.count()
        self.threads = [threading.Thread(target=self._trade, daemon=True) for _ in range(CLIENTS)]

    def _trade(self) -> None:
        for count in itertools.cycle((1, 2)):
            if self.is_over.is_set():
                return
            names = [f"k{next(self._names)}" for _ in range(count)]
            orders = [order_body(count="1.01", price="0.3300", client_order_id=name) for name in names]
            path, body = (ORDERS, orders[0]) if count == 1 else (f"{ORDERS}/batched", {"orders": orders})
            try:
                status, said = self.proxy.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            except (OSError, HTTPException, ValueError):  # it was killed
                self.is_up.wait(60)
                continue
            if status in {403, 429}:
                self.denied.add(said["error"]["code"])

    def pause(self) -> None:
        self.threads[0].join(0.005)


def test_no_kill_lets_more_through_than_the_cap(start: Start, sandbox: SandboxServer) -> None:
    traders = Traders(start(POLICY))
    for thread in traders.threads:
        thread.start()
    for kill in range(1, KILLS + 1):
        while reached(sandbox) < kill * CAP // (KILLS + 2):
            traders.pause()
        traders.is_up.clear()
        traders.proxy.process.kill()
        traders.proxy.process.wait(20)
        assert reached(sandbox) <= CAP
        traders.proxy = start(POLICY)
        traders.is_up.set()
    while not traders.denied:
        traders.pause()
    traders.is_over.set()
    for thread in traders.threads:
        thread.join(30)
    lost_at_most = (KILLS * CLIENTS + 1) * 2 * worst_case(101, 3300)
    assert CAP - lost_at_most <= reached(sandbox) <= CAP
    assert traders.denied == {"max_dollars_a_day"}
