"""What a policy says, and what the judge makes of it."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime
from posixpath import normpath
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.errors import UsageError
from hsm_keys.proxy.judge import Judge, Verdict
from hsm_keys.proxy.limits import MinuteCap, TokenBucket
from hsm_keys.proxy.paths import Rule, UnclearPathError, split_target
from hsm_keys.proxy.policy import parse_policy

V2 = "/trade-api/v2"
ORDERS = f"{V2}/portfolio/orders"
NOON = datetime(2026, 11, 24, 17, 0, tzinfo=UTC)  # a Tuesday; 12:00 in New York
ORDER: dict[str, Any] = {"ticker": "KXA-1", "side": "yes", "action": "buy", "count": 5, "yes_price": 40}


def judge(rules: str, client: str = "default") -> Judge:
    return Judge(parse_policy(f"version = 1\n[clients.{client}]\n{rules}"))


def ask(asked: Judge, method: str, path: str, body: object = None, *, at: datetime = NOON, now: float = 0.0) -> Verdict:
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    return asked.judge("default", method, path, content, at=at, now=now)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/api_keys", "/api_keys/generate", "/API_KEYS", "/api_keys/x/y", "/fcm/api-keys"])
def test_api_keys_are_denied_to_everyone(method: str, path: str) -> None:
    for prefix in (V2, "/trade-api/v3"):
        for asked in (Judge(), judge('allow = ["* /trade-api/**"]')):
            assert ask(asked, method, prefix + path).rule == "api_keys"
        assert ask(judge("allow_key_management = true"), method, prefix + path).allowed


def test_transfers_are_denied_to_everyone() -> None:
    for path in ("/portfolio/subaccounts/transfer", "/portfolio/Withdrawals"):
        assert ask(judge('allow = ["* /**"]'), "POST", V2 + path).rule == "transfers"
        assert ask(judge("allow_transfers = true"), "POST", V2 + path).allowed
    assert ask(Judge(), "GET", f"{V2}/portfolio/subaccounts/transfers").allowed


def test_routes() -> None:
    asked = judge('allow = ["GET /portfolio/**", "POST /portfolio/orders"]\ndeny = ["GET /portfolio/fills"]')
    assert ask(asked, "GET", f"{V2}/portfolio").rule == "allow GET /portfolio/**"
    assert ask(asked, "GET", f"{V2}/portfolio/orders/x").allowed
    assert ask(asked, "POST", ORDERS).allowed
    assert ask(asked, "POST", ORDERS + "/batched").rule == "allow"
    assert ask(asked, "GET", f"{V2}/Portfolio/orders").rule == "allow"
    assert ask(asked, "GET", f"{V2}/portfolio/FILLS").rule == "deny GET /portfolio/fills"
    assert ask(asked, "HEAD", f"{V2}/portfolio").rule == "method"
    assert ask(judge("read_only = true"), "DELETE", ORDERS + "/x").rule == "read_only"
    assert ask(judge("", client="other"), "GET", ORDERS).rule == "client"


def test_hours() -> None:
    asked = judge('hours = ["Mon-Fri 09:30-12:30 America/New_York"]')
    assert ask(asked, "GET", ORDERS).allowed
    assert ask(asked, "GET", ORDERS, at=NOON.replace(minute=30)).rule == "hours"
    assert ask(asked, "GET", ORDERS, at=NOON.replace(day=28)).rule == "hours"
    assert ask(judge('hours = ["Sun-Tue 00:00-24:00 UTC"]'), "GET", ORDERS).allowed


def test_hours_over_midnight_and_over_a_change_of_clocks() -> None:
    night = judge('hours = ["Mon-Thu 22:00-24:00 UTC", "Tue-Fri 00:00-02:00 UTC"]')
    for hour, allowed in ((21, False), (22, True), (23, True)):
        assert ask(night, "GET", ORDERS, at=NOON.replace(hour=hour)).allowed is allowed
    assert ask(night, "GET", ORDERS, at=datetime(2026, 11, 25, 1, 59, tzinfo=UTC)).allowed
    assert not ask(night, "GET", ORDERS, at=datetime(2026, 11, 25, 2, 0, tzinfo=UTC)).allowed
    sunday = judge('hours = ["Sun 01:00-02:00 America/New_York"]')  # an hour that came twice on 2026-11-01
    for hour, allowed in ((4, False), (5, True), (6, True), (7, False)):
        assert ask(sunday, "GET", ORDERS, at=datetime(2026, 11, 1, hour, 30, tzinfo=UTC)).allowed is allowed
    opening = judge('hours = ["Mon-Fri 09:30-16:00 America/New_York"]')
    assert ask(opening, "GET", ORDERS, at=datetime(2026, 10, 30, 13, 30, tzinfo=UTC)).allowed  # summer time
    assert not ask(opening, "GET", ORDERS, at=datetime(2026, 11, 2, 13, 30, tzinfo=UTC)).allowed


def test_tokens_and_caps() -> None:
    asked = judge("write_tokens_per_second = 20\norders_per_minute = 3")
    assert ask(asked, "POST", ORDERS, ORDER).allowed
    assert ask(asked, "POST", ORDERS, ORDER).allowed
    third = ask(asked, "POST", ORDERS, ORDER)
    assert (third.status, third.rule, third.retry_after) == (429, "tokens per second", 1)
    assert ask(asked, "GET", ORDERS).allowed
    assert ask(asked, "POST", ORDERS, ORDER, now=0.5).allowed
    fourth = ask(asked, "POST", ORDERS, ORDER, now=5)
    assert (fourth.status, fourth.rule, fourth.retry_after) == (429, "orders_per_minute", 55)
    assert ask(asked, "POST", ORDERS, ORDER, now=60).allowed


def test_a_reload_gives_no_limits_back() -> None:
    rules = "orders_per_minute = 1"
    asked = judge(rules)
    assert ask(asked, "POST", ORDERS, ORDER).allowed
    asked.replace(judge(rules + "\nmax_count = 5\nread_tokens_per_second = 50").policy)
    assert ask(asked, "POST", ORDERS, ORDER, now=1).status == 429
    asked.replace(judge("orders_per_minute = 2").policy)
    assert ask(asked, "POST", ORDERS, ORDER, now=2).allowed
    assert ask(asked, "POST", ORDERS, ORDER, now=3).status == 429


def test_a_batch_counts_each_order() -> None:
    batch = {"orders": [ORDER, ORDER]}
    for rules in ("orders_per_minute = 3", "write_tokens_per_second = 30"):
        asked = judge(rules)
        assert asked.needs_body("default", "POST", ORDERS + "/batched")
        assert not asked.needs_body("default", "POST", ORDERS)
        assert ask(asked, "POST", ORDERS + "/batched", batch).allowed
        assert ask(asked, "POST", ORDERS + "/batched", batch).status == 429
        assert ask(asked, "POST", ORDERS, b"").allowed
    assert ask(judge("orders_per_minute = 3"), "POST", ORDERS + "/batched", {"orders": [ORDER] * 4}).status == 403


MONEY = 'max_count = 10\nmax_price_cents = 50\nmarkets = ["KXA-*"]'


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({}, "allowed"),
        ({"count": 10, "yes_price": 50}, "allowed"),
        ({"count": 11}, "max_count"),
        ({"count": -1}, "max_count"),
        ({"count": None}, "body"),
        ({"count": 1e9}, "body"),
        ({"count": True}, "body"),
        ({"count_fp": "5.00"}, "body"),
        ({"yes_price": 51}, "max_price"),
        ({"no_price": 10}, "body"),
        ({"yes_price": "0.40"}, "allowed"),
        ({"yes_price": "NaN"}, "body"),
        ({"ticker": "KXB-1"}, "markets"),
        ({"ticker": ["KXA-1"]}, "markets"),
        ({"action": "sell", "yes_price": 60}, "allowed"),
        ({"action": "sell", "yes_price": 40}, "max_price"),
        ({"action": "sell", "yes_price": 40, "reduce_only": True}, "allowed"),
        ({"action": "buy", "yes_price": 60, "reduce_only": True}, "max_price"),
        ({"side": "ask", "yes_price": 40}, "max_price"),
        ({"Count": 100}, "body"),
        ({"quantity": 100}, "body"),
        ({"count": 1e2}, "body"),
        ({"count": 10**30}, "max_count"),
        ({"count": "1_0"}, "body"),
        ({"count": "1e1"}, "body"),
        ({"count": " 5"}, "body"),
        ({"count": "\u0665"}, "body"),
        ({"yes_price": "-0.40"}, "body"),
        ({"type": "limit"}, "allowed"),
        ({"type": "market"}, "max_price"),
        ({"side": ["yes"]}, "body"),
        ({"action": {"buy": 1}}, "body"),
        ({"ticker": "kxa-1"}, "markets"),
    ],
)
def test_orders_are_limited(change: dict[str, Any], rule: str) -> None:
    for path, body in ((ORDERS, {**ORDER, **change}), (ORDERS + "/batched", {"orders": [ORDER, {**ORDER, **change}]})):
        assert ask(judge(MONEY), "POST", path, body).rule == rule


# Every route of Kalshi's that changes something (OpenAPI 3.13.0), and its verdict by default and with limited orders.
CHANGES = """
POST   /portfolio/orders                                  allowed    body
DELETE /portfolio/orders/x                                allowed    allowed
POST   /portfolio/orders/batched                          allowed    body
DELETE /portfolio/orders/batched                          allowed    allowed
POST   /portfolio/orders/x/amend                          allowed    body
POST   /portfolio/orders/x/decrease                       allowed    allowed
POST   /portfolio/order_groups/create                     allowed    body
DELETE /portfolio/order_groups/x                          allowed    allowed
PUT    /portfolio/order_groups/x/reset                    allowed    body
PUT    /portfolio/order_groups/x/trigger                  allowed    allowed
PUT    /portfolio/order_groups/x/limit                    allowed    body
POST   /portfolio/subaccounts                             allowed    body
POST   /portfolio/subaccounts/transfer                    transfers  transfers
PUT    /portfolio/subaccounts/netting                     allowed    body
POST   /api_keys                                          api_keys   api_keys
POST   /api_keys/generate                                 api_keys   api_keys
DELETE /api_keys/x                                        api_keys   api_keys
POST   /communications/rfqs                               allowed    body
DELETE /communications/rfqs/x                             allowed    allowed
POST   /communications/quotes                             allowed    body
DELETE /communications/quotes/x                           allowed    allowed
PUT    /communications/quotes/x/accept                    allowed    body
PUT    /communications/quotes/x/confirm                   allowed    body
POST   /multivariate_event_collections/x                  allowed    body
PUT    /multivariate_event_collections/x/lookup           allowed    body
"""


@pytest.mark.parametrize("route", CHANGES.strip().splitlines())
def test_every_route_that_changes_something(route: str) -> None:
    method, path, by_default, limited = route.split()
    assert ask(Judge(), method, V2 + path, b"{").rule == by_default
    assert ask(judge(MONEY), method, V2 + path, b"{").rule == limited


def test_orders_of_the_second_version() -> None:
    order = {
        "ticker": "KXA-1",
        "side": "bid",
        "count": "10.00",
        "price": "0.5000",
        "time_in_force": "good_till_canceled",
    }
    path = f"{V2}/portfolio/events/orders"
    for change, rule in (
        ({}, "allowed"),
        ({"price": "0.5001"}, "max_price"),
        ({"side": "ask"}, "allowed"),
        ({"side": "ask", "price": "0.4999"}, "max_price"),
        ({"count": "10.01"}, "max_count"),
        ({"ticker": "KXB"}, "markets"),
    ):
        assert ask(judge(MONEY), "POST", path, {**order, **change}).rule == rule
        assert ask(judge(MONEY), "POST", path + "/batched", {"orders": [{**order, **change}]}).rule == rule
    assert ask(judge(MONEY), "DELETE", path + "/x").allowed


def test_dollars_are_cents() -> None:
    dollars = {name: value for name, value in ORDER.items() if name != "yes_price"}
    assert ask(judge(MONEY), "POST", ORDERS, {**dollars, "yes_price_dollars": "0.5000"}).allowed
    assert ask(judge(MONEY), "POST", ORDERS, {**dollars, "no_price_dollars": "0.5001"}).rule == "max_price"
    assert ask(judge(MONEY), "POST", ORDERS, dollars).rule == "max_price"
    assert ask(judge(MONEY), "POST", ORDERS + "/x/amend", {"ticker": "KXA-1", "count": 11}).rule == "max_count"
    assert ask(judge(MONEY), "POST", ORDERS + "/x/amend", {"ticker": "KXA-1"}).allowed


def test_an_amendment_is_not_made_cheap_by_a_word() -> None:
    """What it amends may have been made without ``reduce_only``, and Kalshi doesn't read that here."""
    order = {"ticker": "KXA-1", "side": "yes", "action": "sell", "reduce_only": True}
    assert ask(judge(MONEY), "POST", ORDERS + "/x/amend", {**order, "yes_price": 1}).rule == "max_price"
    assert ask(judge(MONEY), "POST", ORDERS + "/x/amend", {**order, "yes_price": 50}).allowed


@pytest.mark.parametrize(
    "body",
    [
        b'{"ticker": "KXA-1", "count": 1, "count": 1000, "yes_price": 4}',
        b'{"ticker": "KXA-1", "count": 1, "\\u0063ount": 1000, "yes_price": 4}',
        b"\xff\xfe{}",
        b"[]",
        b'{"count": NaN}',
        b"",
        b"[" * 100_000,
        b'\xef\xbb\xbf{"ticker": "KXA-1", "count": 1, "yes_price": 4}',
        b'{"ticker": "KXA-1", "count": 1, "yes_price": 4}{"count": 1000}',
        '{"ticker": "KXA-1", "count": 1, "yes_price": 4}'.encode("utf-16"),
        b'{"ticker": "KXA-1", "count": 1, "Count": 1000, "yes_price": 4}',
        '{"ticker": "KXA-1", "\u017fide": "no", "side": "yes", "count": 1, "yes_price": 4}'.encode(),
        b'{"orders": []}',
    ],
)
def test_a_body_that_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    assert ask(judge(MONEY), "POST", ORDERS, body).rule == "body"
    assert ask(judge(MONEY), "POST", ORDERS + "/batched", body).rule == "body"


def test_limited_orders_leave_no_other_way_to_trade() -> None:
    asked = judge(MONEY)
    for path in ("/portfolio/order_groups/create", "/communications/quotes", "/portfolio/new/orders"):
        assert ask(asked, "POST", V2 + path).rule == "body"
        assert ask(judge("orders_per_minute = 5"), "POST", V2 + path).rule == "body"
    for path in (ORDERS, ORDERS + "/batched", ORDERS + "/x/amend"):
        assert ask(asked, "POST", path).rule == "body"
    assert ask(asked, "DELETE", ORDERS + "/x").allowed
    assert ask(asked, "POST", ORDERS + "/x/decrease").allowed
    assert asked.needs_body("default", "POST", ORDERS)
    assert asked.needs_body("default", "POST", ORDERS.upper().replace("/TRADE-API/V2", V2))
    assert not asked.needs_body("default", "GET", ORDERS)


def test_frozen_denies_everything() -> None:
    asked = Judge(frozen=True)
    assert ask(asked, "GET", ORDERS).rule == "frozen"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version = 2\n[clients.a]", "version"),
        ("version = 1", "clients"),
        ("version = 1\n[clients.a]\nreadonly = true", "readonly"),
        ("version = 1\n[clients.a]\nread_only = 1", "read_only"),
        ("version = 1\n[clients.a]\nallow = ['/portfolio']", "a rule begins with"),
        ("version = 1\n[clients.a]\nallow = ['GET /a/../b']", "no segment is a dot"),
        ("version = 1\n[clients.a]\nallow = ['GET /a/**/b']", "at the end only"),
        ("version = 1\n[clients.a]\nallow = ['GET /a b']", "a path looks like"),
        ("version = 1\n[clients.a]\nhours = ['Mon 17:00-09:00 UTC']", "two"),
        ("version = 1\n[clients.a]\nhours = ['Mon 09:00-10:00 Mars/Olympus']", "Mars/Olympus"),
        ("version = 1\n[clients.a]\nmax_price_cents = 0", "max_price_cents"),
        ("version = 1\n[clients.a]\nuids = [1]\n[clients.b]\nuids = [1]", "uid 1 is both"),
        ("version = 1\n[clients.'a b']", "no name"),
        ("version =", "no TOML"),
    ],
)
def test_bad_policies_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_policy(text)


PIECES = st.one_of(
    st.sampled_from(["/", "//", ".", "..", ";", "\\", "?", "#", "@", "\n", " ", "é"]),
    st.sampled_from(
        ["%2e", "%2E", "%2f", "%2F", "%5C", "%25", "%252e", "%00", "%0A", "%C3%A9", "%6B", "%3F", "%23", "%20"]
    ),
    st.sampled_from(["api_keys", "%61pi_keys", "API_KEYS", "portfolio", "orders", "transfer"]),
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=8).map("".join))
def test_a_path_that_is_let_through_can_be_read_in_one_way_only(rest: str) -> None:
    target = f"{V2}/{rest}"
    try:
        path, query = split_target(target)
    except UnclearPathError:
        return
    assert f"{path}?{query}".rstrip("?") == target.rstrip("?")
    read = unquote(unquote(path))
    assert normpath(read) == read
    assert len(read.split("/")) == len(path.split("/"))
    verdict = ask(Judge(), "POST", path)
    if read.casefold().startswith(f"{V2}/api_keys/") or read.casefold() == f"{V2}/api_keys":
        assert verdict.rule == "api_keys"


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 4)), max_size=40), st.integers(1, 6))
def test_no_minute_has_more_than_the_cap(asked: list[tuple[float, int]], most: int) -> None:
    cap, now = MinuteCap(most), 0.0
    taken: list[tuple[float, int]] = []
    for pause, count in asked:
        now += pause * 10
        wait = cap.wait_for(count, now)
        if wait == 0:
            cap.take(count, now)
            taken.append((now, count))
        elif count <= most:
            assert deepcopy(cap).wait_for(count, now + wait + 1e-6) == 0
        assert sum(number for at, number in taken if at > now - 60) <= most


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=60))
def test_a_bucket_gives_no_more_than_it_has(pauses: list[float]) -> None:
    bucket, now, taken = TokenBucket(100), 0.0, 0
    for pause in pauses:
        now += pause
        if bucket.wait_for(10, now) == 0:
            bucket.take(10)
            taken += 10
    assert taken <= 100 + now * 100 + 1e-6


def test_rules_match_segments() -> None:
    rule = Rule.parse("GET /portfolio/orders/{order_id}")
    assert rule.matches("GET", ORDERS + "/x")
    assert not rule.matches("GET", ORDERS)
    assert not rule.matches("GET", ORDERS + "/x/y")
    assert not rule.matches("POST", ORDERS + "/x")
    assert Rule.parse("GET /trade-api/ws/v2").matches("GET", "/trade-api/ws/v2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version = 1\n[clients.a]\nmax_counts = 5", r"clients\.a: there is no setting 'max_counts' .*'max_count'"),
        ("version = 1\nclient = 5\n[clients.a]", r"there is no setting 'client' .*'clients'"),
        ("version = 1\n[clients.a]\nsecret-4711 = 5", "there is no setting text of 11 characters"),
        ("version = 1\n[clients.a]\nread_only = 'yes'", r"clients\.a\.read_only: has to be true or false"),
        ("version = 1\n[clients.a]\nmax_price_cents = 100", r"max_price_cents: has to be below 100"),
        ("version = 1\n[clients.a]\nallow = 'GET /**'", r"allow: has to be a list"),
        ("version = 1\n[clients.a]\nallow = ['GET /a', 5]", r"allow, number 2: a rule is a text"),
        ("version = '1'\n[clients.a]", r"version: has to be 1"),
        ("[clients.a]", r"version: is missing"),
        ("version = 1\nclients = 5", r"clients: has to be a table"),
        ("version = 1\n[clients.a]\nmax_count = 1.5", r"max_count: has to be a whole number"),
        ("version = 1\n[clients.a]\n[clients.a]", r"is no TOML: an error \(at line 3, column \d+\)"),
    ],
)
def test_a_slip_is_told_in_words_for_people(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_policy(text)
    assert not any(word in caught.value.message for word in ("Input", "Extra", "Field", "pydantic", "Value error"))
