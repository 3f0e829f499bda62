"""Each cap on money at its edge."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from typing import Any

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.proxy.policy import parse_policy
from tests.support.capped_trader import Trader, answered, refused
from tests.support.judging import NOON, V2
from tests.support.orders import ORDERS

CAPS = (
    "max_order_dollars",
    "max_dollars_a_day",
    "max_open_dollars",
    "max_contracts_a_market",
    "duplicate_seconds",
)


@pytest.mark.parametrize(("spaces", "gives_back"), [(1, True), (33 << 20, False)])
def test_an_answer_that_grows_beyond_any_of_kalshis_gives_nothing_back(*, spaces: int, gives_back: bool) -> None:
    """A refusal is one, in whatever coding; one whose end nobody reads may be anything."""
    trader = Trader("[clients.default]\nmax_open_dollars = 1\n")
    order = trader.send(trader.order(price="0.9000"))
    assert order.hold is not None
    said = zlib.compress(b'{"error":{"code":"invalid_order","message":"no"}}' + b" " * spaces)
    tracemalloc.start()
    try:
        order.hold.hear(400, "deflate", said)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    order.hold.end(was_sent=True)
    assert peak < 80 << 20
    assert trader.send(trader.order(price="0.9000")).allowed is gives_back


@pytest.mark.parametrize("scope", ["[clients.default]\n", "[clients.default]\n[all]\n"])
@pytest.mark.parametrize(
    ("cap", "fits", "is_over"),
    [
        # 3 contracts at 16.67 cents cost 50.01 cents
        ('max_order_dollars = "0.5001"', {"count": "3", "price": "0.1667"}, {"count": "3.01", "price": "0.1667"}),
        ('max_order_dollars = "0.0051"', {"count": "0.01", "price": "0.5001"}, {"count": "0.02", "price": "0.5001"}),
        (
            "max_order_dollars = 1",
            {"side": "ask", "price": "0.0001"},
            {"side": "ask", "count": "1.01", "price": "0.0099"},
        ),
        ('max_dollars_a_day = "5"', {"count": "10"}, {"count": "10.01"}),
        ('max_open_dollars = "5"', {"count": "10"}, {"count": "10.01"}),
        ('max_contracts_a_market = "2.50"', {"count": "2.50"}, {"count": "2.51"}),
        ('max_contracts_a_market = "2.50"', {"count": "2.50", "side": "ask"}, {"count": "2.51", "side": "ask"}),
    ],
)
def test_an_order_at_the_edge_of_a_cap(cap: str, fits: dict[str, Any], is_over: dict[str, Any], scope: str) -> None:
    trader = Trader(scope + cap)
    denied = trader.send(trader.order(**is_over))
    assert (denied.allowed, denied.rule, denied.status) == (False, cap.partition(" ")[0], 403)
    assert trader.send(trader.order(**fits)).allowed, "a denial takes nothing"


@pytest.mark.parametrize("cap", ["max_dollars_a_day = 5", "max_open_dollars = 5", "max_contracts_a_market = 10"])
def test_orders_add_up(cap: str) -> None:
    trader = Trader("[clients.default]\n" + cap)
    assert trader.send(trader.order("9.99")).allowed
    assert not trader.send(trader.order("0.02")).allowed
    assert trader.send(trader.order("0.01")).allowed
    assert trader.send(trader.order("0.01")).rule == cap.partition(" ")[0]


@pytest.mark.parametrize("cap", ["max_dollars_a_day = 5", "max_open_dollars = 5", "max_contracts_a_market = 10"])
def test_all_clients_share_what_is_for_all(cap: str) -> None:
    trader = Trader(f"[clients.maker]\n[clients.taker]\n[all]\n{cap}")
    assert trader.send(trader.order("6"), client="maker").allowed
    denied = trader.send(trader.order("5"), client="taker")
    assert "all clients" in denied.message
    assert trader.send(trader.order("4"), client="taker").allowed


@pytest.mark.parametrize("cap", ["max_dollars_a_day = 5", "max_open_dollars = 5", "max_contracts_a_market = 10"])
def test_a_batch_is_all_or_nothing(cap: str) -> None:
    trader = Trader("[clients.default]\n" + cap)
    assert not trader.send(trader.order("5"), trader.order("5.01")).allowed
    assert trader.send(trader.order("5"), trader.order("5")).allowed


@pytest.mark.parametrize(
    "said",
    [
        '{"error":{"code":"invalid_order","message":"no"}}',
        '{"code":"invalid_parameters","message":"no"}',
        '{"msg":"no"}',
        '{"error":"too many requests"}',
    ],
)
def test_what_kalshi_refused_is_given_back(said: str) -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 5\nduplicate_seconds = 2")
    order = trader.order("10")
    refused(trader.send(order), 429, said)
    assert trader.send(order).allowed, "it may even be sent again"


@pytest.mark.parametrize(
    "said", ['{"error":{"code":"order_already_exists","message":"no"}}', '{"code":"x","message":"Duplicate order"}']
)
def test_an_order_of_which_kalshi_says_that_it_is_there_already_is_looked_up(said: str) -> None:
    """A server before the exchange may have sent it twice: then it is this one that is there."""
    trader = Trader("[clients.default]\nmax_dollars_a_day = 5")
    refused(trader.send(trader.order("10")), 409, said)
    assert trader.send(trader.order("0.01")).rule == "max_dollars_a_day"
    assert [order.is_under_way for order in trader.judge.reservations.orders.values()] == [False]


@pytest.mark.parametrize("status", [400, 409])
def test_any_other_conflict_is_a_refusal(status: int) -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 5")
    code = "order_already_exists" if status != 409 else "fill_or_kill_insufficient_resting_volume"
    refused(trader.send(trader.order("10")), status, json.dumps({"error": {"code": code, "message": "no"}}))
    assert trader.send(trader.order("10")).allowed


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (500, '{"error":{"code":"internal","message":"no"}}'),
        (403, "<html>Request blocked</html>"),
        (403, '{"message":"Forbidden"}'),
        (408, '{"code":"timeout","message":"no"}'),
        (302, ""),
        (201, ""),
        (201, "[]"),
        (201, '{"order_id":"o1"}'),
        (201, '{"order_id":"o1","fill_count":"6","remaining_count":"5"}'),
        (201, '{"order_id":"o1","fill_count":1,"remaining_count":2}'),
        (201, '{"order_id":"o1","client_order_id":"another","fill_count":"0","remaining_count":"0"}'),
        (201, '{"fill_count":"0","remaining_count":"0"}'),
        (201, '{"order_id":"o1","fill_count":"0"}'),
        (201, '{"order_id":"o1","remaining_count":"0"}'),
        (201, '{"order_id":5,"fill_count":"0","remaining_count":"0"}'),
        (201, '{"order_id":"","fill_count":"0","remaining_count":"0"}'),
    ],
)
def test_what_kalshi_did_not_say_is_kept(status: int, said: str) -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 5")
    doubts: list[str] = []
    trader.judge.reservations.on_doubt = lambda: doubts.append("!")
    refused(trader.send(trader.order("10")), status, said)
    assert trader.send(trader.order("0.01")).rule == "max_dollars_a_day"
    assert doubts


def test_what_was_never_sent_is_given_back() -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 5\nduplicate_seconds = 2")
    order = trader.order("10")
    verdict = trader.send(order)
    assert verdict.hold is not None
    verdict.hold.end(was_sent=False)
    assert trader.send(order).allowed


def test_what_an_immediate_order_left_unfilled_is_given_back() -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 5\nmax_open_dollars = 1\nmax_contracts_a_market = 10")
    verdict = trader.send(trader.order("10", time_in_force="immediate_or_cancel"))
    answered(verdict, filled="4", remaining="6")
    assert not trader.send(trader.order("6.01", time_in_force="fill_or_kill")).allowed
    assert trader.send(trader.order("6", time_in_force="fill_or_kill")).allowed


def test_what_was_filled_no_longer_rests() -> None:
    trader = Trader("[clients.default]\nmax_open_dollars = 5")
    answered(trader.send(trader.order("10")), filled="4", remaining="6")
    assert not trader.send(trader.order("4.01")).allowed
    assert trader.send(trader.order("4")).allowed


@pytest.mark.parametrize(
    ("method", "path", "body", "said", "room", "rests"),
    [
        ("DELETE", f"{ORDERS}/o1", None, {"order_id": "o1", "reduced_by": "6"}, "6", 0),
        ("DELETE", f"{ORDERS}/o1", None, {"order_id": "o1", "reduced_by": "2"}, "2", 0),
        ("DELETE", f"{ORDERS}/o1", None, {"order_id": "o1"}, "0", 6),
        ("DELETE", f"{ORDERS}/another", None, {"order_id": "another", "reduced_by": "6"}, "0", 6),
        ("POST", f"{ORDERS}/o1/decrease", {"reduce_by": "3"}, {"order_id": "o1", "reduced_by": "3"}, "3", 3),
        ("POST", f"{ORDERS}/o1/decrease", {"reduce_by": "3"}, {"order_id": "o1", "remaining_count": "3"}, "0", 6),
        (
            "DELETE",
            f"{ORDERS}/batched",
            {"orders": [{"order_id": "o1"}, {"order_id": "o2"}]},
            {
                "orders": [
                    {"order_id": "o1", "reduced_by": "6"},
                    {"order_id": "o2", "reduced_by": "0", "error": {"code": "x"}},
                ]
            },
            "6",
            0,
        ),
        (
            "DELETE",
            f"{ORDERS}/batched",
            {"orders": [{"order_id": "o1"}]},
            {"orders": [{"order_id": "o1", "reduced_by": "6", "error": {"code": "x"}}]},
            "0",
            6,
        ),
        ("DELETE", f"{ORDERS}/batched", {"orders": [{"order_id": "o1"}]}, ["no object"], "0", 6),
        ("DELETE", ORDERS, None, None, "0", 6),
    ],
)
def test_what_is_taken_away_is_given_back(
    method: str, path: str, body: Any, said: Any, room: str, *, rests: int
) -> None:
    """What wasn't taken away by a cancel was filled meanwhile; what a decrease leaves rests on."""
    trader = Trader("[clients.default]\nmax_dollars_a_day = 5")
    answered(trader.send(trader.order("10")), filled="4", remaining="6")
    content = json.dumps(body).encode() if body else None
    verdict = trader.judge.judge("default", method, V2 + path.removeprefix(V2), content, at=NOON, now=0)
    assert verdict.hold is not None
    verdict.hold.hear(200, "", json.dumps(said).encode())
    verdict.hold.end(was_sent=True)
    assert trader.judge.reservations.account("default").open == rests * 5000
    assert not trader.send(trader.order(f"{float(room) + 0.01:.2f}")).allowed
    assert room == "0" or trader.send(trader.order(room)).allowed


@pytest.mark.parametrize(
    ("amendment", "is_allowed"),
    [
        ({"count": "4", "price": "0.6000"}, True),
        ({"count": "4.01", "price": "0.6000"}, False),
        ({"count": "4", "price": "0.6000", "side": "ask"}, False),
        ({"count": "4", "price": "0.6000", "ticker": "KXTEST-2"}, False),
    ],
)
def test_an_amendment_is_held_in_addition(amendment: dict[str, Any], is_allowed: bool) -> None:
    trader = Trader('[clients.default]\nmax_open_dollars = "7.40"')
    answered(trader.send(trader.order("10")), filled="0", remaining="10")
    body = {"ticker": "KXTEST-1", "side": "bid"} | amendment
    assert trader.send(body, path=f"{ORDERS}/o1/amend").allowed is is_allowed


def test_an_amendment_takes_the_place_of_its_order() -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 20\nmax_open_dollars = 20\nmax_contracts_a_market = 40")
    answered(trader.send(trader.order("10")), filled="2", remaining="8")
    body = {"ticker": "KXTEST-1", "side": "bid", "count": "12", "price": "0.6000"}
    answered(trader.send(body, path=f"{ORDERS}/o1/amend"), filled="5", remaining="7", status=200)
    account = trader.judge.reservations.account("default")
    assert (account.day.total, account.live, account.open) == (10_000 + 3 * 6_000, 7 * 6_000, 7 * 6_000)
    market = account.markets["KXTEST-1"]
    assert (market.net, market.bids) == (500, 700)
    verdict = trader.judge.judge("default", "DELETE", f"{ORDERS}/o1", None, at=NOON, now=0)
    assert verdict.hold is not None
    verdict.hold.hear(200, "", b'{"order_id":"o1","reduced_by":"7"}')
    assert (account.live, account.open) == (0, 0)


def test_an_order_that_the_caps_do_not_know_is_not_amended() -> None:
    trader = Trader("[clients.default]\nmax_open_dollars = 5")
    body = {"ticker": "KXTEST-1", "side": "bid", "count": "1", "price": "0.6000"}
    assert trader.send(body, path=f"{ORDERS}/o1/amend").rule == "amend"


def test_what_was_spent_comes_back_after_a_day_and_says_when() -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 5")
    answered(trader.send(trader.order("10")), filled="10", remaining="0")
    denied = trader.after(3600).send(trader.order("1"))
    assert (denied.status, denied.retry_after) == (429, 23 * 3600 + 60)
    assert trader.after(24 * 3600 + 59).send(trader.order("1")).retry_after == 1
    assert trader.after(24 * 3600 + 60).send(trader.order("1")).allowed


def test_time_alone_does_not_give_back_what_rests() -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 5")
    answered(trader.send(trader.order("10")), filled="0", remaining="10")
    denied = trader.after(48 * 3600).send(trader.order("1"))
    assert (denied.status, denied.retry_after) == (403, 0)


@pytest.mark.parametrize("scope", ["[clients.default]\n", "[clients.default]\n[all]\n"])
@pytest.mark.parametrize(
    "again",
    [{"client_order_id": "c1", "count": "2", "time_in_force": "fill_or_kill"}, {"client_order_id": "another"}],
)
def test_the_same_order_goes_out_again_after_some_seconds(again: dict[str, Any], scope: str) -> None:
    trader = Trader(scope + "duplicate_seconds = 2")
    answered(trader.send(trader.order()), filled="1", remaining="0")
    denied = trader.after(1.999).send(trader.order(**again))
    assert (denied.rule, denied.status, denied.retry_after) == ("duplicate_seconds", 429, 1)
    assert trader.after(2).send(trader.order(**again)).allowed


def test_an_order_went_out_also_if_nothing_of_it_was_filled() -> None:
    trader = Trader("[clients.default]\nduplicate_seconds = 2")
    order = trader.order(time_in_force="immediate_or_cancel")
    answered(trader.send(order), filled="0", remaining="0")
    assert trader.send(order).rule == "duplicate_seconds"


def test_a_batch_holds_no_order_twice() -> None:
    trader = Trader("[clients.default]\nduplicate_seconds = 2")
    assert trader.send(trader.order(), trader.order()).rule == "duplicate_seconds"
    assert trader.send(trader.order(), trader.order("2")).allowed


def test_an_order_that_may_still_fill_keeps_its_name() -> None:
    trader = Trader("[clients.default]\nmax_order_dollars = 100")
    order = trader.order()
    assert trader.send(order).allowed
    assert trader.send(order).rule == "client_order_id"


def test_an_order_that_only_reduces_costs_nothing() -> None:
    trader = Trader('[clients.default]\nmax_order_dollars = "0.01"\nmax_contracts_a_market = 1')
    assert trader.send(trader.order("50", side="ask", reduce_only=True, time_in_force="immediate_or_cancel")).allowed


def test_a_ticker_in_other_letters_is_no_other_market() -> None:
    trader = Trader("[clients.default]\nmax_contracts_a_market = 2")
    first = trader.send(trader.order("1"))
    assert trader.send(trader.order("1", ticker=trader.order()["ticker"].lower())).allowed
    assert trader.send(trader.order("1", ticker=trader.order()["ticker"].title())).rule == "max_contracts_a_market"
    refused(first)
    assert trader.send(trader.order("1", ticker=trader.order()["ticker"].title())).allowed


@pytest.mark.parametrize("cap", CAPS)
def test_under_any_cap_an_order_has_a_name_and_a_known_cost(cap: str) -> None:
    trader = Trader(f"[clients.default]\n{cap} = 100")
    assert trader.send(trader.order(client_order_id=None)).rule == "client_order_id"
    assert trader.send(trader.order(), path=f"{V2}/margin/orders").rule == "caps"
    assert not trader.send({"x": 1}, path=f"{V2}/communications/quotes").allowed


@pytest.mark.parametrize("value", ["0", '"0"', '"-1"', "1.5", '"1.00001"', '"1e3"', "true", '""', '" 1"', "-1"])
@pytest.mark.parametrize("cap", ["max_order_dollars", "max_dollars_a_day", "max_open_dollars"])
def test_dollars_are_whole_or_decimal_strings(cap: str, value: str) -> None:
    with pytest.raises(UsageError, match=rf'{cap}.*a whole number, or a string such as "50.25", and more than nothing'):
        parse_policy(f"version = 1\n[clients.default]\n[all]\n{cap} = {value}")
