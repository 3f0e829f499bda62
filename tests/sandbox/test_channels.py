"""What the channels tell: order books and their changes, orders, fills, positions, tickers, trades, order groups."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.sandbox import SandboxServer
from tests.sandbox.client import EVENT_ORDERS, PREFIX, Caller, ws_port_of
from tests.support.listening import listen
from tests.support.orders import order_body

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOK = {"channels": ["orderbook_delta"], "market_tickers": ["KXTEST-1"]}


@pytest.fixture
def boss() -> Iterator[Caller]:
    with SandboxServer(key_type="ed25519") as server:
        yield Caller.bootstrap(server)


def place(boss: Caller, orders: str = EVENT_ORDERS, **changes: Any) -> str:
    reply = boss.call("POST", orders, order_body(**{"client_order_id": None, **changes}))
    assert reply.status == 201, reply.body
    return str(reply.json["order_id"])


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


def deltas(messages: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (message["msg"]["side"], message["msg"]["price_dollars"], message["msg"]["delta_fp"])
        for message in messages
        if message["type"] == "orderbook_delta"
    ]


def test_an_order_book_comes_whole_and_then_what_changes(boss: Caller) -> None:
    with listen(boss) as listener:
        subscribed, snapshot = listener.ask("subscribe", **BOOK)
        assert (subscribed["type"], snapshot["type"], snapshot["sid"]) == ("subscribed", "orderbook_snapshot", 1)
        assert snapshot["msg"]["yes_dollars_fp"] == [["0.4000", "1000.00"]]
        first = place(boss, price="0.4500", count="2")
        place(boss, side="ask", price="0.6500", count="3")
        place(boss, ticker="KXTEST-2", price="0.4500")  # another market
        place(boss, price="0.5000", time_in_force="immediate_or_cancel")  # is never seen
        place(boss, price="0.6000", count="1000")  # nor is what is filled at once
        place(boss, price="0.6000", count="1500", subaccount=1)  # but for what is left
        change = {"ticker": "KXTEST-1", "side": "bid", "count": "5"}
        for price in ("0.4500", "0.4600"):
            assert boss.call("POST", f"{EVENT_ORDERS}/{first}/amend", change | {"price": price}).status == 200
        boss.call("POST", f"{EVENT_ORDERS}/{first}/decrease", {"reduce_to": "1"})
        boss.call("DELETE", f"{EVENT_ORDERS}/{first}")
        messages = listener.told()
    assert deltas(messages) == [
        ("yes", "0.4500", "2.00"),
        ("no", "0.3500", "3.00"),
        ("yes", "0.6000", "500.00"),
        ("yes", "0.4500", "3.00"),
        ("yes", "0.4600", "5.00"),
        ("yes", "0.4500", "-5.00"),
        ("yes", "0.4600", "-4.00"),
        ("yes", "0.4600", "-1.00"),
    ]
    assert [message["seq"] for message in messages] == list(range(2, 10))


def test_changes_add_up_to_the_order_book_that_is_shown(boss: Caller) -> None:
    with listen(boss) as listener:
        _, snapshot = listener.ask("subscribe", **BOOK)
        ids = [
            place(boss, price=price, count=count) for price, count in (("0.41", "1"), ("0.42", "2.5"), ("0.40", "4"))
        ]
        crossing = {"ticker": "KXTEST-1", "side": "bid", "price": "0.60", "count": "1200"}
        assert boss.call("POST", f"{EVENT_ORDERS}/{ids[0]}/amend", crossing).status == 200
        place(boss, side="ask", price="0.42", count="1", self_trade_prevention_type="maker")
        levels, changes = dict(snapshot["msg"]["yes_dollars_fp"]), deltas(listener.told())
        assert max(float(delta) for _, price, delta in changes if price == "0.6000") == 200  # 1000 were filled at once
        for side, price, delta in changes:
            if side == "yes":
                levels[price] = f"{float(levels.get(price, 0)) + float(delta):.2f}"
    shown = boss.call("GET", f"{PREFIX}/markets/KXTEST-1/orderbook").json["orderbook_fp"]["yes_dollars"]
    assert {price: count for price, count in levels.items() if count != "0.00"} == dict(shown)


def test_an_order_book_can_be_asked_for_again(boss: Caller) -> None:
    with listen(boss) as listener:
        listener.ask("subscribe", **BOOK)
        command = listener.send("update_subscription", sids=[1], action="get_snapshot", market_tickers=["KXTEST-1"])
        (again,) = listener.told()
        assert (again["type"], again["id"], again["sid"], again["seq"]) == ("orderbook_snapshot", command, 1, 2)


def test_markets_are_added_and_taken_away(boss: Caller) -> None:
    with listen(boss) as listener:
        listener.ask("subscribe", **BOOK)
        ok, snapshot = listener.ask("update_subscription", sid=1, action="add_markets", market_ticker="KXTEST-2")
        assert ok["msg"] == {"market_tickers": ["KXTEST-1", "KXTEST-2"]}
        assert (snapshot["msg"]["market_ticker"], "id" in snapshot) == ("KXTEST-2", False)
        both = ["KXTEST-1", "KXTEST-2"]
        assert kinds(listener.ask("update_subscription", sids=[1], action="delete_markets", market_tickers=both)) == [
            "ok"
        ]
        place(boss)
        assert listener.told() == []
        (error,) = listener.ask("update_subscription", sids=[1], action="dance", market_tickers=["KXTEST-1"])
        assert error["msg"] == {"code": 13, "msg": "Unsupported action"}
        (error,) = listener.ask("update_subscription", sids=[1], market_tickers=["KXTEST-1"])
        assert error["msg"] == {"code": 15, "msg": "Action required"}
        (error,) = listener.ask("update_subscription", sids=[1], action="add_markets")
        assert error["msg"] == {"code": 14, "msg": "Market Ticker required"}


def test_a_subscription_to_all_markets_stays_one_or_loses_some(boss: Caller) -> None:
    with listen(boss) as listener:
        listener.ask("subscribe", channels=["user_orders"])
        listener.ask("update_subscription", sids=[1], action="add_markets", market_tickers=["KXTEST-2"])
        place(boss)
        assert kinds(listener.told()) == ["user_order"]
        listener.ask("update_subscription", sids=[1], action="delete_markets", market_tickers=["KXTEST-1"])
        place(boss)
        place(boss, ticker="KXTEST-2", price="0.4000")
        assert [message["msg"]["ticker"] for message in listener.told()] == ["KXTEST-2"]


def test_nothing_is_told_after_an_unsubscribe(boss: Caller) -> None:
    with listen(boss) as listener:
        listener.ask("subscribe", channels=["user_orders", "fill"])
        first, second, third = listener.ask("unsubscribe", sids=[1, 7, 2])
        assert [first["sid"], second["msg"]["code"], third["sid"]] == [1, 7, 2]
        place(boss, price="0.6000")
        assert listener.told() == []


def test_what_happens_to_an_order_is_told(boss: Caller) -> None:
    with listen(boss) as listener:
        listener.ask("subscribe", channels=["user_orders", "fill", "market_positions", "trade"])
        order_id = place(boss, price="0.60", count="2")
        messages = listener.told()
        assert kinds(messages) == ["user_order", "user_order", "fill", "market_position", "trade"]
        order, executed, fill, position, trade = (message["msg"] for message in messages)
        assert (order["order_id"], executed["status"]) == (order_id, "executed")
        assert (fill["order_id"], fill["count_fp"], fill["book_side"]) == (order_id, "2.00", "bid")
        assert (position["position_fp"], position["position_cost_dollars"]) == ("2.00", "1.200000")
        assert trade["trade_id"] == fill["trade_id"]


def test_a_ticker_is_told_when_it_changes(boss: Caller) -> None:
    with listen(boss) as listener:
        listener.ask("subscribe", channels=["ticker"], market_ticker="KXTEST-1")
        place(boss, price="0.3000")  # below the best bid
        assert listener.told() == []
        place(boss, price="0.4100", count="7")
        (better,) = listener.told()
        assert (better["msg"]["yes_bid_dollars"], better["msg"]["yes_bid_size_fp"]) == ("0.4100", "7.00")
        place(boss, price="0.6000", count="4")
        (traded,) = listener.told()
        assert (traded["msg"]["price_dollars"], traded["msg"]["last_trade_size_fp"]) == ("0.6000", "4.00")


GROUPS: list[tuple[str, str, dict[str, str], bool]] = [(f"{PREFIX}/portfolio/order_groups", EVENT_ORDERS, {}, False)]
GROUPS += [(f"{PREFIX}/margin/order_groups", f"{PREFIX}/margin/orders", {"ticker": "KXPERPTEST"}, True)]


@pytest.mark.parametrize(("groups", "orders", "terms", "perps"), GROUPS)
def test_what_happens_to_an_order_group_is_told(
    boss: Caller, groups: str, orders: str, terms: dict[str, str], perps: bool
) -> None:
    with listen(boss, perps=perps) as listener, listen(boss, perps=not perps) as other:
        for each in (listener, other):
            each.ask("subscribe", channels=["order_group_updates"])
        group = boss.call("POST", f"{groups}/create", {"contracts_limit": 2}).json["order_group_id"]
        terms |= {"client_order_id": "1", "order_group_id": group}
        place(boss, orders, **terms, price="0.6000", count="2")
        boss.call("PUT", f"{groups}/{group}/reset")
        boss.call("PUT", f"{groups}/{group}/limit", {"contracts_limit_fp": "7.00"})
        boss.call("DELETE", f"{groups}/{group}")
        told = [(it["msg"]["event_type"], it["msg"].get("contracts_limit_fp")) for it in listener.told()]
        assert told == [
            ("created", "2.00"),
            ("triggered", None),
            ("reset", None),
            ("limit_updated", "7.00"),
            ("deleted", None),
        ]
        assert other.told() == []


def test_perpetuals_are_told_apart(boss: Caller) -> None:
    channels = ["orderbook_delta", "user_orders", "fill", "trade"]
    with listen(boss, perps=True) as listener:
        listener.ask("subscribe", channels=channels, market_ticker="KXPERPTEST")
        place(boss)  # an event's
        assert listener.told() == []
        place(boss, f"{PREFIX}/margin/orders", ticker="KXPERPTEST", client_order_id="1", side="ask", price="0.5555")
        order, delta = (message["msg"] for message in listener.told())
        assert (order["side"], order["price"]) == ("ask", "0.5555")
        assert (delta["side"], delta["price"], delta["delta"]) == ("ask", "0.5555", "3.00")
        (error,) = listener.ask("subscribe", channels=["market_positions"])
        assert error["msg"]["code"] == 8


def test_a_restricted_key_hears_of_its_own_subaccount(boss: Caller) -> None:
    channels = ["user_orders", "fill", "market_positions", "order_group_updates", "trade", "orderbook_delta"]
    restricted = Caller.added(boss.server, subaccount=3)
    groups = f"{PREFIX}/portfolio/order_groups/create"
    with listen(restricted) as listener:
        listener.ask("subscribe", channels=channels, market_ticker="KXTEST-1")
        place(boss, price="0.6000")
        place(boss, price="0.4500")
        boss.call("POST", groups, {"contracts_limit": 5})
        trade, delta = listener.told()
        assert (trade["type"], delta["type"]) == ("trade", "orderbook_delta")
        assert "client_order_id" not in delta["msg"]
        place(restricted, price="0.4500")
        restricted.call("POST", groups, {"contracts_limit": 5})
        order, delta, group = listener.told()
        assert (order["msg"]["subaccount_number"], delta["msg"]["subaccount"]) == (3, 3)
        assert group["type"] == "order_group_updates"


def test_a_ping_comes_as_often_as_it_should() -> None:
    with SandboxServer(key_type="ed25519", ping_every_s=0.05) as server:
        caller = Caller.bootstrap(server)
        path = "/trade-api/ws/v2"
        head = "".join(f"{name}: {value}\r\n" for name, value in caller.headers("GET", path).items())
        head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        head += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        with socket.create_connection(("127.0.0.1", ws_port_of(server)), timeout=20) as wire:
            wire.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
            seen = b""
            while seen.count(b"\x89\x09heartbeat") < 2:  # RFC 6455: a ping of nine bytes
                seen += wire.recv(65_536)
