"""Limits in memory, at their edges, and whose they are."""

from __future__ import annotations

import json
from math import inf

import pytest

from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.limits import MinuteCap, TokenBucket
from hsm_keys.proxy.orders import OrderLimits
from hsm_keys.proxy.paths import Rule
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.strict_json import UnclearJsonError, strict_object
from tests.support.judging import NOON, V2
from tests.support.orders import ORDERS, order_body

TWO = """version = 1
[clients.maker]
orders_per_minute = 2
write_tokens_per_second = 100
[clients.other]
max_count = 5
"""


def test_a_minute_ends_after_sixty_seconds() -> None:
    cap = MinuteCap(3)
    cap.take(2, 0.0)
    assert [cap.left(now) for now in (0.0, 59.9, 60.0)] == [1, 1, 3]
    assert cap.wait_for(4, 0.0) == inf
    assert [cap.wait_for(2, now) for now in (0.0, 45.0, 59.5, 60.0)] == [60.0, 15.0, 0.5, 0.0]
    cap.take(3, 60.0)
    assert (cap.left(60.0), cap.wait_for(1, 90.0)) == (0, 30.0)


def test_a_minute_waits_for_as_many_as_are_needed() -> None:
    cap = MinuteCap(3)
    for at in (0.0, 10.0, 20.0):
        cap.take(1, at)
    assert [cap.wait_for(count, 20.0) for count in (1, 2, 3)] == [40.0, 50.0, 60.0]


def test_a_bucket_fills_up_and_no_further() -> None:
    bucket = TokenBucket(10.0, 20.0)
    assert (bucket.left(0.0), bucket.wait_for(20.0, 0.0), bucket.wait_for(99.0, 0.0)) == (20.0, 0.0, 0.0)
    bucket.take(25.0)
    assert (bucket.left(0.0), bucket.wait_for(5.0, 0.0)) == (-5.0, 1.0)
    assert [bucket.left(now) for now in (1.0, 0.5, 60.0)] == [5.0, 5.0, 20.0]  # a clock that goes back gives nothing
    bucket.take_up_to(30.0)
    assert bucket.left(60.0) == 0.0
    assert TokenBucket(10.0).left(0.0) == 10.0


def order(judge: Judge, client: str, name: str, *, now: float = 0.0) -> str:
    body = json.dumps(order_body(client_order_id=name)).encode()
    wanted = body if judge.needs_body(client, "POST", ORDERS) else None
    return judge.judge(client, "POST", ORDERS, wanted, at=NOON, now=now).rule


def test_limits_are_the_clients_own() -> None:
    judge = Judge(parse_policy(TWO))
    needs = [judge.needs_body(client, "POST", ORDERS) for client in ("maker", "other", "stranger")]
    assert needs == [False, True, False]
    assert [order(judge, "maker", name) for name in ("a", "b", "c")] == ["allowed", "allowed", "orders_per_minute"]
    assert order(judge, "other", "d") == "allowed"
    left = judge.left(0.0)
    assert left == {
        "maker": {
            "write_tokens_per_second": {"limit": 100.0, "left": 80.0},
            "orders_per_minute": {"limit": 2, "left": 0},
        },
        "other": {},
    }
    assert judge.left(0.05)["maker"]["write_tokens_per_second"]["left"] == 85.0


def test_a_stranger_is_told_so() -> None:
    verdict = Judge(parse_policy(TWO)).judge("x", "GET", f"{V2}/portfolio/balance", None, at=NOON, now=0)
    assert (verdict.rule, verdict.message) == ("client", "the policy has no rules for 'x', nor default")


def test_what_was_taken_outlives_a_reload_for_whom_the_policy_still_names() -> None:
    judge = Judge(parse_policy(TWO))
    assert [order(judge, "maker", name) for name in ("a", "b")] == ["allowed", "allowed"]
    judge.replace(parse_policy(TWO.replace("orders_per_minute = 2", "orders_per_minute = 3")))
    assert [order(judge, "maker", name) for name in ("c", "d")] == ["allowed", "orders_per_minute"]
    judge.replace(parse_policy("version = 1\n[clients.other]"))
    assert (order(judge, "maker", "e"), list(judge.left(0.0))) == ("client", ["other"])
    judge.replace(parse_policy(TWO))
    assert order(judge, "maker", "f") == "allowed"  # who was dropped begins anew


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"a": NaN}', "isn't JSON: it holds NaN or Infinity"),
        (b'{"a": -Infinity}', "isn't JSON: it holds NaN or Infinity"),
        (b'{"a": 1, "A": 2}', "says one name twice"),
        (b'{"b": {"a": 1, "a": 1}}', "says one name twice"),
        (b"[]", "isn't a JSON object"),
        (b"{", "isn't JSON in UTF-8"),
        (b'{"a": "\xff"}', "isn't JSON in UTF-8"),
        (b"[" * 100_000, "isn't JSON in UTF-8"),
        (b"{} {}", "isn't JSON in UTF-8"),
        (b"{}\x00", "isn't JSON in UTF-8"),
        (b"\x0b{}", "isn't JSON in UTF-8"),  # a space to Python, and none to JSON
        (b"\xc2\xa0{}", "isn't JSON in UTF-8"),
        (b" ", "isn't JSON in UTF-8"),
    ],
)
def test_json_that_is_not_clear(text: bytes, why: str) -> None:
    with pytest.raises(UnclearJsonError) as error:
        strict_object(text)
    assert str(error.value) == why


def test_json_may_have_space_around_it() -> None:
    assert strict_object(b' \t\r\n{"a": 1} \t\r\n') == {"a": 1}


@pytest.mark.parametrize(
    ("markets", "ticker", "is_taken"),
    [
        (None, "KX-1", True),
        ([], "KX-1", False),
        (["KX-1"], "KX-1", True),
        (["KX-1"], "KX-11", False),
        (["A", "KX-*"], "KX-1", True),
        (["A", "B*"], "KX-1", False),
        (["A", "B*"], "AB", False),
        (["KX.1"], "KX-1", False),
    ],
)
def test_a_market_has_to_match_one_of_the_patterns_from_end_to_end(
    markets: list[str] | None, ticker: str, is_taken: bool
) -> None:
    assert OrderLimits(None, None, markets).takes_market(ticker) is is_taken


def test_a_rule_for_the_rest_is_not_one_for_a_shorter_path() -> None:
    rule = Rule.parse("GET /portfolio/orders/**")
    paths = ("/portfolio", "/portfolio/orders", "/portfolio/orders/x/y")
    matched = [path for path in paths if rule.matches("GET", V2 + path)]
    assert matched == ["/portfolio/orders", "/portfolio/orders/x/y"]


@pytest.mark.parametrize("rule", ["GET /a/./b", "GET /a/../b", "GET /a/**/b", "get /a"])
def test_a_rule_that_is_none(rule: str) -> None:
    with pytest.raises(ValueError, match=r"a rule begins with|stands at the end only"):
        Rule.parse(rule)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ticker": "OTHER"}, "the order isn't for one of the markets that are allowed"),
        ({"count": "5.01"}, "the order is for more than 5 contracts"),
        ({"price": "0.6100"}, "a contract may cost more than 60 cents"),
        ({"orders": []}, "the body can't be judged: it has a field that this route doesn't take"),
        ({"count": "0"}, "the body can't be judged: count has to be more than nothing"),
        ({"ticker": None}, "the body can't be judged: ticker is missing"),
    ],
)
def test_a_client_is_told_which_limit_is_against_its_order(changes: dict[str, object], told: str) -> None:
    rules = 'version = 1\n[clients.default]\nmax_count = 5\nmax_price_cents = 60\nmarkets = ["KX*"]'
    body = json.dumps(order_body(**changes)).encode()
    assert Judge(parse_policy(rules)).judge("default", "POST", ORDERS, body, at=NOON, now=0).message == told
