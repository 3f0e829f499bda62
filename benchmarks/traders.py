# ruff: noqa: INP001 - a part of scripts
"""Clients of a proxy that send orders, each as fast as it can, with little of Python in between."""

from __future__ import annotations

import itertools
import threading
from math import inf
from typing import TYPE_CHECKING, Final

from benchmarks.exchange import ORDERS

if TYPE_CHECKING:
    import socket

    from tests.support.running_proxy import RunningProxy

CLIENTS: Final = 8
MARKETS: Final = 1000
_HEAD: Final = f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_BODY: Final = (
    '{"ticker":"KXTEST-%d","side":"bid","count":"1.01","price":"0.3300","time_in_force":"good_till_canceled",'
    '"self_trade_prevention_type":"taker_at_cross","client_order_id":"k%d"}'
)


class Traders:
    """Clients that send an order after the other, whatever becomes of them.

    Args:
        proxy: The proxy.
        orders: How many they send together; infinity for as many as there is time for.

    Attributes:
        proxy: The proxy that they send to; another one may take its place.
        sent: How many orders there were.
        is_up: Set while there is a proxy.
    """

    def __init__(self, proxy: RunningProxy, orders: float = inf) -> None:
        self.proxy = proxy
        self.sent = 0
        self.is_up, self.is_over = threading.Event(), threading.Event()
        self.is_up.set()
        self._orders: Final = orders
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._trade, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all is sent."""
        for thread in self._threads:
            thread.join()

    def _trade(self) -> None:
        connection: socket.socket | None = None
        while not self.is_over.is_set() and (number := next(self._numbers)) < self._orders:
            self.sent = max(self.sent, number + 1)
            body = _BODY % (number % MARKETS, number)
            try:
                if connection is None:
                    connection = self.proxy.connect()
                connection.sendall((_HEAD % len(body) + body).encode())
                if _status(connection) == b"403":  # frozen: nobody asks a thousand times a second
                    self.is_over.wait(0.05)
            except OSError:  # it was killed
                connection = None
                self.is_up.wait(60)


def _status(connection: socket.socket) -> bytes:
    """Return the status of an answer that is read whole."""
    answer = bytearray()
    while True:
        more = connection.recv(65536)
        if not more:
            raise ConnectionResetError
        answer += more
        head, end, body = answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if end and len(body) >= int(length or 0):
            return bytes(head[9:12])
