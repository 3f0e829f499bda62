"""What a policy says, and what the judge makes of it."""

from __future__ import annotations

import re
from copy import deepcopy
from datetime import UTC, datetime
from posixpath import normpath
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.errors import UsageError
from hsm_keys.kalshi.operations import OPERATIONS
from hsm_keys.proxy.costs import Costs, EndpointCosts
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.limits import MinuteCap, TokenBucket
from hsm_keys.proxy.paths import Rule, UnclearPathError, split_target
from hsm_keys.proxy.policy import parse_policy
from tests.support.judging import NOON, ORDER, ORDERS, V2, ask, judge


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/api_keys", "/api_keys/generate", "/API_KEYS", "/api_keys/x/y", "/fcm/api-keys"])
def test_api_keys_are_denied_to_everyone(method: str, path: str) -> None:
    for prefix in (V2, "/trade-api/v3"):
        for asked in (Judge(), judge('allow = ["* /trade-api/**"]')):
            assert ask(asked, method, prefix + path).rule == "api_keys"
        named = 'allow_key_management = true\nallow = ["* /trade-api/**"]'
        assert ask(judge(named), method, prefix + path).allowed


def test_changes_of_accounts_are_denied_to_everyone() -> None:
    for path in ("/portfolio/subaccounts", "/PORTFOLIO/subaccounts", "/account/api_usage_level/upgrade"):
        denied = ask(judge('allow = ["* /**"]'), "POST", V2 + path)
        assert denied.rule == "accounts"
        assert "`allow_account_changes = true`" in denied.message
        assert ask(judge("allow_account_changes = true"), "POST", V2 + path).allowed


def test_transfers_are_denied_to_everyone() -> None:
    for path in ("/portfolio/subaccounts/transfer", "/portfolio/Withdrawals"):
        assert ask(judge('allow = ["* /**"]'), "POST", V2 + path).rule == "transfers"
        assert ask(judge("allow_transfers = true"), "POST", V2 + path).allowed
    assert ask(Judge(), "GET", f"{V2}/portfolio/subaccounts/transfers").allowed


def test_routes() -> None:
    asked = judge('allow = ["GET /portfolio/**", "POST /portfolio/events/orders"]\ndeny = ["GET /portfolio/fills"]')
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


def test_a_cancel_costs_what_kalshi_says() -> None:
    asked = judge("write_tokens_per_second = 20")
    for _ in range(10):
        assert ask(asked, "DELETE", ORDERS + "/x").allowed
    assert ask(asked, "DELETE", ORDERS + "/x").status == 429
    assert ask(asked, "DELETE", ORDERS + "/batched", {"orders": [{"order_id": "x"}] * 10}, now=1).allowed
    assert ask(asked, "DELETE", ORDERS + "/x", now=1).status == 429
    said = {"default_cost": 20, "endpoint_costs": [{"method": "DELETE", "path": f"{ORDERS}/:order_id", "cost": 5}]}
    asked.costs = Costs(EndpointCosts.model_validate(said))
    for _ in range(4):
        assert ask(asked, "DELETE", ORDERS + "/x", now=2).allowed
    assert ask(asked, "DELETE", ORDERS + "/x", now=2).status == 429
    assert ask(asked, "POST", ORDERS, now=3).allowed
    assert ask(asked, "DELETE", ORDERS + "/x", now=3).status == 429


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
        ("version = 1\n[clients.a]\nmax_count = '0.00'", "more than nothing"),
        ("version = 1\n[clients.a]\nmax_count = 1.5", "a string such as"),
        ("version = 1\n[clients.a]\nmax_count = true", "a whole number"),
        ("version = 1\n[clients.a]\nuids = [1]\n[clients.b]\nuids = [1]", "uid 1 is both"),
        ("version = 1\n[clients.'a b']", "no name"),
        ("version =", "isn't TOML"),
    ],
)
def test_bad_policies_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_policy(text)


def test_a_policy_needs_no_version() -> None:
    """What caps money can stand alone in a file."""
    text = """
[clients.maker]
max_count = 100
max_price_cents = 60
max_order_dollars = "50"
max_dollars_a_day = "500"
max_open_dollars = "200"
max_contracts_a_market = 500
duplicate_seconds = 2
cancel_after_silence_seconds = 10
orders_per_minute = 60
"""
    assert parse_policy(text) == parse_policy("version = 1\n" + text)


OTHER_VERSIONS = (
    "/trade-api/v3/portfolio/fills",
    "/trade-api/V2/portfolio/fills",
    "/trade-api/ws/v3",
    "/trade-api/v20",
)


@pytest.mark.parametrize("path", OTHER_VERSIONS)
def test_other_versions_are_forwarded_only_if_they_are_named(path: str) -> None:
    """A deny that speaks of one version is no way round by another."""
    for rules in ("", 'deny = ["GET /portfolio/fills"]', 'allow = ["* /**"]', "read_only = true"):
        assert ask(judge(rules), "GET", path).rule == "version"
    assert ask(Judge(), "GET", path).rule == "version"
    assert ask(judge(f'allow = ["* /**", "GET {path}"]'), "GET", path).rule == f"allow GET {path}"
    assert ask(judge(f'allow = ["* /**", "GET {path}"]'), "POST", path).rule == "version"
    assert ask(judge(f'allow = ["* /trade-api/**"]\ndeny = ["* {path}"]'), "GET", path).rule == f"deny * {path}"


@pytest.mark.parametrize("path", ["/trade-api/ws/v2", "/trade-api/ws/v2/margin"])
def test_websockets_are_forwarded_as_they_are(path: str) -> None:
    assert ask(Judge(), "GET", path).allowed
    assert ask(judge('allow = ["* /**"]'), "GET", path).rule == "allow"


def test_a_parameter_is_no_word_of_kalshis() -> None:
    """Whoever may cancel one order may not cancel a batch of them."""
    one = "DELETE /portfolio/events/orders/{order_id}"
    allowed = judge(f'allow = ["{one}"]')
    assert ask(allowed, "DELETE", ORDERS + "/x").rule == f"allow {one}"
    for word in ("batched", "BATCHED"):
        assert ask(allowed, "DELETE", f"{ORDERS}/{word}", {"orders": []}).rule == "allow"
    denied = judge(f'deny = ["{one}"]')
    assert ask(denied, "DELETE", ORDERS + "/batched", {"orders": [{"order_id": "x"}]}).allowed
    assert ask(denied, "DELETE", ORDERS + "/BATCHED").rule == f"deny {one}"  # an id, where Kalshi doesn't fold
    star = judge('allow = ["DELETE /portfolio/events/orders/*"]')
    assert ask(star, "DELETE", ORDERS + "/batched", {"orders": [{"order_id": "x"}]}).allowed


def test_every_parameter_of_the_table_leaves_its_words_out() -> None:
    """A rule that is written as Kalshi's documentation writes the route allows that route alone."""
    for operation in OPERATIONS:
        rule = Rule.parse(operation.name)
        for other in OPERATIONS:
            fits = rule.matches(operation.method, re.sub("[{}]", "", other.route))
            assert fits == (other.route == operation.route), f"{operation.name} and {other.route}"


def test_escapes_of_what_needs_none_are_refused() -> None:
    for code in range(256):
        raw = chr(code)
        needs = raw in '"<>[]^`{|}'
        try:
            split_target(f"{V2}/portfolio/a%{code:02X}b")
        except UnclearPathError:
            assert not needs, raw
        else:
            assert needs, raw


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
    rule = Rule.parse("GET /portfolio/events/orders/{order_id}")
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
        ("", r"clients: is missing"),
        ("[clients.a]\n[all]\nmax_count = 1", r"all: 'max_count' is no setting of this section \("),
        ("max_count = 1\n[clients.a]", r"policy can't be used: 'max_count' is no setting of this section \("),
        ("version = 1\nclients = 5", r"clients: has to be a table"),
        ("version = 1\n[clients.a]\nmax_count = 1.5", r"max_count: has to be a whole number"),
        ("version = " + "[" * 5_000, r"isn't TOML"),
        ("version = 1\n[clients.a]\n[clients.a]", r"isn't TOML: an error \(at line 3, column \d+\)"),
    ],
)
def test_a_slip_is_told_in_words_for_people(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_policy(text)
    assert not any(word in caught.value.message for word in ("Input", "Extra", "Field", "pydantic", "Value error"))
