"""The dead man's switch: a client's orders are cancelled after some seconds without a sign of life from the client.

Only the client's own orders are cancelled, by the ids in the ledger of reservations. Whether the client is still
connected doesn't matter. A cancelling that has begun is completed: if the client comes back, only the orders that it
places from then on stay.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import aiohttp

from hsm_keys.errors import HsmKeysError
from hsm_keys.kalshi.operations import REST_PREFIX
from hsm_keys.proxy.audit import AuditError
from hsm_keys.proxy.exchanges import exchange_of, order_path
from hsm_keys.proxy.settling import Hold

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.asking import OwnRequests
    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.proxy.reservations import ReservedOrder

__all__ = ["SilenceWatch"]

_LOOK_EVERY_S: Final = 1.0
_LATE_S: Final = 0.5
_CATCH_UP_S: Final = 0.1
_AT_ONCE: Final = 8
"""Orders that are cancelled at a time: more signatures aren't made at a time, either."""

_AGAIN_S: Final = 1.0
_SELDOM_S: Final = 30.0
"""Seconds after which an order that isn't known to be over is tried again: the first time, and at most."""

_log: Final = logging.getLogger(__name__)


class SilenceWatch:
    """Cancels the orders of clients that are silent, also while signing is frozen.

    Args:
        judge: Knows who is to be watched, and the orders.
        own: Sends the proxy's own requests.
        trail: Where it is written down.
        metrics: What is counted.
        clock: Gives seconds that never go back.
    """

    def __init__(
        self,
        judge: Judge,
        own: OwnRequests,
        trail: AuditTrail,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._judge = judge
        self._own = own
        self._trail = trail
        self._metrics = metrics
        self._clock = clock
        self._since = clock()
        self._heard: dict[str, float] = {}
        self._fired: Counter[str] = Counter()
        self._ending: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    def hear(self, client: str) -> None:
        """Take note of a client's sign of life."""
        self._heard[client] = self._clock()

    async def run(self) -> None:
        """Watch until it is cancelled."""
        try:
            while True:
                wait, began = self.look(), self._clock()
                await asyncio.sleep(wait)
                if self._clock() - began > wait + _LATE_S:  # this program itself was held up:
                    await asyncio.sleep(_CATCH_UP_S)  # what clients have sent meanwhile is read first
        finally:
            for task in self._tasks:
                task.cancel()

    def look(self) -> float:
        """Begin to cancel what silent clients have placed; return the seconds until the next look is due."""
        now, wait = self._clock(), _LOOK_EVERY_S
        for client, orders in self._watched().items():
            left = self._heard_at(client) + self._patience(client) - now
            if left > 0:
                wait = min(wait, left)
            elif new := [order for order in orders if order.number not in self._ending]:
                self._fired[client] += 1
                self._metrics.silences.labels(client).inc()
                self._ending |= {order.number for order in new}
                task = asyncio.create_task(self._end_all(client, new))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return wait

    async def get(self, path: str, query: str) -> tuple[int, bytes]:
        """Ask Kalshi what became of orders: also while frozen, as long as some are to be cancelled."""
        return await self._own.send("GET", path, query, stops_orders=bool(self._ending))

    def status(self) -> dict[str, dict[str, float]]:
        """Return of each client that is watched after how many seconds it counts as silent, and how things are."""
        watched = self._watched()
        names = {*self._judge.policy.clients, *self._heard, *watched}
        return {
            client: {
                "after_s": self._patience(client),
                "silent_s": round(self._clock() - self._heard_at(client), 1),
                "orders": len(watched.get(client, ())),
                "to_cancel": sum(order.number in self._ending for order in watched.get(client, ())),
                "fired": self._fired[client],
            }
            for client in sorted(names)
            if self._patience(client)
        }

    def _patience(self, client: str) -> int:
        """Return after how many seconds a client counts as silent; 0 for one that isn't watched."""
        rules = self._judge.policy.client(client)
        return (rules.cancel_after_silence_seconds or 0) if rules is not None else 0

    def _heard_at(self, client: str) -> float:
        return self._heard.get(client, self._since)

    def _watched(self) -> dict[str, list[ReservedOrder]]:
        """Return the orders that may rest, by the clients that are watched."""
        watched: defaultdict[str, list[ReservedOrder]] = defaultdict(list)
        for order in self._judge.reservations.orders.values():
            if order.asked.rests and self._patience(order.client):
                watched[order.client].append(order)
        return watched

    async def _end_all(self, client: str, orders: list[ReservedOrder]) -> None:
        """Cancel orders of a client, until all are known to be over."""
        seconds = self._patience(client)
        _log.warning(
            "no sign of life from client %s for %d seconds: its %d orders are being cancelled",
            client,
            seconds,
            len(orders),
        )
        self._write("silence", client=client, orders=len(orders))
        await asyncio.gather(*map(self._end, orders))
        _log.warning("the %d orders of the silent client %s are over", len(orders), client)

    async def _end(self, order: ReservedOrder) -> None:
        """Cancel an order until it is known to be over; one of which the id isn't known is looked up meanwhile."""
        held, pause = self._judge.reservations, _AGAIN_S
        try:
            while order.number in held.orders and self._patience(order.client):
                order_id = order.order_id or order.asked.amends
                if order_id:
                    async with self._at_once:
                        await self._cancel(order, order_id)
                if order.number in held.orders:
                    held.on_doubt()
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _SELDOM_S)
        finally:
            self._ending.discard(order.number)

    async def _cancel(self, order: ReservedOrder, order_id: str) -> None:
        """Cancel an order, and believe of the answer what it says of it."""
        exchange, subaccount = exchange_of(perps=order.asked.perps), order.asked.subaccount
        query: dict[str, Any] = {} if exchange.perps else {"market_ticker": order.asked.market}  # names the shard
        query |= {} if subaccount is None else {"subaccount": subaccount}
        path, status = order_path(exchange.writes, order_id), None
        try:
            status, body = await self._own.send("DELETE", path, urlencode(query), stops_orders=True)
        except (HsmKeysError, aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning(
                "an order of the silent client %s isn't cancelled yet: %s", order.client, str(error) or "no answer"
            )
        else:
            hold = Hold(self._judge.reservations, f"DELETE {exchange.writes}/{{order_id}}", REST_PREFIX + path)
            hold.hear(status, "", body)
            hold.end(was_sent=True)
        self._write("silence_cancel", client=order.client, order_id=order_id, status=status)

    def _write(self, kind: str, **members: str | int | None) -> None:
        try:
            self._trail.append(kind, **members)
        except AuditError as error:  # a full disk must not stop the cancelling
            _log.warning("%s", error)
