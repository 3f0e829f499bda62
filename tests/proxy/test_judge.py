"""The judge's words, and what it looks at: whatever a client is told, and every branch of its verdicts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.tiers import AccountLimits
from tests.support.judging import AMENDMENT, NOON, ORDER, ORDERS, V2, ask, judge

if TYPE_CHECKING:
    from hsm_keys.proxy.judge import Verdict

BALANCE = f"{V2}/portfolio/balance"
NAMED = {**ORDER, "client_order_id": "c1"}
BASIC = AccountLimits.model_validate(
    {
        "usage_tier": "basic",
        "read": {"refill_rate": 200, "bucket_capacity": 200},
        "write": {"refill_rate": 100, "bucket_capacity": 100},
    }
)


def headers(asked: Judge, method: str, path: str, *, now: float = 0.0) -> Verdict:
    return asked.judge_headers("default", method, path, at=NOON, now=now)


@pytest.mark.parametrize(
    ("rules", "method", "path", "rule"),
    [
        ("", "GET", BALANCE, "allowed"),
        ('allow = ["GET /**"]', "GET", BALANCE, "allow GET /**"),
        ('deny = ["GET /**"]', "GET", BALANCE, "deny GET /**"),
        ("", "POST", ORDERS, "allowed"),
        ("max_count = 5", "GET", BALANCE, "sign"),
        ("max_order_dollars = 5", "GET", BALANCE, "sign"),
        ("cancel_after_silence_seconds = 5", "GET", BALANCE, "sign"),
        ("orders_per_minute = 5", "POST", ORDERS, "allowed"),
        ("orders_per_minute = 5", "POST", f"{ORDERS}/batched", "sign"),
        ("write_tokens_per_second = 50", "DELETE", f"{ORDERS}/batched", "sign"),
        ("orders_per_minute = 5", "DELETE", f"{ORDERS}/batched", "allowed"),
        ("", "GET", "/trade-api/ws/v2", "allowed"),
        ("read_only = true", "GET", "/trade-api/ws/v2", "sign"),
        ("read_only = true", "GET", BALANCE, "allowed"),
        ("", "POST", f"{V2}/api_keys", "api_keys"),
    ],
)
def test_headers_alone(rules: str, method: str, path: str, rule: str) -> None:
    verdict = headers(judge(rules), method, path)
    assert (verdict.rule, verdict.allowed) == (rule, rule.startswith("allow"))
    if rule == "sign":
        assert verdict.message == "the client's rules look at what is sent, so its requests go through the proxy"


def test_headers_alone_count_and_are_frozen_and_nobody_elses() -> None:
    asked = judge("orders_per_minute = 2")
    assert [headers(asked, "POST", ORDERS, now=now).rule for now in (0, 59, 59, 60)] == [
        "allowed",
        "allowed",
        "orders_per_minute",
        "allowed",
    ]
    assert asked.judge_headers("default", "GET", BALANCE, at=NOON, now=0).trades is False
    asked.frozen = True
    assert headers(asked, "GET", BALANCE).message == "signing is frozen: `hsm-keys proxy thaw` resumes it"
    stranger = judge("", "maker").judge_headers("x", "GET", BALANCE, at=NOON, now=0)
    assert (stranger.allowed, stranger.message) == (False, "the policy has no rules for 'x', nor default")
    in_the_evening = judge('hours = ["Mon 00:00-01:00 UTC"]').judge_headers("default", "GET", BALANCE, at=NOON, now=0)
    assert in_the_evening.rule == "hours"


def test_headers_alone_are_judged_by_the_rules_of_the_client_that_asks() -> None:
    """Neither by those of default, nor out of its limits."""
    policy = "version = 1\n[clients.maker]\n{maker}\n[clients.default]\n{default}\n"
    asked = Judge(parse_policy(policy.format(maker="max_count = 5", default="")))
    assert asked.judge_headers("maker", "GET", BALANCE, at=NOON, now=0).rule == "sign"
    assert asked.judge_headers("x", "GET", BALANCE, at=NOON, now=0).rule == "allowed"
    asked = Judge(parse_policy(policy.format(maker="read_tokens_per_second = 10", default="")))
    assert [asked.judge_headers("maker", "GET", BALANCE, at=NOON, now=0).allowed for _ in range(2)] == [True, False]


def test_the_rule_that_allows_an_order_is_named() -> None:
    verdict = ask(judge('allow = ["GET /**", "POST /portfolio/events/*"]\nmax_count = 100'), "POST", ORDERS, ORDER)
    assert verdict.rule == "allow POST /portfolio/events/*"


def test_what_is_left_of_each_limit() -> None:
    asked = judge("read_tokens_per_second = 33\nwrite_tokens_per_second = 50\norders_per_minute = 7")
    ask(asked, "GET", BALANCE)
    ask(asked, "POST", ORDERS, NAMED)
    assert asked.left(0.333)["default"] == {
        "read_tokens_per_second": {"limit": 33.0, "left": 33.0},
        "write_tokens_per_second": {"limit": 50.0, "left": 50.0},
        "orders_per_minute": {"limit": 7, "left": 6},
    }
    assert asked.left(0)["default"]["read_tokens_per_second"]["left"] == 33.0
    ask(asked, "GET", BALANCE, now=1)
    assert asked.left(1.0111)["default"]["read_tokens_per_second"]["left"] == 23.4


def test_a_reload_gives_back_nothing_of_either_bucket() -> None:
    asked = judge("read_tokens_per_second = 30\nwrite_tokens_per_second = 20")
    assert [ask(asked, "GET", BALANCE).allowed for _ in range(4)] == [True, True, True, False]
    assert [ask(asked, "DELETE", ORDERS).allowed for _ in range(3)] == [True, True, False]
    asked.replace(
        parse_policy("version = 1\n[clients.default]\nread_tokens_per_second = 40\nwrite_tokens_per_second = 30")
    )
    assert [ask(asked, method, path).allowed for method, path in (("GET", BALANCE), ("DELETE", ORDERS))] == [False] * 2
    assert asked.left(0)["default"]["write_tokens_per_second"]["limit"] == 30
    assert asked.left(0)["default"]["read_tokens_per_second"]["limit"] == 40
    asked.replace(parse_policy("version = 1\n[clients.default]"))
    assert asked.left(0) == {"default": {}}


@pytest.mark.parametrize(
    ("rules", "requests", "rule", "message", "retry_after"),
    [
        (
            "write_tokens_per_second = 4",
            [("POST", ORDERS, NAMED), ("POST", ORDERS, NAMED)],
            "tokens per second",
            "tokens per second: the client's limit is reached",
            3,
        ),
        (
            "orders_per_minute = 1",
            [("POST", ORDERS, NAMED), ("POST", ORDERS, NAMED)],
            "orders_per_minute",
            "orders_per_minute: the client's limit is reached",
            60,
        ),
        (
            "orders_per_minute = 1",
            [("POST", f"{ORDERS}/batched", {"orders": [NAMED, NAMED]})],
            "orders_per_minute",
            "orders_per_minute: it asks for more than there ever is",
            0,
        ),
        (
            'read_tokens_per_second = "tier"',
            [("GET", BALANCE, None)] * 21,
            "tier",
            "tier: Kalshi's limit for the account is reached",
            1,
        ),
    ],
)
def test_who_is_too_fast_is_told_what_is_reached_and_until_when(
    rules: str, requests: list[tuple[str, str, Any]], rule: str, message: str, retry_after: int
) -> None:
    asked = judge(rules)
    asked.tier.follow(BASIC, 0)
    *before, last = [ask(asked, *request) for request in requests]
    assert all(verdict.allowed for verdict in before)
    assert (last.rule, last.message, last.retry_after) == (rule, message, retry_after)
    assert last.status == (429 if retry_after else 403)


def test_the_accounts_buckets_are_for_those_whose_tokens_are_limited() -> None:
    rules = 'read_tokens_per_second = "tier"\n[clients.other]\nread_tokens_per_second = 100000\n[clients.free]'
    asked = judge(rules)

    def reads(client: str) -> int:
        count = 0
        while count < 100 and asked.judge(client, "GET", BALANCE, None, at=NOON, now=0).allowed:
            count += 1
        return count

    assert [reads(client) for client in ("other", "free", "default")] == [100, 100, 0]
    asked.tier.follow(BASIC, 0)
    assert [reads(client) for client in ("other", "free", "default")] == [0, 100, 0]


def test_an_order_that_the_policy_leaves_unjudged_is_under_no_limit_and_no_cap() -> None:
    unjudged = 'allow_unjudged = ["POST /portfolio/events/orders"]\n'
    huge = {**NAMED, "count": "1000.00"}
    asked = judge(f"{unjudged}max_count = 5\nmax_order_dollars = 1")
    assert ask(asked, "POST", ORDERS, {"whatever": 1}).rule == "allowed"
    assert ask(asked, "POST", f"{ORDERS}/batched", {"orders": [huge]}).rule == "max_count"
    watched = judge(f"{unjudged}max_count = 5\nmax_order_dollars = 1\ncancel_after_silence_seconds = 5")
    verdict = ask(watched, "POST", ORDERS, huge)
    assert verdict.allowed
    assert [order.asked.size for order in watched.reservations.orders.values()] == [100_000]


@pytest.mark.parametrize(
    ("path", "body", "rule", "message"),
    [
        (
            ORDERS,
            ORDER,
            "client_order_id",
            "the order needs a client_order_id: the proxy looks a lost order up by this id",
        ),
        (
            f"{ORDERS}/o1/amend",
            AMENDMENT,
            "amend",
            "that order isn't in the proxy's journal of caps: cancel it, and send another one",
        ),
        (
            f"{V2}/margin/orders",
            {**NAMED, "price": "12.50"},
            "caps",
            "the cost of a perpetual future can't be told: name its route in allow_unjudged",
        ),
        (
            ORDERS,
            {**NAMED, "count": "100.00"},
            "max_order_dollars",
            "max_order_dollars: an order may cost $40.0000; $5.0000 is allowed to the client",
        ),
        (ORDERS, b"{}", "body", "the body can't be judged: side is missing"),
    ],
)
def test_what_the_caps_are_against_is_said(path: str, body: object, rule: str, message: str) -> None:
    verdict = ask(judge("max_order_dollars = 5"), "POST", path, body)
    assert (verdict.rule, verdict.message, verdict.status) == (rule, message, 403)


def test_a_verdict_says_whether_it_trades_and_what_was_asked_for() -> None:
    asked = judge("max_count = 5")
    bought = ask(asked, "POST", ORDERS, NAMED)
    assert bought.trades
    assert bought.request is not None
    assert bought.request.exposures[0].client_order_id == "c1"
    denied = ask(asked, "POST", ORDERS, {**NAMED, "count": "5.01"})
    assert denied.request is not None
    assert denied.request.contracts == 501
    assert not denied.trades
    cancelled = ask(asked, "DELETE", ORDERS)
    assert (cancelled.trades, cancelled.request, cancelled.hold) == (False, None, None)
    assert ask(judge(""), "POST", ORDERS, NAMED).trades


def test_an_empty_batch_of_cancels_is_kalshis_to_refuse() -> None:
    asked = judge("write_tokens_per_second = 100")
    assert ask(asked, "DELETE", f"{ORDERS}/batched").allowed
    assert ask(asked, "POST", f"{ORDERS}/batched").rule == "body"
    content = json.dumps({"orders": [{"order_id": "o1"}] * 3}).encode()
    assert ask(asked, "DELETE", f"{ORDERS}/batched", content).allowed


@pytest.mark.parametrize(
    ("rules", "method", "path", "needs"),
    [
        ("", "POST", ORDERS, False),
        ("max_count = 5", "POST", ORDERS, True),
        ("max_count = 5", "GET", BALANCE, False),
        ("max_order_dollars = 5", "POST", ORDERS, True),
        ('max_count = 5\nallow_unjudged = ["POST /portfolio/events/orders"]', "POST", ORDERS, False),
        ("cancel_after_silence_seconds = 5", "POST", ORDERS, True),
        ("orders_per_minute = 5", "POST", ORDERS, False),
        ("orders_per_minute = 5", "POST", f"{ORDERS}/batched", True),
        ("orders_per_minute = 5", "DELETE", f"{ORDERS}/batched", False),
        ("write_tokens_per_second = 5", "DELETE", f"{ORDERS}/batched", True),
        ("read_tokens_per_second = 5", "DELETE", f"{ORDERS}/batched", False),
    ],
)
def test_whose_body_is_read(rules: str, method: str, path: str, *, needs: bool) -> None:
    assert judge(rules).needs_body("default", method, path) is needs


def test_what_is_kept_of_routes_is_bounded_and_follows_the_policy() -> None:
    asked = judge("")
    for number in range(3000):
        assert ask(asked, "DELETE", f"{ORDERS}/{number}").allowed
    assert len(asked._routes) <= 1024
    asked.replace(parse_policy("version = 1\n[clients.default]\nread_only = true"))
    assert ask(asked, "DELETE", f"{ORDERS}/2999").rule == "read_only"
