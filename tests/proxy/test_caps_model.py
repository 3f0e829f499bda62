"""Whatever happens in between, an account never spends more than its caps: against an exchange that knows the truth.

The exchange below is written from the docs. It keeps what it was really sent, whether or not the proxy has heard of it.
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

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hsm_keys.proxy.journal import Journal
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.reconciling import Reconciler
from hsm_keys.proxy.reservations import ALL, Reservations
from tests.support.judging import NOON
from tests.support.orders import ORDERS, order_body

DAY_MS = 86_400_000
POLICY = """version = 1
[clients.maker]
max_dollars_a_day = 10
max_open_dollars = 6
max_contracts_a_market = 12
[clients.taker]
[all]
max_dollars_a_day = 14
max_contracts_a_market = 14
"""
CAPS = {"maker": (100_000, 60_000, 1200), ALL: (140_000, None, 1400)}
CLIENTS = st.sampled_from(["maker", "taker"])
COUNTS = st.integers(1, 400)
PRICES = st.integers(1, 99)
PARTS = st.integers(0, 100)
OUTCOMES = st.sampled_from(["answered", "answered", "answered", "refused", "lost", "never arrived", "unsent"])


@dataclass
class Real:
    """An order as the exchange has it: hundredths of a contract, hundredths of a cent."""

    client: str
    name: str
    side: str
    price: int
    live: int
    filled: int = 0

    @property
    def cost(self) -> int:
        return self.price if self.side == "bid" else 10_000 - self.price


class Fill(NamedTuple):
    """A fill: when, of what, for whom, hundredths of a contract, and what it cost in millionths of a dollar."""

    at_ms: int
    order_id: str
    client: str
    side: str
    size: int
    cost: int


class Exchange(RuleBasedStateMachine):
    """Orders, answers, lost answers, fills, kills, and the passing of time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now_ms = int(NOON.timestamp() * 1000)
        self.orders: dict[str, Real] = {}
        self.fills: list[Fill] = []
        self.sent = 0
        self.start()

    def start(self) -> None:
        self.journal = Journal(self.folder)
        reservations = Reservations(self.journal, clock=lambda: self.now_ms)
        self.judge = Judge(parse_policy(POLICY), reservations=reservations)
        self.looking = Reconciler(reservations, self.get, self.journal, lambda: True)

    def teardown(self) -> None:
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
            self.fills.append(Fill(self.now_ms, order_id, order.client, order.side, count, count * order.cost))

    def request(self, client: str, method: str, path: str, body: Any) -> Any:
        content = None if body is None else json.dumps(body).encode()
        verdict = self.judge.judge(client, method, path, content, at=NOON, now=0)
        return verdict.hold if verdict.allowed else None

    def answer(self, hold: Any, outcome: str, said: dict[str, Any]) -> None:
        if outcome == "answered":
            hold.hear(200, "", json.dumps(said).encode())
        if outcome == "refused":
            hold.hear(409, "", b'{"code":"order_already_exists","message":"no"}')
        hold.end(was_sent=outcome != "unsent")

    @rule(
        client=CLIENTS,
        side=st.sampled_from(["bid", "ask"]),
        count=COUNTS,
        price=PRICES,
        part=PARTS,
        outcome=OUTCOMES,
        rests=st.booleans(),
    )
    def order(self, *, client: str, side: str, count: int, price: int, part: int, outcome: str, rests: bool) -> None:
        self.sent += 1
        name = f"c{self.sent}"
        body = order_body(
            side=side,
            count=text(count),
            price=f"0.{price:02}",
            client_order_id=name,
            time_in_force="good_till_canceled" if rests else "immediate_or_cancel",
        )
        hold = self.request(client, "POST", ORDERS, body)
        if hold is None:
            return
        order = Real(client, name, side, price * 100, count)
        if outcome in {"answered", "lost"}:
            self.orders[f"o{self.sent}"] = order
            self.fill(f"o{self.sent}", part)
        said = {"order_id": f"o{self.sent}", "fill_count": text(order.filled), "remaining_count": text(order.live)}
        self.answer(hold, outcome, said)
        if not rests:
            order.live = 0

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
        if outcome in {"answered", "lost"}:
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
        if outcome in {"answered", "lost"}:
            order.live = 0
        if hold is not None:
            self.answer(hold, outcome, {"order_id": order_id, "reduced_by": text(reduced)})

    @precondition(lambda self: any(order.live for order in self.orders.values()))
    @rule(data=st.data(), part=PARTS)
    def trade(self, data: st.DataObject, part: int) -> None:
        self.fill(data.draw(st.sampled_from([key for key, order in self.orders.items() if order.live])), part)

    @rule()
    def kill(self) -> None:
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
                net = sum(fill.size if fill.side == side else -fill.size for fill in fills)
                assert net + sum(order.live for order in mine if order.side == side) <= most_contracts


def text(count: int) -> str:
    return f"{count // 100}.{count % 100:02}"


TestExchange = Exchange.TestCase
TestExchange.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
