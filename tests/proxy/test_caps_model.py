"""Whatever happens in between, an account never spends more than its caps: against an exchange that knows the truth.

The exchange below is written from the docs. It keeps what it was really sent, whether or not the proxy has heard of it.
``HSM_KEYS_TEST_EXAMPLES=5000`` tries more than CI does.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hsm_keys.proxy.cap_clock import CapClock
from hsm_keys.proxy.journal import Journal
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.reconciling import Reconciler
from hsm_keys.proxy.reservations import ALL, Reservations
from tests.support.judging import NOON
from tests.support.models import model_settings
from tests.support.orders import ORDERS, order_body

DAY_MS = 86_400_000
MS = 1_000_000  # nanoseconds
POLICY = """version = 1
[clients.maker]
max_dollars_a_day = {}
max_open_dollars = 6
max_contracts_a_market = 12
duplicate_seconds = 5
[clients.taker]
[all]
max_dollars_a_day = {}
max_contracts_a_market = 14
"""
WIDE, NARROW = POLICY.format(10, 14), POLICY.format(5, 7)
CAPS = {"maker": (100_000, 60_000, 1200), ALL: (140_000, None, 1400)}
DUPLICATE_MS = 5_000
LATE_MS = 120_000
CLIENTS = st.sampled_from(["maker", "taker"])
SIDES = st.sampled_from(["bid", "ask"])
COUNTS = st.integers(1, 400)
PRICES = st.integers(1, 99)
PARTS = st.integers(0, 100)
OUTCOMES = st.sampled_from(
    ["answered", "answered", "answered", "late", "refused", "lost", "never arrived", "slow", "unsent"]
)
DONE = {"answered", "late", "lost"}
"""Outcomes after which the exchange has done it."""


@dataclass
class Real:
    """An order as the exchange has it: hundredths of a contract, hundredths of a cent."""

    client: str
    name: str
    side: str
    price: int
    live: int
    filled: int = 0
    rests: bool = True
    reduces: bool = False

    @property
    def cost(self) -> int:
        if self.reduces:
            return 0
        return self.price if self.side == "bid" else 10_000 - self.price

    @property
    def likeness(self) -> tuple[str, int, int, bool]:
        return self.side, self.live, self.cost, self.rests

    @property
    def body(self) -> dict[str, Any]:
        return order_body(
            side=self.side,
            count=text(self.live),
            price=f"0.{self.price // 100:02}",
            client_order_id=self.name,
            time_in_force="good_till_canceled" if self.rests else "immediate_or_cancel",
            reduce_only=self.reduces or None,
        )


class Fill(NamedTuple):
    """A fill: when, of what, for whom, hundredths of a contract, and what it cost in millionths of a dollar."""

    at_ms: int
    order_id: str
    client: str
    side: str
    size: int
    cost: int
    reduces: bool


class Exchange(RuleBasedStateMachine):
    """Orders, answers, late and lost ones, fills, kills, freezes, reloads, and the passing of time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now_ms = int(NOON.timestamp() * 1000)
        self.orders: dict[str, Real] = {}
        self.fills: list[Fill] = []
        self.sent = 0
        self.placed: list[Real] = []
        self.went_out: dict[object, int] = {}
        self.frozen = False
        self.policy = WIDE
        self.under_way: list[tuple[Any, bytes]] = []
        self.on_the_way: list[tuple[int, str, Real]] = []
        self.start()

    def start(self) -> None:
        self.journal = Journal(self.folder)
        reservations = Reservations(self.journal, clock=CapClock(lambda: self.now_ms * MS, lambda: self.now_ms * MS))
        self.judge = Judge(parse_policy(self.policy), frozen=self.frozen, reservations=reservations)
        self.looking = Reconciler(reservations, self.get, self.journal, lambda: True)

    def teardown(self) -> None:
        for hold, _ in self.under_way:
            hold.end(was_sent=True)
        for _ in range(4):
            self.reconcile(1_000)
        for client in CAPS:
            account = self.judge.reservations.account(client)
            live = [order for order in self.orders.values() if order.live and client in {order.client, ALL}]
            assert abs(account.live - sum(order.live * order.cost for order in live) / 100) <= len(self.orders) + 1
        self.journal.close()
        shutil.rmtree(self.folder)

    async def get(self, path: str, query: str) -> tuple[int, bytes]:
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        if path == "/portfolio/fills":
            shown = [{"order_id": one.order_id, "ticker": "KXTEST-1", "count_fp": text(one.size)} for one in self.fills]
            said: dict[str, Any] = {"fills": shown}
        elif path == "/portfolio/orders":
            shown = [self.shown(order_id) for order_id in self.orders]
            said = {"orders": [one for one in shown if asked.get("status") in {None, one["status"]}]}
        else:
            said = {"order": self.shown(path.rpartition("/")[2])}
        return 200, json.dumps(said).encode()

    def shown(self, order_id: str) -> dict[str, Any]:
        order = self.orders[order_id]
        return {
            "order_id": order_id,
            "client_order_id": order.name,
            "ticker": "KXTEST-1",
            "status": "resting" if order.live else "executed",
            "yes_price_dollars": f"0.{order.price:04}",
            "fill_count_fp": text(order.filled),
            "remaining_count_fp": text(order.live),
        }

    def fill(self, order_id: str, part: int) -> None:
        order = self.orders[order_id]
        count = order.live * part // 100
        if count:
            order.live, order.filled = order.live - count, order.filled + count
            cost = count * order.cost
            self.fills.append(Fill(self.now_ms, order_id, order.client, order.side, count, cost, order.reduces))

    def request(self, client: str, method: str, path: str, body: Any) -> Any:
        content = None if body is None else json.dumps(body).encode()
        verdict = self.judge.judge(client, method, path, content, at=NOON, now=0)
        assert not (verdict.allowed and self.frozen)
        return verdict.hold if verdict.allowed else None

    def answer(self, hold: Any, outcome: str, said: dict[str, Any]) -> None:
        if outcome == "late":
            self.under_way.append((hold, json.dumps(said).encode()))
            return
        if outcome == "answered":
            hold.hear(200, "", json.dumps(said).encode())
        if outcome == "refused":
            hold.hear(409, "", b'{"code":"order_already_exists","message":"no"}')
        hold.end(was_sent=outcome != "unsent")

    def place(self, orders: list[Real], outcome: str, parts: list[int], refused: list[bool]) -> None:
        """Send new orders together, by a batch if there are several, of which the exchange refuses some."""
        client = orders[0].client
        path, body = ORDERS, orders[0].body
        if len(orders) > 1:
            path, body = f"{ORDERS}/batched", {"orders": [order.body for order in orders]}
        hold = self.request(client, "POST", path, body)
        if hold is None:
            return
        if client == "maker":
            self.check_duplicates(orders, outcome, refused if len(orders) > 1 else [False])
        said: list[dict[str, Any]] = []
        for order, part, refuse in zip(orders, parts, refused, strict=True):
            order_id = f"o{len(self.orders) + len(said)}{order.name}"
            if refuse and len(orders) > 1:
                said.append({"client_order_id": order.name, "error": {"code": "no"}})
                continue
            if outcome in DONE:
                self.orders[order_id] = order
                self.fill(order_id, part)
            if outcome == "slow":
                self.on_the_way.append((self.now_ms, order_id, order))
            counts = {"fill_count": text(order.filled), "remaining_count": text(order.live)}
            said.append({"order_id": order_id, **counts})
            self.placed.append(order)
        self.answer(hold, outcome, {"orders": said} if len(orders) > 1 else said[0])
        for order in orders:
            order.live = order.live if order.rests else 0

    def check_duplicates(self, orders: list[Real], outcome: str, refused: list[bool]) -> None:
        keys = [key for order in orders for key in (order.name, order.likeness)]
        there = [order for order, refuse in zip(orders, refused, strict=True) if not refuse]
        assert len(keys) == len(set(keys))
        assert all(self.now_ms - self.went_out.get(key, 0) >= DUPLICATE_MS for key in keys)
        if outcome not in {"refused", "unsent"}:
            self.went_out |= {key: self.now_ms for order in there for key in (order.name, order.likeness)}

    def new(self, client: str, side: str, count: int, price: int, *, rests: bool, reduces: bool = False) -> Real:
        self.sent += 1
        return Real(client, f"c{self.sent}", side, price * 100, count, rests=rests, reduces=reduces)

    @rule(client=CLIENTS, side=SIDES, count=COUNTS, price=PRICES, part=PARTS, outcome=OUTCOMES, rests=st.booleans())
    def order(self, *, client: str, side: str, count: int, price: int, part: int, outcome: str, rests: bool) -> None:
        self.place([self.new(client, side, count, price, rests=rests)], outcome, [part], [False])

    @rule(client=CLIENTS, count=COUNTS, price=PRICES, part=PARTS, outcome=OUTCOMES)
    def reduce_only(self, *, client: str, count: int, price: int, part: int, outcome: str) -> None:
        position = sum(fill.size if fill.side == "bid" else -fill.size for fill in self.fills)
        most = max(0, min(count, position)) * 100 // count  # the exchange fills no more than the account holds
        order = self.new(client, "ask", count, price, rests=False, reduces=True)
        self.place([order], outcome, [min(part, most)], [False])

    @rule(data=st.data(), client=CLIENTS, size=st.integers(2, 3), outcome=OUTCOMES)
    def batch(self, *, data: st.DataObject, client: str, size: int, outcome: str) -> None:
        shapes = [(data.draw(SIDES), data.draw(COUNTS), data.draw(PRICES)) for _ in range(size)]
        orders = [self.new(client, *shape, rests=True) for shape in shapes]
        parts = [data.draw(PARTS) for _ in orders]
        self.place(orders, outcome, parts, [data.draw(st.booleans()) for _ in orders])

    @precondition(lambda self: self.placed)
    @rule(data=st.data(), outcome=OUTCOMES, same_name=st.booleans(), is_taken=st.booleans())
    def again(self, *, data: st.DataObject, outcome: str, same_name: bool, is_taken: bool) -> None:
        old = data.draw(st.sampled_from(self.placed))
        known = [order.live for order in self.orders.values() if order.name == old.name]
        if same_name and known and (any(known) or not is_taken):  # whether a name is refused for ever isn't known
            outcome = "refused"
        count = data.draw(st.sampled_from([max(1, old.live), 7]))
        order = self.new(old.client, old.side, count, old.price // 100, rests=old.rests, reduces=False)
        order.name = old.name if same_name else order.name
        self.place([order], outcome, [0], [False])

    @precondition(lambda self: any(order.live for order in self.orders.values()))
    @rule(data=st.data(), client=CLIENTS, count=COUNTS, price=PRICES, part=PARTS, outcome=OUTCOMES)
    def amend(self, *, data: st.DataObject, client: str, count: int, price: int, part: int, outcome: str) -> None:
        order_id = data.draw(st.sampled_from([key for key, order in self.orders.items() if order.live]))
        order = self.orders[order_id]
        asked = order.filled + count
        body = {"ticker": "KXTEST-1", "side": order.side, "count": text(asked), "price": f"0.{price:02}"}
        hold = self.request(client, "POST", f"{ORDERS}/{order_id}/amend", body)
        if hold is None:
            return
        if outcome in DONE:
            order.client, order.price, order.live = client, price * 100, count
            self.fill(order_id, part)
        said = {"order_id": order_id, "fill_count": text(order.filled), "remaining_count": text(order.live)}
        self.answer(hold, outcome, said)

    @precondition(lambda self: any(order.live for order in self.orders.values()))
    @rule(data=st.data(), outcome=OUTCOMES)
    def cancel(self, data: st.DataObject, outcome: str) -> None:
        order_id = data.draw(st.sampled_from([key for key, order in self.orders.items() if order.live]))
        order = self.orders[order_id]
        hold = self.request("maker", "DELETE", f"{ORDERS}/{order_id}", None)
        reduced = order.live
        if outcome in DONE:
            order.live = 0
        if hold is not None:
            self.answer(hold, outcome, {"order_id": order_id, "reduced_by": text(reduced)})

    @precondition(lambda self: any(order.live for order in self.orders.values()))
    @rule(data=st.data(), by=COUNTS, outcome=OUTCOMES, says_by=st.booleans())
    def decrease(self, *, data: st.DataObject, by: int, outcome: str, says_by: bool) -> None:
        order_id = data.draw(st.sampled_from([key for key, order in self.orders.items() if order.live]))
        order = self.orders[order_id]
        hold = self.request("maker", "POST", f"{ORDERS}/{order_id}/decrease", {"reduce_by": text(by)})
        if hold is None:
            return
        reduced = min(by, order.live) if outcome in DONE else 0
        order.live -= reduced
        said = {"order_id": order_id, "remaining_count": text(order.live)}
        self.answer(hold, outcome, said | ({"reduced_by": text(reduced)} if says_by else {}))

    @precondition(lambda self: any(order.live for order in self.orders.values()))
    @rule(data=st.data(), part=PARTS)
    def trade(self, data: st.DataObject, part: int) -> None:
        self.fill(data.draw(st.sampled_from([key for key, order in self.orders.items() if order.live])), part)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), is_lost=st.booleans())
    def late_answer(self, data: st.DataObject, *, is_lost: bool) -> None:
        hold, said = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if not is_lost:
            hold.hear(200, "", said)
        hold.end(was_sent=True)

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """Have an order come that was given up for lost, unless its signature is too old."""
        sent_ms, order_id, order = self.on_the_way.pop(data.draw(st.integers(0, len(self.on_the_way) - 1)))
        if order.live and self.now_ms - sent_ms <= LATE_MS:
            self.orders[order_id] = order

    @rule()
    def freeze_or_thaw(self) -> None:
        self.frozen = self.judge.frozen = not self.frozen

    @rule(policy=st.sampled_from([WIDE, NARROW]))
    def reload(self, policy: str) -> None:
        self.policy = policy
        self.judge.replace(parse_policy(policy))

    @rule()
    def kill(self) -> None:
        self.under_way.clear()
        self.journal.close()
        self.start()

    @rule(seconds=st.sampled_from([1, 59, 121, 3600, 43_000, 86_000]))
    def reconcile(self, seconds: int) -> None:
        self.now_ms += seconds * 1000
        asyncio.run(self.looking.look())

    @invariant()
    def nothing_is_above_a_cap(self) -> None:
        for client, (most_a_day, most_open, most_contracts) in CAPS.items():
            mine = [order for order in self.orders.values() if client in {order.client, ALL}]
            fills = [fill for fill in self.fills if client in {fill.client, ALL}]
            live = sum(order.live * order.cost for order in mine)
            spent = sum(fill.cost for fill in fills if self.now_ms - fill.at_ms < DAY_MS)
            assert live + spent <= most_a_day * 100
            assert most_open is None or live <= most_open * 100
            for side in ("bid", "ask"):
                counted = [fill for fill in fills if not fill.reduces or fill.side != side]  # no cap is against those
                net = sum(fill.size if fill.side == side else -fill.size for fill in counted)
                assert net + sum(order.live for order in mine if order.side == side) <= most_contracts


def text(count: int) -> str:
    return f"{count // 100}.{count % 100:02}"


TestExchange = Exchange.TestCase
TestExchange.settings = model_settings(60, steps=30)
