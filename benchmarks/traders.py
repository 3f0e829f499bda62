# ruff: noqa: INP001 - a part of scripts
"""Clients of a proxy that send orders, each as fast as it can, with little of Python in between."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter, deque
from math import inf
from typing import TYPE_CHECKING, Final

from benchmarks.exchange import ORDERS

if TYPE_CHECKING:
    import socket

    from benchmarks.echo import Echo
    from tests.support.running_proxy import RunningProxy

CLIENTS: Final = 8
MARKETS: Final = 1000
_HEAD: Final = "%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
_BODY: Final = (
    '{"ticker":"KXTEST-%d","side":"%s","count":"1.01","price":"%s","time_in_force":"good_till_canceled",'
    '"self_trade_prevention_type":"taker_at_cross","client_order_id":"k%d"}'
)
_SIDES: Final = ("bid", "0.3333"), ("ask", "0.6667")
"""A contract costs the same on either side."""


class Traders:
    """Clients that send a request after the other, whatever becomes of them.

    Args:
        proxy: The proxy.
        requests: How many they send together; infinity for as many as there is time for.
        sides: On how many sides of a market: 1 buys only.
        keeps: How many orders each lets rest before it cancels the oldest; infinity cancels none.
        pause_s: Seconds that a client waits when it is refused.

    Attributes:
        proxy: The proxy that they send to; another one may take its place.
        sent: How many requests there were.
        refused: How many of them were refused, by the code that was said.
        is_up: Set while there is a proxy.
        goes_on: Cleared while they pause.
    """

    def __init__(
        self,
        proxy: RunningProxy | Echo,
        requests: float = inf,
        *,
        sides: int = 1,
        keeps: float = inf,
        pause_s: float = 0.05,
    ) -> None:
        self.proxy = proxy
        self.sent = 0
        self.refused: Counter[str] = Counter()
        self.is_up, self.is_over = threading.Event(), threading.Event()
        self.goes_on = threading.Event()
        self.is_up.set()
        self.goes_on.set()
        self._requests: Final = requests
        self._sides, self._keeps, self._pause_s = sides, keeps, pause_s
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._trade, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all is sent."""
        self.goes_on.set()
        for thread in self._threads:
            thread.join()

    def _trade(self) -> None:
        connection: socket.socket | None = None
        resting: deque[str] = deque()
        is_full = False
        while not self.is_over.is_set() and (number := next(self._numbers)) < self._requests:
            self.goes_on.wait()
            self.sent = max(self.sent, number + 1)
            cancels = resting[0] if len(resting) > (0 if is_full else self._keeps) else ""
            is_full = False
            try:
                if connection is None:
                    connection = self.proxy.connect()
                connection.sendall((_cancel(cancels) if cancels else self._order(number)).encode())
                status, body = _answer(connection)
            except OSError:  # it was killed
                connection = None
                self.is_up.wait(60)
                continue
            if status in {b"403", b"429"} and b"hsm-keys proxy" in body:
                self.refused[json.loads(body)["error"]["code"]] += 1
                is_full = self._keeps < inf
                self.is_over.wait(self._pause_s)
            elif cancels:
                resting.popleft()
            elif status == b"201" and b'"remaining_count": "0.00"' not in body:
                resting.append(json.loads(body)["order_id"])

    def _order(self, number: int) -> str:
        side = _SIDES[number * 2654435761 >> 16 & 1 if self._sides > 1 else 0]
        body = _BODY % (number % MARKETS, *side, number)
        return _HEAD % ("POST", ORDERS, len(body), body)


def _cancel(order_id: str) -> str:
    return _HEAD % ("DELETE", f"{ORDERS}/{order_id}", 0, "")


def _answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return status and body of an answer."""
    answer = bytearray()
    while True:
        more = connection.recv(65536)
        if not more:
            raise ConnectionResetError
        answer += more
        head, end, body = answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if end and len(body) >= int(length or 0):
            return bytes(head[9:12]), bytes(body)
