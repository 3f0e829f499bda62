"""What tests ask a judge."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy import parse_policy
from tests.support.orders import ORDERS, order_body

if TYPE_CHECKING:
    from hsm_keys.proxy.judge import Verdict

__all__ = ["AMENDMENT", "MONEY", "NOON", "ORDER", "ORDERS", "V2", "ask", "judge"]

V2 = "/trade-api/v2"
NOON = datetime(2026, 11, 24, 17, 0, tzinfo=UTC)  # a Tuesday; 12:00 in New York
ORDER = order_body(count="5.00", price="0.4000", client_order_id=None)
AMENDMENT: dict[str, Any] = {"ticker": "KXTEST-1", "side": "bid", "count": "5.00", "price": "0.5000"}
MONEY = 'max_count = 10\nmax_price_cents = 50\nmarkets = ["KXTEST-*"]'


def judge(rules: str, client: str = "default") -> Judge:
    return Judge(parse_policy(f"version = 1\n[clients.{client}]\n{rules}"))


def ask(asked: Judge, method: str, path: str, body: object = None, *, at: datetime = NOON, now: float = 0.0) -> Verdict:
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    return asked.judge("default", method, path, content, at=at, now=now)
