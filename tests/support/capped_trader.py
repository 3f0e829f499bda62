"""A client under caps, whose requests are judged, and answered as Kalshi would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hsm_keys.proxy.cap_clock import CapClock
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy import parse_policy
from tests.support.judging import NOON
from tests.support.orders import ORDERS, order_body

if TYPE_CHECKING:
    from hsm_keys.proxy.judge import Verdict

__all__ = ["Trader", "answered", "refused"]

MS = 1_000_000  # nanoseconds


class Trader:
    """A client whose requests are judged, and answered as Kalshi would."""

    def __init__(self, policy: str) -> None:
        self.judge = Judge(parse_policy(f"version = 1\n{policy}"))
        self.now_ms = int(NOON.timestamp() * 1000)
        self.judge.reservations.clock = CapClock(lambda: self.now_ms * MS, lambda: self.now_ms * MS)
        self._sent = 0

    def send(self, *orders: dict[str, Any], client: str = "default", path: str = "") -> Verdict:
        body: dict[str, Any] = {"orders": [*orders]} if len(orders) != 1 else orders[0]
        path = path or (f"{ORDERS}/batched" if len(orders) != 1 else ORDERS)
        return self.judge.judge(client, "POST", path, json.dumps(body).encode(), at=NOON, now=0)

    def amend(self, count: str, price: str = "0.5000", order_id: str = "o1", **changes: Any) -> Verdict:
        body = {"ticker": "KXTEST-1", "side": "bid", "count": count, "price": price, **changes}
        return self.send(body, path=f"{ORDERS}/{order_id}/amend")

    def cancel(self, path: str, said: Any, *order_ids: str, method: str = "DELETE", **body: Any) -> None:
        """Send what takes something away, and have Kalshi answer it."""
        content = {"orders": [{"order_id": order_id} for order_id in order_ids]} if order_ids else body
        sent = json.dumps(content).encode() if content else None
        verdict = self.judge.judge("default", method, f"{ORDERS}{path}", sent, at=NOON, now=0)
        assert verdict.hold is not None
        verdict.hold.hear(200, "", json.dumps(said).encode())
        verdict.hold.end(was_sent=True)

    def follow(self, policy: str) -> None:
        self.judge.replace(parse_policy(f"version = 1\n{policy}"))

    def after(self, seconds: float) -> Trader:
        self.now_ms = int((NOON.timestamp() + seconds) * 1000)
        return self

    def order(self, count: str = "1", price: str = "0.5000", **changes: Any) -> dict[str, Any]:
        self._sent += 1
        return order_body(count=count, price=price, **{"client_order_id": f"c{self._sent}", **changes})


def answered(verdict: Verdict, *, filled: str, remaining: str, order_id: str = "o1", status: int = 201) -> None:
    assert verdict.hold is not None
    said = {"order_id": order_id, "fill_count": filled, "remaining_count": remaining}
    verdict.hold.hear(status, "", json.dumps(said).encode())
    verdict.hold.end(was_sent=True)


def refused(
    verdict: Verdict, status: int = 400, said: str = '{"error":{"code":"invalid_order","message":"no"}}'
) -> None:
    assert verdict.hold is not None
    verdict.hold.hear(status, "", said.encode())
    verdict.hold.end(was_sent=True)
