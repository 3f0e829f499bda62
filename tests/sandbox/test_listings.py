"""What the queries of listings choose from orders, fills, positions, trades and markets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.sandbox import SandboxServer
from tests.sandbox.client import BALANCE, EVENT_ORDERS, ORDERS, PREFIX, Caller
from tests.support.orders import order_body

if TYPE_CHECKING:
    from collections.abc import Iterator

FILLS, POSITIONS, TRADES = f"{PREFIX}/portfolio/fills", f"{PREFIX}/portfolio/positions", f"{PREFIX}/markets/trades"
MARGIN = f"{PREFIX}/margin"
START_S = 1_790_000_000


class Account:
    """An account whose clock the test sets."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.server = SandboxServer(key_type="ed25519", clock_ms=lambda: self.now_s * 1000)
        self.server.start()
        self._caller = Caller.bootstrap(self.server)

    def call(self, method: str, target: str, body: object = None) -> Any:
        reply = self._caller.call(method, target, body, timestamp=self.now_s * 1000)
        assert reply.status < 300, reply.body
        return reply.json if reply.body else None

    def refuses(self, target: str) -> bool:
        return self._caller.call("GET", target, timestamp=self.now_s * 1000).status == 400

    def place(self, orders: str = EVENT_ORDERS, **changes: Any) -> None:
        self.call("POST", orders, order_body(**changes))

    def names(self, target: str) -> list[str]:
        """Return the client's own ids of the orders that a listing has."""
        return [order["client_order_id"] for order in self.call("GET", target)["orders"]]


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    account = Account()
    account.place(client_order_id="first")
    account.place(client_order_id="bought", price="0.6000")
    account.now_s += 10
    account.place(client_order_id="sub", subaccount=3)
    account.place(client_order_id="sub bought", price="0.6000", subaccount=3)
    account.place(client_order_id="weather", ticker="KXHIGHNY-26DEC31-T55", price="0.6000")
    account.now_s += 10
    account.place(client_order_id="shard", ticker="KXSHARD-1")
    account.call("DELETE", f"{EVENT_ORDERS}?subaccount=3")
    for name, price in (("perp", "0.5000"), ("perp bought", "0.6000")):
        account.place(f"{MARGIN}/orders", client_order_id=name, ticker="KXPERPTEST", price=price)
    yield account
    account.server.stop()


@pytest.mark.parametrize(
    ("query", "listed"),
    [
        ("", ["first", "bought", "sub", "sub bought", "weather", "shard"]),
        ("ticker=KXTEST-1", ["first", "bought", "sub", "sub bought"]),
        ("ticker=KXTEST-1,KXSHARD-1&status=resting", ["first", "shard"]),
        ("event_ticker=KXHIGHNY-26DEC31,KXSHARD", ["weather", "shard"]),
        ("status=resting", ["first", "shard"]),
        ("status=canceled", ["sub"]),
        ("status=executed", ["bought", "sub bought", "weather"]),
        ("status=", ["first", "bought", "sub", "sub bought", "weather", "shard"]),
        ("subaccount=3", ["sub", "sub bought"]),
        ("subaccount=0&status=executed", ["bought", "weather"]),
        ("exchange_index=1", ["shard"]),
        (f"min_ts={START_S + 10}", ["sub", "sub bought", "weather", "shard"]),
        (f"max_ts={START_S}", ["first", "bought"]),
        (f"min_ts={START_S + 1}&max_ts={START_S + 19}", ["sub", "sub bought", "weather"]),
    ],
)
def test_orders(account: Account, query: str, listed: list[str]) -> None:
    assert account.names(f"{ORDERS}?{query}") == listed


def test_a_cursor_goes_on_within_what_was_chosen(account: Account) -> None:
    first = account.call("GET", f"{ORDERS}?status=executed&limit=2")
    second = account.call("GET", f"{ORDERS}?status=executed&limit=2&cursor={first['cursor']}".replace("+", "%2B"))
    ids = [order["client_order_id"] for page in (first, second) for order in page["orders"]]
    assert (ids, second["cursor"]) == (["bought", "sub bought", "weather"], "")


@pytest.mark.parametrize(
    "query",
    [
        "status=open",
        "min_ts=x",
        "min_ts=-1",
        "max_ts=1.5",
        "subaccount=64",
        "exchange_index=zero",
        "limit=0",
        "event_ticker=" + ",".join(map(str, range(101))),
    ],
)
def test_what_is_no_choice_is_refused(account: Account, query: str) -> None:
    assert account.refuses(f"{ORDERS}?{query}")


@pytest.mark.parametrize(
    ("query", "count"),
    [("", 3), ("ticker=KXTEST-1", 2), ("subaccount=3", 1), (f"min_ts={START_S + 1}", 2), (f"max_ts={START_S}", 1)],
)
def test_fills_and_trades(account: Account, query: str, count: int) -> None:
    assert len(account.call("GET", f"{FILLS}?{query}")["fills"]) == count
    assert len(account.call("GET", f"{TRADES}?{query}")["trades"]) == count


@pytest.mark.parametrize(
    ("query", "tickers"),
    [
        ("", ["KXTEST-1", "KXHIGHNY-26DEC31-T55"]),  # of the primary subaccount
        ("subaccount=3", ["KXTEST-1"]),
        ("ticker=KXTEST-1", ["KXTEST-1"]),
        ("event_ticker=KXHIGHNY-26DEC31", ["KXHIGHNY-26DEC31-T55"]),
        ("count_filter=position,total_traded", ["KXTEST-1", "KXHIGHNY-26DEC31-T55"]),
        ("settlement_status=all", ["KXTEST-1", "KXHIGHNY-26DEC31-T55"]),
        ("settlement_status=settled", []),
        ("exchange_index=1", []),
        ("limit=1", ["KXTEST-1"]),
    ],
)
def test_positions(account: Account, query: str, tickers: list[str]) -> None:
    answer = account.call("GET", f"{POSITIONS}?{query}")
    assert [held["ticker"] for held in answer["market_positions"]] == tickers
    assert [held["event_ticker"] for held in answer["event_positions"]] == [
        {"KXTEST-1": "KXTEST"}.get(ticker, "KXHIGHNY-26DEC31") for ticker in tickers
    ]
    assert bool(answer["cursor"]) is (query == "limit=1")


@pytest.mark.parametrize("query", ["count_filter=money", "settlement_status=half"])
def test_positions_that_there_can_not_be(account: Account, query: str) -> None:
    assert account.refuses(f"{POSITIONS}?{query}")


def test_a_position_that_was_closed_is_filtered_out() -> None:
    account = Account()
    try:
        account.place(client_order_id="buy", price="0.6000")
        account.place(client_order_id="sell", side="ask", price="0.4000")
        listed = [
            account.call("GET", f"{POSITIONS}?{query}")["market_positions"]
            for query in ("", "count_filter=position", "count_filter=total_traded")
        ]
        assert [len(positions) for positions in listed] == [1, 0, 1]
        assert listed[0][0]["position_fp"] == "0.00"
    finally:
        account.server.stop()


def test_a_balance_is_of_one_subaccount(account: Account) -> None:
    spent = {query: account.call("GET", f"{BALANCE}{query}")["portfolio_value"] for query in ("", "?subaccount=3")}
    assert spent == {"": 360, "?subaccount=3": 180}


def test_perpetuals(account: Account) -> None:
    assert account.names(f"{MARGIN}/orders?status=resting") == ["perp"]
    assert account.names(f"{MARGIN}/orders?max_ts={START_S}") == []
    assert len(account.call("GET", f"{MARGIN}/fills?min_ts={START_S}")["fills"]) == 1
    assert account.call("GET", f"{MARGIN}/fills?max_ts={START_S}")["fills"] == []
    assert account.call("GET", f"{MARGIN}/positions?subaccount=3")["positions"] == []


def test_markets_and_their_books(account: Account) -> None:
    def markets(query: str) -> list[str]:
        return [market["ticker"] for market in account.call("GET", f"{PREFIX}/markets?{query}")["markets"]]

    assert markets("status=open&series_ticker=KXSHARD") == ["KXSHARD-1"]
    assert markets("status=settled") == []
    assert account.refuses(f"{PREFIX}/markets?status=active")
    book = f"{PREFIX}/markets/KXTEST-1/orderbook"
    both, best = (account.call("GET", f"{book}?depth={depth}")["orderbook_fp"]["yes_dollars"] for depth in (0, 1))
    assert ([level[0] for level in both], best) == (["0.4000", "0.5600"], both[-1:])
