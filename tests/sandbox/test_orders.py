"""Orders as Kalshi takes them today: made, filled or resting, amended, decreased, ended; and what it refuses."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from hsm_keys.sandbox.markets import PERPS
from tests.sandbox.client import BALANCE, EVENT_ORDERS, ORDERS, PREFIX, Caller, now_ms, send
from tests.support.orders import add_orders, order_body

FILLS, POSITIONS = f"{PREFIX}/portfolio/fills", f"{PREFIX}/portfolio/positions"


def place(boss: Caller, **changes: Any) -> Any:
    reply = boss.call("POST", EVENT_ORDERS, order_body(**{"client_order_id": None, **changes}))
    assert reply.status == 201, reply.body
    return reply.json


def shown(boss: Caller, order_id: str) -> Any:
    return boss.call("GET", f"{ORDERS}/{order_id}").json["order"]


def test_balance(boss: Caller) -> None:
    balance = boss.call("GET", BALANCE).json
    assert set(balance) == {"balance", "balance_dollars", "portfolio_value", "updated_ts"}
    assert float(balance.pop("balance_dollars")) == balance["balance"] / 100
    assert all(type(value) is int for value in balance.values())
    assert abs(balance["updated_ts"] - now_ms() // 1000) <= 2


def test_an_order_rests_is_listed_and_cancelled_once(boss: Caller) -> None:
    made = place(boss, count="2.5", price="0.56", client_order_id="mine")
    assert set(made) == {"order_id", "client_order_id", "fill_count", "remaining_count", "ts_ms"}
    assert (made["client_order_id"], made["fill_count"], made["remaining_count"]) == ("mine", "0.00", "2.50")
    order = shown(boss, made["order_id"])
    assert (order["book_side"], order["outcome_side"], order["status"]) == ("bid", "yes", "resting")
    assert (order["yes_price_dollars"], order["no_price_dollars"]) == ("0.5600", "0.4400")
    assert boss.call("GET", ORDERS).json == {"orders": [order], "cursor": ""}
    assert boss.call("GET", f"{ORDERS}?status=resting&ticker=KXTEST-1").json["orders"] == [order]
    target = f"{EVENT_ORDERS}/{made['order_id']}"
    cancelled = boss.call("DELETE", target)
    assert (cancelled.status, cancelled.json["reduced_by"]) == (200, "2.50")
    again = boss.call("DELETE", target)
    assert (again.status, again.error["code"]) == (404, "not_found")
    assert shown(boss, made["order_id"])["status"] == "canceled"
    assert boss.call("GET", f"{ORDERS}?status=resting").json["orders"] == []
    assert boss.call("GET", f"{ORDERS}?ticker=OTHER").json["orders"] == []


@pytest.mark.parametrize(
    ("side", "price", "filled_at", "position"),
    [("bid", "0.6500", "0.6000", "6.00"), ("ask", "0.3000", "0.4000", "-6.00")],
)
def test_an_order_at_the_touch_is_filled(boss: Caller, side: str, price: str, filled_at: str, position: str) -> None:
    before = boss.call("GET", BALANCE).json["balance"]
    made = place(boss, side=side, price=price, count="6")
    assert (made["fill_count"], made["remaining_count"]) == ("6.00", "0.00")
    assert made["average_fill_price"] == filled_at
    (fill,) = boss.call("GET", f"{FILLS}?order_id={made['order_id']}").json["fills"]
    assert (fill["yes_price_dollars"], fill["count_fp"], fill["is_taker"]) == (filled_at, "6.00", True)
    assert fill["fee_cost"] == "0.100800"  # 0.07 * 6 * 0.6 * 0.4 dollars
    order = shown(boss, made["order_id"])
    assert (order["status"], order["taker_fill_cost_dollars"]) == ("executed", "3.600000")
    (held,) = boss.call("GET", POSITIONS).json["market_positions"]
    assert (held["position_fp"], held["market_exposure_dollars"]) == (position, "3.600000")
    assert boss.call("GET", BALANCE).json["balance"] == before - 371


def test_what_was_bought_is_sold_for_what_it_brings(boss: Caller) -> None:
    place(boss, side="bid", price="0.60", count="10")
    taking = {"side": "ask", "price": "0.40", "time_in_force": "immediate_or_cancel", "reduce_only": True}
    place(boss, count="4", **taking)
    (held,) = boss.call("GET", POSITIONS).json["market_positions"]
    assert (held["position_fp"], held["realized_pnl_dollars"]) == ("6.00", "-0.800000")
    assert place(boss, count="100", **taking)["fill_count"] == "6.00"  # no more than there was
    assert boss.call("GET", POSITIONS).json["market_positions"][0]["position_fp"] == "0.00"
    refused = boss.call("POST", EVENT_ORDERS, order_body(**taking))
    assert (refused.status, refused.error["code"]) == (400, "invalid_order")


def test_time_in_force(boss: Caller) -> None:
    taken = place(boss, price="0.60", count="1500", time_in_force="immediate_or_cancel")
    assert (taken["fill_count"], taken["remaining_count"]) == ("1000.00", "0.00")
    assert place(boss, price="0.50", time_in_force="immediate_or_cancel")["fill_count"] == "0.00"
    refused = boss.call("POST", EVENT_ORDERS, order_body(price="0.50", time_in_force="fill_or_kill"))
    assert (refused.status, refused.error["code"]) == (409, "fill_or_kill_insufficient_resting_volume")
    assert boss.call("GET", f"{ORDERS}?status=resting").json["orders"] == []
    cross = boss.call("POST", EVENT_ORDERS, order_body(price="0.60", post_only=True))
    assert (cross.status, cross.error["details"]) == (400, "post only cross")


@pytest.mark.parametrize(("prevention", "left"), [("taker_at_cross", "bid"), ("maker", "ask")])
def test_an_account_does_not_trade_with_itself(boss: Caller, prevention: str, left: str) -> None:
    place(boss, side="bid", price="0.55")
    place(boss, side="ask", price="0.50", self_trade_prevention_type=prevention)
    (resting,) = boss.call("GET", f"{ORDERS}?status=resting").json["orders"]
    assert resting["book_side"] == left


def test_amend_and_decrease(boss: Caller) -> None:
    target = f"{EVENT_ORDERS}/{place(boss, count='5', client_order_id='a')['order_id']}"
    change = {"ticker": "KXTEST-1", "side": "bid", "price": "0.45", "count": "7", "updated_client_order_id": "b"}
    amended = boss.call("POST", f"{target}/amend", change)
    assert (amended.status, amended.json["remaining_count"], amended.json["client_order_id"]) == (200, "7.00", "b")
    for body, left in (({"reduce_by": "2"}, "5.00"), ({"reduce_to": "1.5"}, "1.50")):
        lowered = boss.call("POST", f"{target}/decrease", body)
        assert (lowered.status, lowered.json["remaining_count"]) == (200, left)
    assert boss.call("POST", f"{target}/decrease", {"reduce_to": "9"}).status == 400
    assert boss.call("POST", f"{target}/decrease", {"reduce_to": "0"}).json["remaining_count"] == "0.00"
    assert boss.call("POST", f"{target}/decrease", {"reduce_by": "1"}).status == 404
    crossing = {"ticker": "KXTEST-1", "side": "bid", "price": "0.60", "count": "3"}
    filled = boss.call("POST", f"{EVENT_ORDERS}/{place(boss)['order_id']}/amend", crossing)
    assert filled.json["fill_count"] == "3.00"


def test_an_amend_names_the_side_that_the_order_has(boss: Caller) -> None:
    target = f"{EVENT_ORDERS}/{place(boss)['order_id']}/amend"
    for wrong in ({"side": "ask"}, {"ticker": "KXTEST-2"}):
        body = {"ticker": "KXTEST-1", "side": "bid", "price": "0.45", "count": "7"} | wrong
        assert boss.call("POST", target, body).status in {400, 404}


def test_a_batch_has_an_answer_for_each_order(boss: Caller) -> None:
    orders = [order_body(client_order_id="1"), order_body(client_order_id="2", price="1.0000"), {"client_order_id": 3}]
    reply = boss.call("POST", f"{EVENT_ORDERS}/batched", {"orders": orders})
    assert reply.status == 201
    good, bad, odd = reply.json["orders"]
    assert good["remaining_count"] == "3.00"
    assert (bad["client_order_id"], bad["error"]["code"]) == ("2", "invalid_parameters")
    assert set(odd) == {"error"}
    cancels = [{"order_id": good["order_id"]}, {"order_id": "unknown"}]
    ended = boss.call("DELETE", f"{EVENT_ORDERS}/batched", {"orders": cancels})
    assert [entry["reduced_by"] for entry in ended.json["orders"]] == ["3.00", "0.00"]
    assert ended.json["orders"][1]["error"]["code"] == "not_found"


def test_cancel_all_ends_what_rests_on_every_shard(boss: Caller) -> None:
    place(boss)
    place(boss, ticker="KXSHARD-1")
    place(boss, subaccount=3)
    assert boss.call("DELETE", f"{EVENT_ORDERS}?subaccount=3").status == 204
    assert len(boss.call("GET", f"{ORDERS}?status=resting").json["orders"]) == 2
    assert boss.call("DELETE", EVENT_ORDERS).status == 204
    assert boss.call("GET", f"{ORDERS}?status=resting").json["orders"] == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("?exchange_index=0", 404),
        ("?exchange_index=-1", 404),
        ("?market_ticker=KXTEST-1", 404),
        ("?exchange_index=x", 400),
        ("?exchange_index=1", 200),
        ("?market_ticker=KXSHARD-1", 200),
        ("?market_ticker=KXSHARD-1&exchange_index=-1", 200),
    ],
)
def test_a_cancel_on_another_shard_has_to_say_so(boss: Caller, query: str, status: int) -> None:
    made = place(boss, ticker="KXSHARD-1")
    assert boss.call("DELETE", f"{EVENT_ORDERS}/{made['order_id']}{query}").status == status


def test_an_order_group_ends_its_orders_once_its_limit_has_matched(boss: Caller) -> None:
    groups = f"{PREFIX}/portfolio/order_groups"
    made = boss.call("POST", f"{groups}/create", {"contracts_limit": 2})
    assert made.status == 201
    group = made.json["order_group_id"]
    resting = place(boss, order_group_id=group)
    assert boss.call("GET", f"{groups}/{group}").json["orders"] == [resting["order_id"]]
    place(boss, order_group_id=group, price="0.60", count="1")
    assert shown(boss, resting["order_id"])["status"] == "resting"
    place(boss, order_group_id=group, price="0.60", count="1")
    assert shown(boss, resting["order_id"])["status"] == "canceled"
    assert boss.call("PUT", f"{groups}/{group}/limit", {"contracts_limit_fp": "9.00"}).status == 200
    assert boss.call("PUT", f"{groups}/{group}/reset").status == 200
    kept = place(boss, order_group_id=group)
    assert boss.call("PUT", f"{groups}/{group}/trigger").status == 200
    assert shown(boss, kept["order_id"])["status"] == "canceled"
    assert boss.call("DELETE", f"{groups}/{group}").status == 200
    assert boss.call("GET", f"{groups}/{group}").status == 404


BAD: dict[str, dict[str, Any]] = {
    "a number for a count": {"count": 3},
    "a number for a price": {"price": 0.56},
    "a price of one dollar": {"price": "1.0000"},
    "a price of nothing": {"price": "0.00"},
    "five decimals": {"price": "0.56000"},
    "one decimal": {"price": "0.5"},
    "a negative price": {"price": "-0.56"},
    "an exponent": {"price": "5e-1"},
    "digits of another script": {"count": "\u0663"},
    "no count": {"count": None},
    "a count of nothing": {"count": "0.00"},
    "a thousandth of a contract": {"count": "1.001"},
    "a tick that isn't": {"price": "0.5650"},
    "another case": {"side": "Bid"},
    "V1's words": {"side": "yes", "action": "buy"},
    "an unknown field": {"yes_price": 56},
    "no time in force": {"time_in_force": None},
    "another time in force": {"time_in_force": "gtc"},
    "no self-trade prevention": {"self_trade_prevention_type": None},
    "reduce_only that rests": {"reduce_only": True},
    "a text for a flag": {"post_only": "true"},
    "an end of an order that doesn't rest": {"time_in_force": "immediate_or_cancel", "expiration_time": 4_000_000_000},
    "an end in the past": {"expiration_time": 1},
    "a subaccount too many": {"subaccount": 64},
    "a text for a subaccount": {"subaccount": "1"},
    "no ticker": {"ticker": None},
}


@pytest.mark.parametrize("name", BAD)
def test_an_order_that_kalshi_would_refuse_is_refused(boss: Caller, name: str) -> None:
    reply = boss.call("POST", EVENT_ORDERS, order_body(**BAD[name]))
    assert reply.status == 400, reply.body
    assert set(reply.json.get("error", reply.json)) == {"code", "message"}
    assert boss.server.state.orders == {}


@pytest.mark.parametrize(
    "body", [b"[]", b"x", b"", b'{"a":' * 5000, b'{"count": NaN}', b"\xff", b"null", b'{"ticker": 1e999}']
)
@pytest.mark.parametrize(("method", "below"), [("POST", ""), ("POST", "/batched"), ("DELETE", "/batched")])
def test_a_body_that_is_no_order_is_refused(boss: Caller, method: str, below: str, body: bytes) -> None:
    assert boss.call(method, EVENT_ORDERS + below, body).status == 400


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"ticker": "KXUNKNOWN"}, 404),
        ({"ticker": "KXSHARD-1", "exchange_index": 0}, 404),
        ({"order_group_id": "unknown"}, 404),
        ({"count": "900000000"}, 400),
    ],
)
def test_an_order_for_what_is_not_there_is_refused(boss: Caller, changes: dict[str, Any], status: int) -> None:
    assert boss.call("POST", EVENT_ORDERS, order_body(**changes)).status == status


@pytest.mark.parametrize(
    ("method", "below"),
    [
        ("POST", ""),
        ("POST", "/batched"),
        ("DELETE", "/batched"),
        ("DELETE", "/x"),
        ("POST", "/x/amend"),
        ("POST", "/x/decrease"),
    ],
)
def test_the_writes_of_v1_are_gone(boss: Caller, method: str, below: str) -> None:
    reply = boss.call(method, ORDERS + below, {"ticker": "KXTEST-1"})
    assert (reply.status, reply.error["code"]) == (410, "deprecated_v1_order_endpoint")
    assert reply.error["message"] == "Please switch to the V2 endpoints"
    assert send(boss.server, method, ORDERS + below, {}).status == 410  # seen without a key as well


def test_a_client_order_id_is_taken_once(boss: Caller) -> None:
    assert boss.call("POST", EVENT_ORDERS, order_body()).status == 201
    again = boss.call("POST", EVENT_ORDERS, order_body())
    assert (again.status, again.error["code"]) == (409, "order_already_exists")
    place(boss)
    place(boss)
    assert len(boss.server.state.orders) == 3


def test_orders_come_in_pages_in_the_order_of_their_making(boss: Caller) -> None:
    ids = add_orders(boss.server, 5)
    first = boss.call("GET", f"{ORDERS}?limit=2").json
    assert [order["order_id"] for order in first["orders"]] == ids[:2]
    assert {"+", "/", "="} <= set(first["cursor"])
    after = f"{ORDERS}?limit=2&cursor={quote(first['cursor'], safe='')}"
    boss.call("DELETE", f"{EVENT_ORDERS}/{ids[0]}")  # a change to what was seen moves nothing
    second = boss.call("GET", after).json
    assert [order["order_id"] for order in second["orders"]] == ids[2:4]
    last = boss.call("GET", f"{ORDERS}?cursor={quote(second['cursor'], safe='')}").json
    assert ([order["order_id"] for order in last["orders"]], last["cursor"]) == (ids[4:], "")
    resting = boss.call("GET", f"{ORDERS}?limit=4&status=resting&cursor=").json
    assert ([order["order_id"] for order in resting["orders"]], resting["cursor"]) == (ids[1:], "")


def test_a_page_holds_a_hundred_unless_a_limit_is_given(boss: Caller) -> None:
    add_orders(boss.server, 101)
    page = boss.call("GET", ORDERS).json
    assert len(page["orders"]) == 100
    assert page["cursor"]
    whole = boss.call("GET", f"{ORDERS}?limit=1000").json
    assert (len(whole["orders"]), whole["cursor"]) == (101, "")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=", "limit=-1", "limit=1.0", "limit=x"])
def test_a_bad_limit_is_refused(boss: Caller, query: str) -> None:
    assert boss.call("GET", f"{ORDERS}?{query}").status == 400


def test_a_cursor_that_was_never_given_is_refused(boss: Caller) -> None:
    add_orders(boss.server, 2)
    cursor = boss.call("GET", f"{ORDERS}?limit=1").json["cursor"]
    for bad in ("x", "0", cursor, quote(cursor[:-4], safe=""), quote(cursor, safe="") + "A", "MTIzNA%3D%3D", "%C3%A9"):
        reply = boss.call("GET", f"{ORDERS}?cursor={bad}")
        assert (reply.status, set(reply.json)) == (400, {"code", "message"}), bad
    assert boss.call("GET", f"{ORDERS}?cursor={quote(cursor, safe='')}").status == 200


def test_a_group_that_was_triggered_takes_no_order_until_it_is_reset(boss: Caller) -> None:
    groups = f"{PREFIX}/portfolio/order_groups"
    group = boss.call("POST", f"{groups}/create", {"contracts_limit": 5}).json["order_group_id"]
    assert boss.call("PUT", f"{groups}/{group}/trigger", {}).status == 200
    refused = boss.call("POST", EVENT_ORDERS, order_body(order_group_id=group))
    assert (refused.status, refused.error["code"]) == (400, "invalid_order")
    assert boss.call("PUT", f"{groups}/{group}/reset", {}).status == 200
    assert boss.call("POST", EVENT_ORDERS, order_body(order_group_id=group)).status == 201


def test_a_cancel_is_for_the_primary_subaccount_unless_it_names_one(boss: Caller) -> None:
    made = boss.call("POST", EVENT_ORDERS, order_body(subaccount=7)).json["order_id"]
    assert boss.call("DELETE", f"{EVENT_ORDERS}/{made}").status == 404
    assert boss.call("DELETE", f"{EVENT_ORDERS}/{made}?subaccount=7").status == 200


MARGIN_ORDERS = f"{PREFIX}/margin/orders"


def test_an_order_for_a_perpetual_may_name_its_market_by_id_and_version(boss: Caller) -> None:
    perp = PERPS["KXPERPTEST"]
    order = order_body(ticker=None, market_id=perp.market_id, market_version=1)
    made = boss.call("POST", MARGIN_ORDERS, order)
    assert (made.status, set(made.json)) == (201, {"order_id", "client_order_id", "fill_count", "remaining_count"})
    change = {"market_id": perp.market_id, "side": "bid", "price": "0.5500", "count": "2"}
    assert boss.call("POST", f"{MARGIN_ORDERS}/{made.json['order_id']}/amend", change).status == 200
    for wrong, status in (
        ({"market_version": 2}, 409),
        ({"market_id": "unknown"}, 404),
        ({"market_id": None}, 400),
        ({"client_order_id": None}, 400),
        ({"exchange_index": 0}, 400),
    ):
        refused = order_body(**{"ticker": None, **order, "client_order_id": "other", **wrong})
        assert boss.call("POST", MARGIN_ORDERS, refused).status == status, wrong


def test_an_amend_with_an_end_of_0_takes_the_end_away(boss: Caller) -> None:
    made = place(boss, expiration_time=4_000_000_000)
    assert "expiration_time" in shown(boss, made["order_id"])
    for end in ({}, {"expiration_time": 0}):
        change = {"ticker": "KXTEST-1", "side": "bid", "price": "0.45", "count": "3", **end}
        assert boss.call("POST", f"{EVENT_ORDERS}/{made['order_id']}/amend", change).status == 200
        assert ("expiration_time" in shown(boss, made["order_id"])) is not bool(end)
