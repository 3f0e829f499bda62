"""What a trader would lose if an answer, an amendment or a denial were taken for another one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.proxy.reservations import ALL
from tests.support.capped_trader import Trader, answered, refused
from tests.support.judging import NOON, V2

if TYPE_CHECKING:
    from hsm_keys.proxy.judge import Verdict
    from hsm_keys.proxy.reservations import ReservedOrder

AGAIN = "went out already; again in 7 s"
NEVER = "; time alone gives back too little: orders hold the rest"
LATER = "; what is cancelled or filled makes room"


def held(trader: Trader) -> list[ReservedOrder]:
    return list(trader.judge.reservations.orders.values())


def reason(verdict: Verdict) -> tuple[str, str]:
    return verdict.rule, verdict.message.removeprefix(f"{verdict.rule}: ")


def test_a_request_is_under_way_until_it_is_over() -> None:
    """Else the look at Kalshi's lists would give back what is on its way there."""
    trader = Trader("[clients.default]\nmax_open_dollars = 50")
    verdict = trader.send(trader.order("1"), trader.order("2"))
    assert [order.is_under_way for order in held(trader)] == [True, True]
    assert verdict.hold is not None
    verdict.hold.end(was_sent=True)
    assert [order.is_under_way for order in held(trader)] == [False, False]


def test_an_order_is_amended_again_once_the_amendment_is_answered() -> None:
    """Which of two amendments came last can't be told, so that the cheaper one may be what is believed."""
    trader = Trader("[clients.default]\nmax_open_dollars = 500")
    for name in ("o1", "o2"):
        answered(trader.send(trader.order("10")), filled="0", remaining="10", order_id=name)
    first = trader.amend("20")
    again = trader.amend("5")
    assert reason(again) == ("amend", "an earlier amendment of that order isn't known to be over")
    assert trader.amend("11", order_id="o2").allowed, "another order's is no reason"
    answered(first, filled="0", remaining="20", status=200)
    assert trader.amend("5").allowed


@pytest.mark.parametrize("other", [{"ticker": "KXTEST-2"}, {"side": "ask"}])
def test_an_amendment_names_the_market_and_the_side_of_its_order(other: dict[str, str]) -> None:
    trader = Trader("[clients.default]\nmax_open_dollars = 500")
    answered(trader.send(trader.order("10")), filled="0", remaining="10")
    assert reason(trader.amend("10", **other)) == ("amend", "the order is of another market or side")


def test_an_ask_is_amended_at_what_it_may_cost() -> None:
    trader = Trader("[clients.default]\nmax_open_dollars = 500")
    answered(trader.send(trader.order("10", side="ask")), filled="0", remaining="10")
    answered(trader.amend("10", "0.2000", side="ask"), filled="0", remaining="10", status=200)
    assert trader.judge.reservations.account("default").open == 10 * 8000


@pytest.mark.parametrize("said", ["[]", '{"order_id":"o1"}', '{"order_id":"o1","remaining_count":"21"}'])
def test_an_amendment_of_which_too_little_is_said_is_held_beside_its_order(said: str) -> None:
    trader = Trader("[clients.default]\nmax_open_dollars = 500")
    answered(trader.send(trader.order("10")), filled="0", remaining="10")
    refused(trader.amend("20"), 200, said)
    assert trader.judge.reservations.account("default").open == 30 * 5000


@pytest.mark.parametrize(("cap", "is_allowed"), [("22", True), ("21.99", False)])
def test_what_an_amendment_may_fill_counts_in_its_market(cap: str, *, is_allowed: bool) -> None:
    trader = Trader(f'[clients.default]\nmax_contracts_a_market = "{cap}"')
    answered(trader.send(trader.order("10")), filled="0", remaining="10")
    assert trader.amend("12").allowed is is_allowed


def test_an_amendment_is_no_order_that_went_out_already() -> None:
    trader = Trader("[clients.default]\nduplicate_seconds = 600\n[all]\nduplicate_seconds = 600")
    answered(trader.send(trader.order("10")), filled="0", remaining="10")
    for _ in range(2):
        refused(trader.amend("10"))
    assert trader.send(trader.order("11")).allowed


def test_an_amendment_to_a_lower_price_keeps_what_was_spent_at_the_higher_one() -> None:
    """Four were filled at 50 cents by the time that six were left at 40; a cancel ends them."""
    trader = Trader("[clients.default]\nmax_dollars_a_day = 50")
    answered(trader.send(trader.order("10")), filled="1", remaining="9")
    answered(trader.amend("10", "0.4000"), filled="3", remaining="6", status=200)
    account = trader.judge.reservations.account("default")
    assert (account.day.total, account.live) == (4 * 5000, 6 * 4000)
    [order] = held(trader)
    assert (order.order_id, order.base, order.filled, order.live) == ("o1", 400, 0, 600)
    trader.cancel("/o1/decrease", {"order_id": "o1", "reduced_by": "2"}, method="POST", reduce_by="2")
    assert (order.order_id, order.base, order.live) == ("o1", 400, 400), "Kalshi counts from the first fill on"
    trader.cancel("/o1", {"order_id": "o1", "reduced_by": "4"})
    assert (account.day.total, account.live) == (4 * 5000, 0)


def test_an_amendment_that_filled_nothing_spends_nothing() -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 50")
    answered(trader.send(trader.order("10")), filled="2", remaining="8")
    answered(trader.amend("12", "0.6000"), filled="0", remaining="10", status=200)
    account = trader.judge.reservations.account("default")
    assert (account.day.total, account.live) == (2 * 5000, 10 * 6000)
    [order] = held(trader)
    assert (order.base, order.filled) == (200, 0)


def test_what_a_batch_of_cancels_did_not_take_away_was_filled() -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 50")
    for name in ("o1", "o2"):
        answered(trader.send(trader.order("6")), filled="0", remaining="6", order_id=name)
    said = {"orders": [{"order_id": "o1", "reduced_by": "2"}, {"order_id": "o2", "reduced_by": "6"}]}
    trader.cancel("/batched", said, "o1", "o2")
    account = trader.judge.reservations.account("default")
    assert (account.day.total, account.live, held(trader)) == (4 * 5000, 0, [])


@pytest.mark.parametrize(
    ("said", "spent", "live"),
    [
        ([{"fill_count": "2", "remaining_count": "8", "order_id": "o1"}, {"error": {"code": "x"}}], 2, 8),
        ([{"error": {"code": "x"}}, {"fill_count": "0", "remaining_count": "5", "order_id": "o2"}], 0, 5),
        ([{"fill_count": "2", "remaining_count": "8", "order_id": "o1"}], 0, 15),
        ([{"error": {"code": "order_already_exists"}}, {"error": {"code": "x"}}], 0, 10),
        ([{"error": "it exists already"}, {"error": "no"}], 0, 10),
        ([{"error": {"code": "x"}, "order_id": "o1"}, {"error": {"code": "x"}}], 0, 10),
        ({}, 0, 15),
        (None, 0, 15),
        ("no list", 0, 15),
    ],
)
def test_each_order_of_a_batch_has_its_own_answer(said: Any, spent: int, live: int) -> None:
    trader = Trader("[clients.default]\nmax_dollars_a_day = 50")
    verdict = trader.send(trader.order("10"), trader.order("5"))
    assert verdict.hold is not None
    verdict.hold.hear(201, "", json.dumps([said] if said is None else {"orders": said}).encode())
    verdict.hold.end(was_sent=True)
    account = trader.judge.reservations.account("default")
    assert (account.day.total, account.live) == (spent * 5000, live * 5000)


@pytest.mark.parametrize(("path", "method"), [("/o1", "DELETE"), ("/batched", "DELETE"), ("/o1/decrease", "POST")])
def test_a_cancel_is_looked_up_if_its_answer_does_not_say_all(path: str, method: str) -> None:
    """A decrease says what it took away, and not what was filled meanwhile."""
    trader = Trader("[clients.default]\nmax_dollars_a_day = 50")
    answered(trader.send(trader.order("6")), filled="0", remaining="6")
    doubts: list[str] = []
    trader.judge.reservations.on_doubt = lambda: doubts.append("!")
    ids, body = (["o1"], {}) if path == "/batched" else ([], {"reduce_by": "1"} if method == "POST" else {})
    trader.cancel(path, {"order_id": "o1", "reduced_by": "1"}, *ids, method=method, **body)
    assert bool(doubts) is (method == "POST")
    answered(trader.send(trader.order("6")), filled="0", remaining="6")
    verdict = trader.judge.judge("default", "DELETE", f"{V2}/portfolio/events/orders/o1", None, at=NOON, now=0)
    assert verdict.hold is not None
    verdict.hold.hear(200, "", b"no JSON")
    doubts.clear()
    verdict.hold.end(was_sent=True)
    assert doubts


def test_whether_anything_has_to_be_looked_up() -> None:
    """One order of a batch is enough; what Kalshi has said clearly isn't asked for again."""
    trader = Trader("[clients.default]\nmax_dollars_a_day = 50")
    doubts: list[str] = []
    trader.judge.reservations.on_doubt = lambda: doubts.append("!")
    answered(trader.send(trader.order("1")), filled="0", remaining="1", order_id="o0")
    assert not doubts
    said = [{}, {"fill_count": "0", "remaining_count": "5", "order_id": "o2"}]
    refused(trader.send(trader.order("10"), trader.order("5")), 201, json.dumps({"orders": said}))
    assert doubts
    doubts.clear()
    cancel = trader.judge.judge("default", "DELETE", f"{V2}/portfolio/events/orders/o2", None, at=NOON, now=0)
    assert cancel.hold is not None
    cancel.hold.end(was_sent=True)
    assert doubts, "its answer never came"


def test_an_order_that_is_over_is_cancelled_once_more_without_harm() -> None:
    trader = Trader("[clients.default]\nmax_open_dollars = 50")
    for name in ("o1", "o2"):
        answered(trader.send(trader.order("10")), filled="0", remaining="10", order_id=name)
    for _ in range(2):
        trader.cancel("/o1", {"order_id": "o1", "reduced_by": "10"})
    assert trader.judge.reservations.account("default").open == 10 * 5000


@pytest.mark.parametrize(
    ("rules", "order", "why"),
    [
        ("max_order_dollars = 5", {"count": "11"}, "an order may cost $5.5000; $5.0000 is allowed to the client"),
        (
            "max_dollars_a_day = 50",
            {"count": "100"},
            "$45.0000 of $50.0000 is left to the client, and $50.0000 is asked for; there is room in 86460 seconds",
        ),
        (
            "max_dollars_a_day = 50",
            {"count": "101"},
            f"$45.0000 of $50.0000 is left to the client, and $50.5000 is asked for{NEVER}",
        ),
        (
            "max_open_dollars = 20",
            {"count": "41"},
            f"$20.0000 of $20.0000 is left to the client for orders that rest, and $20.5000 is asked for{LATER}",
        ),
        (
            "max_contracts_a_market = 20",
            {"count": "10.01"},
            "10 contracts more may be bought by the client in this market, and 10.01 are asked for; the cap is 20 net",
        ),
        (
            "max_contracts_a_market = 20",
            {"count": "31", "side": "ask"},
            "30 contracts more may be sold by the client in this market, and 31 are asked for; the cap is 20 net",
        ),
        (
            "duplicate_seconds = 7",
            {"client_order_id": "c1", "count": "2"},
            "that client_order_id went out already; again in 7 s",
        ),
        ("duplicate_seconds = 7", {}, f"that order {AGAIN}"),
    ],
)
def test_what_a_denial_says(rules: str, order: dict[str, Any], why: str) -> None:
    """Ten contracts were bought at half a dollar before."""
    trader = Trader(f"[clients.default]\n{rules}")
    answered(trader.send(trader.order("10")), filled="10", remaining="0")
    denied = trader.send(trader.order(**{"count": "10", **order}))
    assert reason(denied) == (rules.partition(" ")[0], why)


def test_what_a_denial_says_of_a_name_and_of_all_clients() -> None:
    trader = Trader("[clients.default]\n[all]\nmax_order_dollars = 5")
    order = trader.order("10")
    assert trader.send(order).allowed
    named = ("client_order_id", "an order of that client_order_id may still fill: use a new one")
    assert reason(trader.send(order)) == named
    why = "an order may cost $5.5000; $5.0000 is allowed to all clients"
    assert reason(trader.send(trader.order("11"))) == ("max_order_dollars", why)


def test_what_was_held_before_makes_no_room_when_it_is_sold() -> None:
    """The account holds what no cap counts; a bot that sells it may not buy it back beyond its cap."""
    policy = "[clients.maker]\nmax_contracts_a_market = 10\n[clients.taker]\n[all]\nmax_contracts_a_market = 12"
    trader = Trader(policy)
    sale: dict[str, Any] = {"side": "ask", "time_in_force": "immediate_or_cancel", "reduce_only": True}
    answered(trader.send(trader.order("4"), client="maker"), filled="4", remaining="0")
    for sold in ("3", "20"):
        answered(trader.send(trader.order("20", **sale), client="maker"), filled=sold, remaining="0")
    assert reason(trader.send(trader.order("10.01"), client="maker"))[0] == "max_contracts_a_market"
    answered(trader.send(trader.order("10"), client="maker"), filled="10", remaining="0")
    answered(trader.send(trader.order("20", **sale), client="taker"), filled="6", remaining="0")
    nets = [trader.judge.reservations.account(name).markets["KXTEST-1"].net for name in ("maker", "taker", ALL)]
    assert nets == [1000, 0, 400]
    assert trader.send(trader.order("20", side="ask"), client="maker").rule == "max_contracts_a_market"
    assert trader.send(trader.order("16", side="ask"), client="maker").allowed


def test_no_two_orders_of_a_batch_have_one_name() -> None:
    """Both would be looked up by it, and the larger one be taken for both: what ends that one would end both."""
    trader = Trader("[clients.default]\nmax_open_dollars = 500")
    denied = trader.send(trader.order("1", client_order_id="c"), trader.order("2", client_order_id="c"))
    assert reason(denied) == ("client_order_id", "two orders of the batch have one client_order_id")
    assert trader.send(trader.order("1", client_order_id="c"), trader.order("2")).allowed
    taken = trader.send(trader.order("3"), trader.order("1", client_order_id="c"))
    assert reason(taken)[1].startswith("an order of that client_order_id may still fill")


def test_where_a_cap_was_lowered_nothing_is_left_of_it() -> None:
    trader = Trader("[clients.default]\nmax_open_dollars = 50\nmax_dollars_a_day = 50\nmax_contracts_a_market = 50")
    answered(trader.send(trader.order("20")), filled="0", remaining="20")
    for cap, left in (
        ("max_open_dollars", "$0.0000 of $5.0000"),
        ("max_dollars_a_day", "$0.0000 of $5.0000"),
        ("max_contracts_a_market", "0 contracts more"),
    ):
        trader.follow(f"[clients.default]\n{cap} = 5")
        assert reason(trader.send(trader.order("1")))[1].startswith(left)


def test_an_order_of_two_clients_went_out_for_each_of_them() -> None:
    """The second one's doesn't end the time in which the first one's may not go out again."""
    trader = Trader("[clients.maker]\nduplicate_seconds = 60\n[clients.taker]\nduplicate_seconds = 60")
    answered(trader.send(trader.order("1"), client="maker"), filled="1", remaining="0")
    answered(trader.after(10).send(trader.order("1"), client="taker"), filled="1", remaining="0")
    for client, seconds in (("maker", 49), ("taker", 59)):
        denied = trader.after(11).send(trader.order("1"), client=client)
        assert (denied.rule, denied.retry_after) == ("duplicate_seconds", seconds)


def test_a_batch_that_holds_an_order_twice_says_after_which_time_it_goes_out_again() -> None:
    for rules, seconds in (
        ("[clients.default]\nduplicate_seconds = 5", 5),
        ("[clients.default]\n[all]\nduplicate_seconds = 6", 6),
        ("[clients.default]\nduplicate_seconds = 5\n[all]\nduplicate_seconds = 6", 6),
    ):
        trader = Trader(rules)
        denied = trader.send(trader.order(), trader.order())
        assert denied.retry_after == seconds
        assert reason(denied)[1] == f"that order went out already; again in {seconds} s"
