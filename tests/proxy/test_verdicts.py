"""What a policy makes of every operation that Kalshi has: verdicts.txt, which a person has read."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from hsm_keys.kalshi.operations import OPERATIONS, WEBSOCKETS
from hsm_keys.proxy.judge import Judge
from tests.support.cli import ROOT
from tests.support.judging import AMENDMENT, MONEY, ORDER, V2, ask, judge

if TYPE_CHECKING:
    from hsm_keys.proxy.judge import Verdict

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


OPTIONS = {"keys": "allow_key_management", "money": "allow_transfers", "admin": "allow_account_changes"}
LIMITS = ["max_count = 10", "max_price_cents = 50", 'markets = ["KXTEST-*"]', "orders_per_minute = 60", MONEY]


def verdict(asked: Judge, method: str, path: str) -> Verdict:
    target = re.sub("[{}]", "", path if path.startswith("/trade-api/") else V2 + path)
    return ask(asked, method, target, BODIES.get(f"{method} {path}"))


@pytest.mark.parametrize(("method", "path", "kind", "without", "limited"), ROWS)
def test_the_verdict_of_an_operation(method: str, path: str, kind: str, without: str, limited: str) -> None:
    assert verdict(Judge(), method, path).rule == without
    under_limits = verdict(judge(MONEY), method, path)
    assert under_limits.rule == limited
    if kind in {"read", "market", "reduce"}:
        assert (without, limited) == ("allowed", "allowed")
    if kind in OPTIONS:
        assert without == limited != "allowed"
        for option in OPTIONS.values():
            assert verdict(judge(f"{option} = true"), method, path).allowed is (option == OPTIONS[kind])
        assert f"`{OPTIONS[kind]} = true`" in under_limits.message
        assert f"`{OPTIONS[kind]} = true`" in verdict(Judge(), method, path).message
    if kind == "trade":
        assert without == "allowed"
    if limited in {"allow_unjudged", "max_price_cents"}:
        assert "allow_unjudged" in under_limits.message
        assert verdict(judge(f'{MONEY}\nallow_unjudged = ["{method} {path}"]'), method, path).allowed
    if limited == "gone":
        assert f"send {method} /portfolio/events/orders" in under_limits.message


@pytest.mark.parametrize("limit", LIMITS)
def test_any_one_limit_leaves_what_reduces_and_holds_what_it_cant_judge(limit: str) -> None:
    asked = judge(limit)
    for method, path, kind, _, limited in ROWS:
        if kind in {"read", "market", "reduce"}:
            assert verdict(asked, method, path).allowed, (method, path)
        if limited in {"allow_unjudged", "gone"}:
            assert verdict(asked, method, path).rule == limited, (method, path)


def test_the_page_counts_them_as_they_are() -> None:
    page = (ROOT / "docs/proxy.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    counted = Counter(kind for _, _, kind, *_ in ROWS)
    assert {kind.split("`")[1]: int(count) for kind, count, *_ in rows} == counted
