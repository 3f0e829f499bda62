"""The dead man's switch: what a client placed is cancelled once nothing was heard of it, and nothing else is."""

from __future__ import annotations

import asyncio
import http.client
import json
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from hsm_keys.proxy import silence
from hsm_keys.proxy.exchanges import EVENTS
from hsm_keys.proxy.journal import Journal
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.reservations import Reservations, State
from hsm_keys.proxy.silence import SilenceWatch
from hsm_keys.sandbox import parse_fault
from tests.support.cli import run_cli, run_json
from tests.support.judging import NOON, V2
from tests.support.orders import ORDERS, add_orders, order_body

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsm_keys.proxy.asking import OwnRequests
    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.sandbox import RecordedRequest, SandboxServer
    from tests.support.running_proxy import RunningProxy

    Start = Callable[..., RunningProxy]

AFTER = "cancel_after_silence_seconds = 1"
POLICY = f"[clients.maker]\n{AFTER}\n[clients.other]\n"
TOKENS = {"maker": "m" * 40, "other": "o" * 40}
JSON = {"Content-Type": "application/json"}
PERPS = f"{V2}/margin/orders"


def resting(sandbox: SandboxServer) -> set[str]:
    books = (sandbox.state.book, sandbox.state.margin)
    return {key for book in books for key, order in list(book.orders.items()) if order.status == "resting"}


def cancels(sandbox: SandboxServer) -> list[RecordedRequest]:
    return [seen for seen in sandbox.requests if seen.method == "DELETE"]


def place(proxy: RunningProxy, name: str, path: str = ORDERS, **changes: Any) -> str:
    body = order_body(client_order_id=name, price="0.0100", **changes)
    status, said = proxy.request("POST", path, json.dumps(body), JSON)
    assert status == 201, said
    return str(said["order_id"])


def as_client(proxy: RunningProxy, client: str, body: dict[str, Any]) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    with closing(connection):
        headers = {**JSON, "Authorization": f"Bearer {TOKENS[client]}"}
        connection.request("POST", ORDERS, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.mark.program
def test_the_orders_of_a_silent_client_are_cancelled_and_no_other_ones(start: Start, sandbox: SandboxServer) -> None:
    foreign = set(add_orders(sandbox, 2))
    proxy = start(f"[clients.default]\n{AFTER}")
    mine = {place(proxy, "one"), place(proxy, "two", subaccount=3), place(proxy, "three", PERPS, ticker="KXPERPTEST")}
    assert resting(sandbox) == foreign | mine
    proxy.wait_for_words("orders of the silent client default are over")
    assert resting(sandbox) == foreign
    assert {seen.path.rpartition("/")[2] for seen in cancels(sandbox)} == mine
    told = next(line for line in proxy.lines() if line["kind"] == "silence")
    assert told["client"] == "default"
    ends = [line for line in proxy.lines() if line["kind"] == "silence_cancel"]
    assert {(line["order_id"], line["status"]) for line in ends} == {(order_id, 200) for order_id in mine}


@pytest.mark.program
def test_it_fires_for_whom_it_is_set_also_while_frozen_and_after_a_restart(
    start: Start, sandbox: SandboxServer, tmp_path: Path
) -> None:
    clients = tmp_path / "clients"
    clients.mkdir()
    for name, token in TOKENS.items():
        (clients / name).touch(mode=0o600)
        (clients / name).write_text(token)
    sandbox.faults.add(parse_fault("POST /portfolio/events/orders:drop-after:1"))
    proxy = start(POLICY.replace("1\n", "60\n", 1), listen="127.0.0.1:0", clients=clients)
    lost = order_body(client_order_id="lost", price="0.0100")
    assert as_client(proxy, "maker", lost)[0] == 502
    assert as_client(proxy, "maker", order_body(client_order_id="m", price="0.0100"))[0] == 201
    others = as_client(proxy, "other", order_body(client_order_id="o", price="0.0100"))[1]["order_id"]
    assert len(resting(sandbox)) == 3
    proxy.process.kill()
    proxy.process.wait(20)
    (tmp_path / "state" / "hsm-keys" / "prod" / "frozen").write_text("frozen\n")
    proxy = start(POLICY, listen="127.0.0.1:0", clients=clients)
    assert as_client(proxy, "other", order_body(client_order_id="x"))[1]["error"]["code"] == "frozen"
    proxy.wait_for_words("orders of the silent client maker are over")
    assert resting(sandbox) == {others}


@pytest.mark.program
def test_status_and_metrics_tell(start: Start, sandbox: SandboxServer) -> None:
    sandbox.faults.add(parse_fault("DELETE /portfolio/events/orders/{order_id}:status=503"))
    proxy = start(f"[clients.default]\n{AFTER}")
    place(proxy, "one")
    proxy.wait_for_words("its 1 orders are being cancelled")
    said = run_json("proxy", "status", "--name", "prod", **proxy.environment)["silence"]["default"]
    assert (said["after_s"], said["orders"], said["to_cancel"], said["fired"]) == (1, 1, 1, 1)
    metrics = run_cli("proxy", "status", "--name", "prod", **proxy.environment).stdout
    assert "to_cancel: 1" in metrics
    assert len(resting(sandbox)) == 1  # what Kalshi refuses isn't called cancelled
    sandbox.faults.clear()
    proxy.wait_for_words("orders of the silent client default are over")
    assert resting(sandbox) == set()


class Kalshi:
    """In place of Kalshi's side: it answers what a test wants, and what rests is looked at by nobody."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any] | Exception]] = {}
        self.sent: list[tuple[str, bool]] = []

    async def send(self, method: str, path: str, query: str = "", *, stops_orders: bool = False) -> tuple[int, bytes]:
        self.sent.append((f"{method} {path}?{query}", stops_orders))
        answer = self.answers[path.rpartition("/")[2]].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer[0], json.dumps(answer[1]).encode()


class World:
    """A judge with a ledger, a watch with a clock of its own, and what was written down."""

    def __init__(self, policy: str, journal: Journal | None = None) -> None:
        self.now = 100.0
        self.doubts = 0
        self.kalshi = Kalshi()
        self.lines: list[dict[str, Any]] = []
        self.judge = Judge(parse_policy(f"version = 1\n{policy}"), reservations=Reservations(journal))
        self.judge.reservations.on_doubt = self._doubt
        own, trail = cast("OwnRequests", self.kalshi), SimpleNamespace(append=self._append)
        self.watch = SilenceWatch(self.judge, own, cast("AuditTrail", trail), Metrics(), clock=lambda: self.now)

    def _doubt(self) -> None:
        self.doubts += 1

    def _append(self, kind: str, **members: Any) -> int:
        self.lines.append({"kind": kind, **members})
        return 1

    def place(self, client: str, name: str, order_id: str = "", path: str = ORDERS, **changes: Any) -> None:
        body = json.dumps(order_body(client_order_id=name, count="3.00", **changes)).encode()
        verdict = self.judge.judge(client, "POST", path, body, at=NOON, now=0)
        assert verdict.allowed, verdict
        if verdict.hold is None:
            return
        if order_id:
            said = {"order_id": order_id, "fill_count": "0.00", "remaining_count": "3.00"}
            verdict.hold.hear(201, "", json.dumps(said).encode())
        verdict.hold.end(was_sent=True)

    def run(self, *, seconds: float) -> float:
        """Look after so many seconds, wait until what was begun is over, and return how long it waits now."""

        async def run() -> float:
            self.now += seconds
            wait = self.watch.look()
            await asyncio.gather(*self.watch._tasks)
            return wait

        return asyncio.run(run())


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "_AGAIN_S", 0.0)


REDUCED = (200, {"reduced_by": "3.00"})


def test_a_sign_of_life_puts_it_off() -> None:
    world = World("[clients.maker]\ncancel_after_silence_seconds = 10")
    world.place("maker", "c1", "o1")
    assert world.run(seconds=9.75) == pytest.approx(0.25)
    world.watch.hear("maker")
    assert world.run(seconds=9.75) == pytest.approx(0.25)
    assert world.kalshi.sent == []
    world.kalshi.answers["o1"] = [REDUCED]
    world.run(seconds=0.25)
    assert [line["kind"] for line in world.lines] == ["silence", "silence_cancel"]
    assert not world.judge.reservations.orders
    assert world.watch.status()["maker"]["fired"] == 1


def test_only_what_may_rest_and_only_of_those_who_are_watched() -> None:
    world = World("[clients.maker]\ncancel_after_silence_seconds = 10\n[clients.other]\nmax_open_dollars = 100")
    world.place("maker", "c1", "o1", time_in_force="immediate_or_cancel")
    world.place("other", "c2", "o2")
    world.place("maker", "c3", "o3", subaccount=7)
    world.place("maker", "c4", "o4", f"{V2}/margin/orders", ticker="KXPERPTEST")
    world.kalshi.answers = {"o3": [REDUCED], "o4": [REDUCED]}
    world.run(seconds=10)
    assert sorted(world.kalshi.sent) == [
        ("DELETE /margin/orders/o4?", True),
        (f"DELETE {EVENTS.writes}/o3?market_ticker=KXTEST-1&subaccount=7", True),
    ]
    assert [order.order_id for order in world.judge.reservations.orders.values()] == ["o2"]


def test_what_kalshi_does_not_say_is_tried_again(no_pause: None) -> None:
    world = World("[clients.maker]\ncancel_after_silence_seconds = 10")
    world.place("maker", "c1", "o1")
    unclear: list[Any] = [
        TimeoutError(),
        (500, {}),
        (404, {"code": "not_found"}),
        (200, {}),
        (200, {"reduced_by": 3}),
        (429, {}),
    ]
    world.kalshi.answers["o1"] = [*unclear, (200, {"reduced_by": "2.00"})]
    world.run(seconds=10)
    statuses = [line["status"] for line in world.lines if line["kind"] == "silence_cancel"]
    assert statuses == [None, 500, 404, 200, 200, 429, 200]
    assert world.doubts >= len(unclear)  # each time what became of it is looked up
    account = world.judge.reservations.account("maker")
    assert (account.live, account.day.total) == (0, 5600)  # one contract of three was filled before


def test_an_order_of_which_the_id_is_not_known_is_looked_up_first(no_pause: None) -> None:
    world = World("[clients.maker]\ncancel_after_silence_seconds = 10")
    world.place("maker", "c1")
    held = world.judge.reservations
    [order] = held.orders.values()
    held.on_doubt = lambda: held.settle([State(order.number, 0, 300, "o1")])
    world.kalshi.answers["o1"] = [REDUCED]
    world.run(seconds=10)
    assert [sent.partition("?")[0] for sent, _ in world.kalshi.sent] == [f"DELETE {EVENTS.writes}/o1"]
    assert not held.orders


def test_orders_are_looked_up_while_frozen_if_some_are_to_be_cancelled(no_pause: None) -> None:
    world = World("[clients.maker]\ncancel_after_silence_seconds = 10")
    world.place("maker", "c1", "o1")
    world.kalshi.answers = {"orders": [(200, {})] * 2, "o1": [REDUCED]}

    async def run() -> None:
        await world.watch.get("/portfolio/orders", "")
        world.now += 10
        world.watch.look()
        await world.watch.get("/portfolio/orders", "")

    asyncio.run(run())
    assert [even_frozen for sent, even_frozen in world.kalshi.sent if sent.startswith("GET")] == [False, True]


def test_an_order_that_is_placed_after_it_fired_stays() -> None:
    world = World("[clients.maker]\ncancel_after_silence_seconds = 10")
    world.place("maker", "c1", "o1")
    world.kalshi.answers["o1"] = [REDUCED]
    world.run(seconds=10)
    world.watch.hear("maker")
    world.place("maker", "c2", "o2")
    world.run(seconds=9)
    assert [order.order_id for order in world.judge.reservations.orders.values()] == ["o2"]


def test_a_policy_without_it_ends_it(no_pause: None) -> None:
    world = World("[clients.maker]\ncancel_after_silence_seconds = 10")
    world.place("maker", "c1", "o1")
    send = world.kalshi.send

    async def reloaded(*arguments: Any, **named: Any) -> tuple[int, bytes]:
        world.judge.replace(parse_policy("version = 1\n[clients.maker]"))
        return await send(*arguments, **named)

    world.kalshi.send = reloaded  # type: ignore[method-assign]
    world.kalshi.answers["o1"] = [(503, {})]
    world.run(seconds=10)
    assert len(world.kalshi.sent) == 1
    assert world.run(seconds=100) == 1
    assert world.watch.status() == {}


def test_a_restart_begins_anew_and_knows_the_orders(tmp_path: Path) -> None:
    policy = "[clients.maker]\ncancel_after_silence_seconds = 10"
    for number in range(2):
        journal = Journal(tmp_path)
        world = World(policy, journal)
        if not number:
            world.place("maker", "c1", "o1", f"{V2}/margin/orders", ticker="KXPERPTEST", subaccount=7)
        assert world.run(seconds=9.5) == pytest.approx(0.5)
        world.kalshi.answers["o1"] = [REDUCED]
        if number:
            world.run(seconds=0.5)
        journal.close()
    assert world.kalshi.sent == [("DELETE /margin/orders/o1?subaccount=7", True)]


@pytest.mark.parametrize("rules", ["", "max_dollars_a_day = 100", 'allow_unjudged = ["POST /portfolio/events/orders"]'])
def test_an_order_is_held_whatever_else_holds_for_it(rules: str) -> None:
    world = World(f"[clients.maker]\ncancel_after_silence_seconds = 10\n{rules}")
    world.place("maker", "c1", "o1")
    assert [order.order_id for order in world.judge.reservations.orders.values()] == ["o1"]
    body = json.dumps(order_body(client_order_id=None)).encode()
    assert world.judge.judge("maker", "POST", ORDERS, body, at=NOON, now=0).rule == "client_order_id"


def test_perpetual_futures_count_in_no_cap() -> None:
    world = World(
        "[clients.maker]\ncancel_after_silence_seconds = 10\nmax_contracts_a_market = 1\n"
        'allow_unjudged = ["POST /margin/orders"]'
    )
    world.place("maker", "c1", "o1", f"{V2}/margin/orders", ticker="KXPERPTEST")
    assert len(world.judge.reservations.orders) == 1
    assert not world.judge.reservations.account("maker").markets


def test_an_amendment_takes_the_place_of_its_order() -> None:
    world = World("[clients.maker]\ncancel_after_silence_seconds = 10")
    world.place("maker", "c1", "o1", subaccount=7)
    amendment = {"ticker": "KXTEST-1", "side": "bid", "count": "5.00", "price": "0.5000"}
    for order_id in ("o1", "unknown"):
        verdict = world.judge.judge(
            "maker", "POST", f"{ORDERS}/{order_id}/amend", json.dumps(amendment).encode(), at=NOON, now=0
        )
        assert verdict.allowed  # one that the proxy doesn't know isn't held
        if verdict.hold is not None:
            verdict.hold.hear(200, "", b'{"order_id": "o1", "fill_count": "0.00", "remaining_count": "5.00"}')
            verdict.hold.end(was_sent=True)
    world.kalshi.answers["o1"] = [(200, {"reduced_by": "5.00"})]
    world.run(seconds=10)
    assert [sent for sent, _ in world.kalshi.sent] == [f"DELETE {EVENTS.writes}/o1?market_ticker=KXTEST-1&subaccount=7"]
    assert not world.judge.reservations.orders
