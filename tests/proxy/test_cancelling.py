"""The kill switch that flattens: signing ends, everything that rests is cancelled, and what comes late as well."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest

from hsm_keys.proxy import cancelling
from hsm_keys.proxy.cancelling import Cancelling
from hsm_keys.proxy.judge import Judge
from hsm_keys.sandbox import parse_fault
from tests.support.cli import run_cli
from tests.support.orders import order_body
from tests.support.running_proxy import RunningProxy, with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.signing import ProxySigner
    from hsm_keys.proxy.upstream import Sign, Upstream
    from hsm_keys.sandbox import SandboxServer

ORDERS = "/trade-api/v2/portfolio/events/orders"
RESTING = "/trade-api/v2/portfolio/orders?status=resting"
HELD = {"KALSHI-ACCESS-KEY": "held"}


@pytest.fixture
def proxy(sandbox: SandboxServer, tmp_path: Path) -> Iterator[RunningProxy]:
    with with_key_in_memory(tmp_path) as running:
        yield running


def rest(proxy: RunningProxy, number: int) -> None:
    body = order_body(client_order_id=f"order-{number}", price="0.0100")
    status, answer = proxy.request("POST", ORDERS, json.dumps(body), {"Content-Type": "application/json"})
    assert (status, answer["remaining_count"] != "0.00") == (201, True)


def resting(proxy: RunningProxy) -> int:
    return len(proxy.request("GET", RESTING)[1]["orders"])


def command(proxy: RunningProxy, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = run_cli("proxy", *arguments, "--name", "prod", "--output", "json", **proxy.environment)
    return done.returncode, json.loads(done.stdout or done.stderr)


def test_freeze_and_cancel_all(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    for number in range(3):
        rest(proxy, number)
    assert resting(proxy) == 3
    status, told = command(proxy, "freeze", "--cancel-all")
    assert (status, told) == (0, {"frozen": True, "cancelled": {"status": 204, "problem": "", "resting": 0}})
    assert proxy.request("GET", RESTING)[0] == 403
    cancels = [seen for seen in sandbox.requests if seen.method == "DELETE"]
    assert [(seen.path, seen.status) for seen in cancels] == [(ORDERS, 204)]
    proxy.stop()
    assert [line["resting"] for line in proxy.lines() if line["kind"] == "cancel_all"] == [0]


def test_cancel_all_lets_the_clients_go_on(proxy: RunningProxy) -> None:
    rest(proxy, 1)
    status, told = command(proxy, "cancel-all")
    assert (status, told["frozen"], told["cancelled"]["resting"]) == (0, False, 0)
    rest(proxy, 2)
    assert resting(proxy) == 1


def test_what_kalshi_refuses_isnt_called_cancelled(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    rest(proxy, 1)
    sandbox.faults.add(parse_fault("DELETE /portfolio/events/orders:status=503"))
    status, told = command(proxy, "freeze", "--cancel-all")
    assert (status, told["error"]["code"]) == (7, "not_cancelled")
    assert "status 503" in told["error"]["message"]
    assert "frozen" in told["error"]["message"]
    assert proxy.request("GET", RESTING)[0] == 403


@pytest.mark.parametrize("fault", ["status=503", "truncate"])
def test_what_rests_unknown_isnt_called_cancelled(proxy: RunningProxy, sandbox: SandboxServer, fault: str) -> None:
    sandbox.faults.add(parse_fault(f"GET /portfolio/orders:{fault}"))
    status, told = command(proxy, "cancel-all")
    assert (status, told["error"]["code"]) == (7, "not_cancelled")
    assert "list of what rests can't be had" in told["error"]["message"]


class Kalshi:
    """In place of Kalshi's side: orders that rest, and what was sent."""

    def __init__(self) -> None:
        self.resting = 0
        self.sent: list[tuple[str, dict[str, str]]] = []
        self.cancelled = asyncio.Event()
        self.urgent: list[bool] = []
        self.breaks = 0

    async def own(self, method: str, target: str, sign: Sign, *, urgent: bool = False) -> tuple[int, bytes]:
        self.sent.append((method, dict(await sign())))
        self.urgent.append(urgent)
        if self.breaks:
            self.breaks -= 1
            raise aiohttp.ServerDisconnectedError
        if method == "GET":
            return 200, json.dumps({"orders": [{}] * self.resting}).encode()
        self.resting = 0
        self.cancelled.set()
        assert target == ORDERS
        return 204, b""

    @property
    def cancels(self) -> list[dict[str, str]]:
        return [headers for method, headers in self.sent if method == "DELETE"]


class Token:
    """In place of what signs: it hangs until the test lets it go, but for what is in hand."""

    key = SimpleNamespace(environment="demo")

    def __init__(self, held: dict[str, str] | None) -> None:
        self.held = held
        self.goes_on = threading.Event()
        self.keeps: list[tuple[str, str]] = []
        self.quiet = asyncio.Event()

    def keep(self, method: str, path: str) -> None:
        self.keeps.append((method, path))

    def keep_none(self) -> None:
        self.quiet.set()

    def kept(self, method: str, _path: str) -> dict[str, str] | None:
        return self.held if method == "DELETE" else None

    def sign_frozen(self, _method: str, _path: str) -> dict[str, str]:
        assert self.goes_on.wait(30)
        return {}

    async def in_thread(self, call: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(call, *arguments)


def made(kalshi: Kalshi, token: Token, judge: Judge) -> Cancelling:
    trail = cast("AuditTrail", SimpleNamespace(append=lambda *_, **__: 1))
    return Cancelling(cast("Upstream", kalshi), cast("ProxySigner", token), judge, trail)


def test_a_token_that_hangs_delays_nothing() -> None:
    async def run() -> None:
        kalshi, token = Kalshi(), Token(HELD)
        asked = asyncio.create_task(made(kalshi, token, Judge()).cancel_all())
        await kalshi.cancelled.wait()
        assert kalshi.cancels == [HELD]  # while the token hangs
        token.goes_on.set()
        assert (await asked)["status"] == 204

    asyncio.run(run())


@pytest.mark.parametrize(
    ("breaks", "status", "said"), [(1, 204, "Kalshi cancelled all"), (2, None, "it isn't confirmed that all")]
)
def test_a_connection_that_breaks_costs_no_further_signature(
    breaks: int, status: int | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        kalshi, token = Kalshi(), Token(HELD)
        token.goes_on.set()
        kalshi.breaks = breaks
        switch = made(kalshi, token, Judge())
        assert (await switch.cancel_all())["status"] == status
        assert (kalshi.cancels, kalshi.urgent[:2]) == ([HELD, HELD], [True, False])

    asyncio.run(run())
    assert [record.message.split(" orders")[0] for record in caplog.records] == [said]


@pytest.mark.parametrize(
    ("listed", "frozen", "resting", "is_doubted"),
    [
        (b'{"orders": []}', True, 0, False),
        (b'{"orders": [{}, {}]}', True, 2, True),
        (b'{"orders": [{}, {}]}', False, 2, False),  # clients go on, and place new ones
        (b'{"orders": [], "cursor": "further"}', True, None, True),
        (b'{"orders": {}}', False, None, True),
        (b'{"orders": "none"}', False, None, True),
        (b"{}", False, None, True),
        (b"[]", False, None, True),
        (b"<html>Sign in to the network</html>", False, None, True),
    ],
)
def test_it_is_done_when_kalshis_list_says_so(
    listed: bytes, frozen: bool, resting: int | None, is_doubted: bool
) -> None:
    class Listing(Kalshi):
        async def own(self, method: str, target: str, sign: Sign, *, urgent: bool = False) -> tuple[int, bytes]:
            answer = await super().own(method, target, sign, urgent=urgent)
            return (200, listed) if method == "GET" else answer

    async def run() -> dict[str, Any]:
        token = Token(HELD)
        token.goes_on.set()
        switch = made(Listing(), token, Judge(frozen=frozen))
        report = await switch.cancel_all()
        await switch.close()
        return report

    report = asyncio.run(run())
    assert (report["status"], report["resting"], bool(report["problem"])) == (204, resting, is_doubted)


def test_what_comes_late_is_cancelled_too_while_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_LOOK_EVERY_S", 0.0)

    async def run() -> None:
        kalshi, token, judge = Kalshi(), Token(HELD), Judge(frozen=True)
        token.goes_on.set()
        switch = made(kalshi, token, judge)
        assert (await switch.cancel_all())["resting"] == 0
        kalshi.cancelled.clear()
        kalshi.resting = 1  # it was under way
        await kalshi.cancelled.wait()
        judge.frozen = False
        kalshi.resting = 1  # somebody thawed: this one is meant
        await asyncio.sleep(0.05)
        assert len(kalshi.cancels) == 2
        await switch.close()

    asyncio.run(run())


def test_each_freeze_is_followed_for_its_own_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second freeze, while the first one is followed, may have late orders for a minute of its own."""
    monkeypatch.setattr(cancelling, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(cancelling, "_LATE_S", 0.3)

    async def run() -> None:
        kalshi, token, judge = Kalshi(), Token(HELD), Judge(frozen=True)
        token.goes_on.set()
        switch = made(kalshi, token, judge)
        await switch.cancel_all()
        await asyncio.sleep(0.02)
        monkeypatch.setattr(cancelling, "_LATE_S", 30.0)
        await switch.cancel_all()
        await asyncio.sleep(0.4)  # the first one's is over
        kalshi.cancelled.clear()
        kalshi.resting = 1
        async with asyncio.timeout(5):
            await kalshi.cancelled.wait()
        await switch.close()

    asyncio.run(run())


def test_headers_are_kept_while_orders_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_QUIET_S", 0.05)

    async def run() -> None:
        token = Token(None)
        switch = made(Kalshi(), token, Judge())
        for _ in range(3):
            await asyncio.sleep(0.03)
            switch.order_sent()
            last = time.monotonic()
            assert token.keeps == [("DELETE", ORDERS)]
        async with asyncio.timeout(20):
            await token.quiet.wait()
        assert time.monotonic() - last >= 0.05
        switch.order_sent()
        assert token.keeps == 2 * [("DELETE", ORDERS)]
        await switch.close()

    asyncio.run(run())


def test_perpetual_futures_have_a_route_of_their_own() -> None:
    async def run() -> None:
        token = Token(None)
        token.key = SimpleNamespace(environment="prod-perps")
        switch = made(Kalshi(), token, Judge())
        switch.order_sent()
        assert token.keeps == [("DELETE", "/trade-api/v2/margin/orders")]
        await switch.close()

    asyncio.run(run())
