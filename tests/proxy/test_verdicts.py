"""What a policy makes of every operation that Kalshi has: verdicts.txt, which a person has read."""

from __future__ import annotations

import re

import pytest

from hsm_keys.kalshi.operations import OPERATIONS, WEBSOCKETS
from hsm_keys.proxy.judge import Judge
from tests.support.cli import ROOT
from tests.support.judging import AMENDMENT, MONEY, ORDER, V2, ask, judge

ROWS = [
    tuple(line.split())
    for line in (ROOT / "tests/proxy/verdicts.txt").read_text().splitlines()
    if not line.startswith("#")
]
BODIES: dict[str, object] = {
    "POST /portfolio/events/orders": ORDER,
    "POST /portfolio/events/orders/batched": {"orders": [ORDER]},
    "DELETE /portfolio/events/orders/batched": {"orders": [{"order_id": "x"}]},
    "POST /portfolio/events/orders/{order_id}/amend": AMENDMENT,
    "POST /portfolio/events/orders/{order_id}/decrease": {"reduce_by": "1"},
    "POST /margin/orders": ORDER,
    "POST /margin/orders/{order_id}/amend": AMENDMENT,
    "POST /margin/orders/{order_id}/decrease": {"reduce_to": "1"},
}


def test_every_operation_has_a_verdict() -> None:
    assert [(method, path) for method, path, *_ in ROWS] == [
        (operation.method, operation.path) for operation in OPERATIONS + WEBSOCKETS
    ]


@pytest.mark.parametrize(("method", "path", "kind", "without", "limited"), ROWS)
def test_the_verdict_of_an_operation(method: str, path: str, kind: str, without: str, limited: str) -> None:
    target = re.sub("[{}]", "", path if path.startswith("/trade-api/") else V2 + path)
    body = BODIES.get(f"{method} {path}")
    assert ask(Judge(), method, target, body).rule == without
    assert ask(judge(MONEY), method, target, body).rule == limited
    if method == "GET" and kind == "read":
        assert (without, limited) == ("allowed", "allowed")
    if kind == "reduce":
        assert limited == "allowed"
    if kind in {"keys", "money", "admin"}:
        assert without == limited != "allowed"
        options = ("allow_key_management", "allow_transfers", "allow_account_changes")
        named = "\n".join(f"{option} = true" for option in options)
        assert ask(judge(named), method, target, body).rule == "allowed"
