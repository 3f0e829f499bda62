"""Balance and orders: made-up data in Kalshi's shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from hsm_keys.sandbox import SandboxServer
from tests.sandbox.client import BALANCE, ORDERS, Caller, now_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDER = {"ticker": "KXTEST-1", "side": "yes", "action": "buy", "count": 3, "yes_price": 56, "client_order_id": "mine"}

ORDER_FIELDS = {
    "order_id",
    "user_id",
    "client_order_id",
    "ticker",
    "side",
    "action",
    "type",
    "status",
    "yes_price_dollars",
    "no_price_dollars",
    "fill_count_fp",
    "remaining_count_fp",
    "initial_count_fp",
    "taker_fees_dollars",
    "maker_fees_dollars",
    "taker_fill_cost_dollars",
    "maker_fill_cost_dollars",
}
"""What the OpenAPI's Order requires; all of them are strings."""


@pytest.fixture
def boss() -> Iterator[Caller]:
    with SandboxServer(key_type="ed25519") as server:
        yield Caller.bootstrap(server)


def test_balance(boss: Caller) -> None:
    balance = boss.call("GET", BALANCE).json
    assert set(balance) == {"balance", "balance_dollars", "portfolio_value", "updated_ts"}
    assert float(balance.pop("balance_dollars")) == balance["balance"] / 100
    assert all(type(value) is int for value in balance.values())
    assert abs(balance["updated_ts"] - now_ms() // 1000) <= 2


def test_an_order_is_kept_listed_and_cancelled_once(boss: Caller) -> None:
    reply = boss.call("POST", ORDERS, ORDER)
    assert reply.status == 201
    assert set(reply.json) == {"order"}
    order = reply.json["order"]
    assert set(order) >= ORDER_FIELDS
    assert all(isinstance(order[field], str) for field in ORDER_FIELDS)
    assert (order["yes_price_dollars"], order["no_price_dollars"]) == ("0.5600", "0.4400")
    assert (order["initial_count_fp"], order["remaining_count_fp"], order["status"]) == ("3.00", "3.00", "resting")
    assert order["client_order_id"] == "mine"
    assert boss.call("GET", ORDERS).json == {"orders": [order], "cursor": ""}

    target = f"{ORDERS}/{order['order_id']}"
    cancelled = boss.call("DELETE", target)
    assert cancelled.status == 200
    assert set(cancelled.json) == {"order", "reduced_by_fp"}
    assert cancelled.json["reduced_by_fp"] == "3.00"
    assert cancelled.json["order"] == order | {"status": "canceled", "remaining_count_fp": "0.00"}
    again = boss.call("DELETE", target)
    assert (again.status, again.json["code"]) == (404, "not_found")
    assert boss.call("GET", f"{ORDERS}?status=resting").json["orders"] == []
    assert len(boss.call("GET", f"{ORDERS}?status=canceled&ticker=KXTEST-1").json["orders"]) == 1
    assert boss.call("GET", f"{ORDERS}?ticker=OTHER").json["orders"] == []


def test_orders_come_in_pages_in_the_order_of_their_making(boss: Caller) -> None:
    made = [boss.call("POST", ORDERS, ORDER | {"client_order_id": str(number)}) for number in range(5)]
    ids = [reply.json["order"]["order_id"] for reply in made]
    first = boss.call("GET", f"{ORDERS}?limit=2").json
    assert [order["order_id"] for order in first["orders"]] == ids[:2]
    assert {"+", "/", "="} <= set(first["cursor"])
    after = f"{ORDERS}?limit=2&cursor={quote(first['cursor'], safe='')}"
    boss.call("DELETE", f"{ORDERS}/{ids[0]}")  # a change to what was seen moves nothing
    second = boss.call("GET", after).json
    assert [order["order_id"] for order in second["orders"]] == ids[2:4]
    last = boss.call("GET", f"{ORDERS}?cursor={quote(second['cursor'], safe='')}").json
    assert ([order["order_id"] for order in last["orders"]], last["cursor"]) == (ids[4:], "")
    resting = boss.call("GET", f"{ORDERS}?limit=4&status=resting&cursor=").json
    assert ([order["order_id"] for order in resting["orders"]], resting["cursor"]) == (ids[1:], "")


def test_a_page_holds_a_hundred_unless_a_limit_is_given(boss: Caller) -> None:
    for number in range(101):
        boss.server.state.add_order(
            {"order_id": str(number), "client_order_id": str(number), "status": "resting", "subaccount_number": 0}
        )
    page = boss.call("GET", ORDERS).json
    assert len(page["orders"]) == 100
    assert page["cursor"]
    whole = boss.call("GET", f"{ORDERS}?limit=1000").json
    assert (len(whole["orders"]), whole["cursor"]) == (101, "")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=", "limit=-1", "limit=1.0", "limit=x"])
def test_a_bad_limit_is_refused(boss: Caller, query: str) -> None:
    assert boss.call("GET", f"{ORDERS}?{query}").status == 400


def test_a_cursor_that_was_never_given_is_refused(boss: Caller) -> None:
    for number in range(2):
        boss.call("POST", ORDERS, ORDER | {"client_order_id": str(number)})
    cursor = boss.call("GET", f"{ORDERS}?limit=1").json["cursor"]
    for bad in ("x", "0", cursor, quote(cursor[:-4], safe=""), quote(cursor, safe="") + "A", "MTIzNA%3D%3D", "%C3%A9"):
        reply = boss.call("GET", f"{ORDERS}?cursor={bad}")
        assert (reply.status, set(reply.json)) == (400, {"code", "message"}), bad
    assert boss.call("GET", f"{ORDERS}?cursor={quote(cursor, safe='')}").status == 200


def test_a_client_order_id_is_taken_once(boss: Caller) -> None:
    assert boss.call("POST", ORDERS, ORDER).status == 201
    assert boss.call("POST", ORDERS, ORDER).status == 409
    unnamed = {name: value for name, value in ORDER.items() if name != "client_order_id"}
    assert [boss.call("POST", ORDERS, unnamed).status for _ in range(2)] == [201, 201]
    assert len(boss.server.state.orders) == 3


@pytest.mark.parametrize(
    ("price", "yes", "no"),
    [
        ({"yes_price": 1}, "0.0100", "0.9900"),
        ({"no_price": 30}, "0.7000", "0.3000"),
        ({"yes_price_dollars": "0.5625"}, "0.5625", "0.4375"),
        ({"no_price_dollars": "0.1"}, "0.9000", "0.1000"),
    ],
)
def test_prices(boss: Caller, price: dict[str, Any], yes: str, no: str) -> None:
    body = {name: value for name, value in ORDER.items() if name != "yes_price"} | price
    order = boss.call("POST", ORDERS, body).json["order"]
    assert (order["yes_price_dollars"], order["no_price_dollars"]) == (yes, no)


@pytest.mark.parametrize(
    ("count", "kept"),
    [
        ({"count": 2}, "2.00"),
        ({"count_fp": "2.5"}, "2.50"),
        ({"count": 2, "count_fp": "2.00"}, "2.00"),
        ({"count": 2, "count_fp": None}, "2.00"),
    ],
)
def test_counts(boss: Caller, count: dict[str, Any], kept: str) -> None:
    body = {name: value for name, value in ORDER.items() if name != "count"} | count
    assert boss.call("POST", ORDERS, body).json["order"]["initial_count_fp"] == kept


@pytest.mark.parametrize(
    "fields",
    [
        {"ticker": ""},
        {"ticker": None},
        {"side": "maybe"},
        {"action": "hold"},
        {"action": 1},
        {"client_order_id": 1},
        {"count": 0},
        {"count": "3"},
        {"count": True},
        {"count": 3, "count_fp": "4.00"},
        {"count_fp": "3.000"},
        {"count_fp": "-3"},
        {"count": None},
        {"yes_price": 0},
        {"yes_price": 100},
        {"yes_price": 5.5},
        {"yes_price": 50, "no_price": 50},
        {"subaccount": 64},
        {"subaccount": "1"},
    ],
)
def test_bad_orders_are_refused(boss: Caller, fields: dict[str, Any]) -> None:
    reply = boss.call("POST", ORDERS, ORDER | fields)
    assert (reply.status, set(reply.json)) == (400, {"code", "message"})
    assert boss.server.state.orders == {}


@pytest.mark.parametrize(
    "price", [{}, {"yes_price_dollars": "1.0"}, {"no_price_dollars": "0.0"}, {"no_price_dollars": 0.5}]
)
def test_bad_prices_are_refused(boss: Caller, price: dict[str, Any]) -> None:
    body = {name: value for name, value in ORDER.items() if name != "yes_price"} | price
    assert boss.call("POST", ORDERS, body).status == 400


@pytest.mark.parametrize("text", ["64", "-1", "x", "", "1.0"])
def test_a_bad_subaccount_in_the_query_is_refused(boss: Caller, text: str) -> None:
    assert boss.call("GET", f"{BALANCE}?subaccount={text}").status == 400


def test_no_orders_can_be_a_null() -> None:
    with SandboxServer(key_type="ed25519", null_lists=True) as server:
        boss = Caller.bootstrap(server)
        assert boss.call("GET", ORDERS).json == {"orders": None, "cursor": ""}
        assert boss.call("GET", "/trade-api/v2/exchange/status").json["exchange_estimated_resume_time"] is None
