"""What limits make of orders: by one exact form a route, in whole hundredths."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.proxy.exposures import Exposure
from hsm_keys.proxy.orders import Request
from tests.support.judging import AMENDMENT, MONEY, NOON, ORDER, ORDERS, V2, ask, judge

PERPS = f"{V2}/margin/orders"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({}, "allowed"),
        ({"count": "10.00", "price": "0.5000"}, "allowed"),
        ({"count": "10", "price": "0.5"}, "allowed"),
        ({"count": "0.01"}, "allowed"),
        ({"count": "10.01"}, "max_count"),
        ({"count": "999999999"}, "max_count"),
        ({"price": "0.5001"}, "max_price_cents"),
        ({"side": "ask", "price": "0.5000"}, "allowed"),
        ({"side": "ask", "price": "0.9999"}, "allowed"),
        ({"side": "ask", "price": "0.4999"}, "max_price_cents"),
        ({"side": "ask", "reduce_only": True, "time_in_force": "immediate_or_cancel", "price": "0.01"}, "allowed"),
        (
            {"side": "bid", "reduce_only": True, "time_in_force": "immediate_or_cancel", "price": "0.60"},
            "max_price_cents",
        ),
        ({"side": "ask", "reduce_only": False, "price": "0.01"}, "max_price_cents"),
        ({"side": "ask", "reduce_only": None, "price": "0.01"}, "max_price_cents"),
        ({"ticker": "KXB-1"}, "markets"),
        ({"ticker": "kxtest-1"}, "markets"),
        ({"client_order_id": None, "subaccount": 3, "exchange_index": -1, "expiration_time": 1}, "allowed"),
        ({"post_only": True, "cancel_order_on_pause": True, "order_group_id": "g"}, "allowed"),
    ],
)
def test_orders_are_limited(change: dict[str, Any], rule: str) -> None:
    order = {**ORDER, **change}
    for path, body in ((ORDERS, order), (ORDERS + "/batched", {"orders": [ORDER, order]})):
        assert ask(judge(MONEY), "POST", path, body).rule == rule


@pytest.mark.parametrize(
    "change",
    [
        {"action": "sell"},
        {"yes_price": 5},
        {"no_price": 5},
        {"count_fp": "5.00"},
        {"type": "market"},
        {"Count": "5.00"},
        {"market_ticker": "KXTEST-1"},
        {"market_id": "m"},
        {"side": "Bid"},
        {"side": "yes"},
        {"side": ["bid"]},
        {"side": None},
        {"time_in_force": "GTC"},
        {"self_trade_prevention_type": "taker"},
        {"count": 5},
        {"count": 5.0},
        {"count": True},
        {"count": None},
        {"count": "0"},
        {"count": "0.00"},
        {"count": "-1"},
        {"count": "5.001"},
        {"count": "1e1"},
        {"count": "1_0"},
        {"count": " 5"},
        {"count": "5\n"},
        {"count": "\u0665"},
        {"count": "9999999999"},
        {"price": 0.4},
        {"price": 40},
        {"price": "0"},
        {"price": "0.0000"},
        {"price": "1.0000"},
        {"price": "1"},
        {"price": "0.40000"},
        {"price": "NaN"},
        {"price": "+0.40"},
        {"price": ".40"},
        {"reduce_only": True},
        {"reduce_only": 1},
        {"reduce_only": "true"},
        {"subaccount": True},
        {"subaccount": -1},
        {"subaccount": 2**53},
        {"expiration_time": -(2**53)},
        {"exchange_index": 10**100},
        {"ticker": ["KXTEST-1"]},
        {"ticker": "KXTEST-1 "},
        {"client_order_id": " mine"},
        {"client_order_id": "mi\0ne"},
        {"client_order_id": "m\u0131ne"},
        {"client_order_id": "m" * 201},
        {"ticker": ""},
    ],
)
def test_an_order_has_one_form(change: dict[str, Any]) -> None:
    order = {**ORDER, **change}
    for path, body in ((ORDERS, order), (ORDERS + "/batched", {"orders": [ORDER, order]})):
        assert ask(judge("max_count = 100"), "POST", path, body).rule == "body"


@pytest.mark.parametrize("change", [{"side": "CANARY"}, {"CANARY": 1}, {"count": "CANARY"}, {"ticker": "CANARY \t"}])
def test_a_refusal_quotes_nothing_of_the_body(change: dict[str, Any]) -> None:
    denied = ask(judge(MONEY), "POST", ORDERS, {**ORDER, **change})
    assert denied.rule == "body"
    assert "CANARY" not in denied.message


def test_what_is_missing_is_named() -> None:
    order = {name: value for name, value in ORDER.items() if name != "price"}
    assert "price is missing" in ask(judge(MONEY), "POST", ORDERS, order).message
    assert "orders.1.price" in ask(judge(MONEY), "POST", ORDERS + "/batched", {"orders": [ORDER, order]}).message


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(ORDER).replace('"count"', '"count": "1.00", "count"'),
        json.dumps(ORDER).replace('"count"', '"\\u0063ount": "1.00", "count"'),
        json.dumps(ORDER).replace('"side"', '"\u017fide": "ask", "side"'),
        "\ufeff" + json.dumps(ORDER),
        json.dumps(ORDER) + json.dumps(ORDER),
        "[]",
        '{"count": NaN}',
        json.dumps({**ORDER, "order_group_id": "\ud800"}),
        "",
        "[" * 100_000,
        '{"orders": []}',
        '{"orders": {}}',
    ],
)
def test_a_body_that_can_be_read_in_two_ways_is_refused(body: str) -> None:
    for path in (ORDERS, ORDERS + "/batched"):
        assert ask(judge(MONEY), "POST", path, body.encode()).rule == "body"
        assert ask(judge(MONEY), "POST", path, body.encode("utf-16")).rule == "body"


@pytest.mark.parametrize(
    ("path", "body", "query", "is_allowed"),
    [
        (ORDERS, ORDER, "subaccount=1", False),
        (ORDERS, ORDER, "count=1000", False),
        (ORDERS + "/batched", {"orders": [ORDER]}, "subaccount=1", False),
        (ORDERS + "/o1/amend", AMENDMENT, "subaccount=1", True),
        (ORDERS + "/o1/amend", AMENDMENT, "subaccount=1&price=0.99", False),
        (ORDERS + "/o1/decrease", {"reduce_by": "1"}, "subaccount=12", True),
        (ORDERS + "/o1/decrease", {"reduce_by": "1"}, "reduce_to=100", False),
        ("/trade-api/v2/margin/orders", {**ORDER, "price": "12.50"}, "price=0.01", False),
    ],
)
def test_nothing_that_is_judged_stands_in_a_query(path: str, body: object, query: str, *, is_allowed: bool) -> None:
    content = json.dumps(body).encode()
    said = judge("max_count = 100").judge("default", "POST", path, content, at=NOON, now=0, query=query)
    assert (said.allowed, said.rule == "body") == (is_allowed, not is_allowed)


@given(
    side=st.sampled_from(["bid", "ask"]),
    price=st.integers(1, 9999),
    count=st.integers(1, 2000),
    most=st.integers(1, 99),
    decimals=st.integers(2, 4),
)
def test_no_order_costs_more_than_the_limit(side: str, price: int, count: int, most: int, decimals: int) -> None:
    said = f"{Decimal(price) / 10_000:.{decimals}f}"
    exact = Decimal(said)
    order = {**ORDER, "side": side, "price": said, "count": f"{Decimal(count) / 100}"}
    verdict = ask(judge(f"max_price_cents = {most}\nmax_count = 10"), "POST", ORDERS, order)
    if not 0 < exact < 1:
        assert verdict.rule == "body"
        return
    cost = exact if side == "bid" else 1 - exact
    assert verdict.allowed == (cost <= Decimal(most) / 100 and count <= 1000)


def test_an_amendment_has_to_pass_as_either_side() -> None:
    """Whether the order that it changes is a bid or an ask isn't known here, whatever the amendment says."""
    path = ORDERS + "/x/amend"
    for side in ("bid", "ask"):
        assert ask(judge(MONEY), "POST", path, {**AMENDMENT, "side": side}).allowed
        for price in ("0.4999", "0.5001"):
            assert (
                ask(judge(MONEY), "POST", path, {**AMENDMENT, "side": side, "price": price}).rule == "max_price_cents"
            )
    assert ask(judge(MONEY), "POST", path, {**AMENDMENT, "count": "10.01"}).rule == "max_count"
    assert ask(judge(MONEY), "POST", path, {**AMENDMENT, "ticker": "KXB-1"}).rule == "markets"
    for change in ({"reduce_only": True}, {"time_in_force": "fill_or_kill"}, {"price": None}, {"expiration_time": -1}):
        assert ask(judge(MONEY), "POST", path, {**AMENDMENT, **change}).rule == "body"


def test_perpetual_futures_have_no_price_out_of_a_dollar() -> None:
    order = {**ORDER, "price": "61234.5000"}
    asked = judge('max_count = 10\nmarkets = ["KXTEST-*"]')
    assert ask(asked, "POST", PERPS, order).allowed
    assert ask(asked, "POST", PERPS, {**order, "count": "11"}).rule == "max_count"
    assert ask(asked, "POST", PERPS, {**order, "ticker": "KXB-1"}).rule == "markets"
    assert ask(asked, "POST", PERPS, {**order, "market_id": "m"}).rule == "body"
    assert ask(asked, "POST", PERPS, {**order, "exchange_index": 1}).rule == "body"
    amendment = {**AMENDMENT, "price": "61234.5"}
    assert ask(asked, "POST", PERPS + "/x/amend", amendment).allowed
    for path, body in ((PERPS, order), (PERPS + "/x/amend", amendment)):
        denied = ask(judge(MONEY), "POST", path, body)
        assert denied.rule == "max_price_cents"
        assert "allow_unjudged" in denied.message
        named = judge(MONEY + '\nallow_unjudged = ["POST /margin/orders", "POST /margin/orders/*/amend"]')
        assert ask(named, "POST", path, body).allowed
        assert not named.needs_body("default", "POST", path)


@pytest.mark.parametrize("path", [ORDERS, PERPS])
def test_what_only_reduces_is_allowed_under_any_limit(path: str) -> None:
    asked = judge(MONEY + "\norders_per_minute = 1")
    assert ask(asked, "POST", ORDERS, ORDER).allowed
    for _ in range(3):
        assert ask(asked, "DELETE", path).allowed
        assert ask(asked, "DELETE", path + "/x").allowed
        for body in ({"reduce_by": "1.00"}, {"reduce_to": "0"}, None):
            assert ask(asked, "POST", path + "/x/decrease", body).allowed
    assert ask(asked, "DELETE", ORDERS + "/batched", {"orders": [{"order_id": "x"}, {"order_id": "y"}]}).allowed


@pytest.mark.parametrize("path", [ORDERS, PERPS])
@pytest.mark.parametrize(
    "body",
    [
        {"reduce_by": "-1.00"},
        {"reduce_by": "0"},
        {"reduce_by": 1},
        {"reduce_to": "-1"},
        {"reduce_by": "1", "reduce_to": "1"},
        {"reduce_to": "1", "price": "0.99"},
        {},
    ],
)
def test_a_decrease_that_may_not_be_one_is_refused(path: str, body: dict[str, Any]) -> None:
    assert ask(judge(MONEY), "POST", path + "/x/decrease", body).rule == "body"


def test_what_no_limit_can_judge_has_to_be_named() -> None:
    routes = (
        "/portfolio/order_groups/create",
        "/communications/quotes",
        "/portfolio/new/orders",
        "/Portfolio/events/orders",
    )
    for rules in (MONEY, "orders_per_minute = 5"):
        for path in routes:
            denied = ask(judge(rules), "POST", V2 + path)
            assert denied.rule == "allow_unjudged"
            named = denied.message.split("`")[1]
            assert ask(judge(f"{rules}\n{named}"), "POST", V2 + path).allowed
        assert ask(judge(rules), "GET", f"{V2}/portfolio/new").allowed
    assert ask(judge('orders_per_minute = 1\nallow_unjudged = ["POST /**"]'), "POST", ORDERS).allowed


def test_old_orders_are_refused_under_limits_with_what_to_send() -> None:
    asked = judge(MONEY)
    denied = ask(asked, "POST", f"{V2}/portfolio/orders", {"ticker": "KXTEST-1", "side": "yes", "no_price": 5})
    assert denied.rule == "gone"
    assert "send POST /portfolio/events/orders" in denied.message
    assert ask(asked, "DELETE", f"{V2}/portfolio/orders/x").allowed  # Kalshi says itself that it is gone
    assert ask(judge(""), "POST", f"{V2}/portfolio/orders").allowed


def test_what_several_orders_may_cost_at_most() -> None:
    """An ask that can only reduce a position costs nothing. Where it can't be told of one, it can't be of all."""
    bid = Exposure("KXTEST-1", "bid", 250, 4000)
    reducing, unknown = bid._replace(cost=0), bid._replace(cost=0, perps=True)
    assert Request(1, (bid,)).worst_case == 10_000
    assert Request(2, (bid, reducing)).worst_case == 10_000
    assert Request(1, (reducing,)).worst_case == 0
    assert Request(2, (bid, unknown)).worst_case is None
    assert Request(2, (bid, bid)).contracts == 500
