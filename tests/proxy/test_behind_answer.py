"""What is done for an order once its answer has gone out to the client, and before anybody's next request is read."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from hsm_keys.proxy.access import Caller
from hsm_keys.proxy.handler import Handler
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.reservations import Reservations
from hsm_keys.proxy.running import RunningRequests
from hsm_keys.proxy.serving import ClientServer
from hsm_keys.proxy.signing import ProxySigner, RequestSigning
from hsm_keys.proxy.upstream import Upstream
from tests.proxy.test_client_connections import Wire
from tests.support.orders import ORDERS, order_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pytest

    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.client_connections import ClientConnection

BODY = json.dumps(order_body(time_in_force="immediate_or_cancel")).encode()
REQUEST = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (ORDERS.encode(), len(BODY), BODY)
SAID = b'{"order_id":"x","fill_count":"0.00","remaining_count":"0.00"}'
ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(SAID), SAID)


class Trading:
    """A proxy with caps, of which the orders go to a Kalshi that has them end at once; one client has a connection.

    Attributes:
        seen: What its orders held when the client had its answer, and how many lines there were; and in the loop's
            next turn.
        kinds: Lines of the audit trail.
        doubts: How often an order was to be looked up.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.seen: list[tuple[int, int]] = []
        self.kinds: list[str] = []
        self.doubts = 0
        self.judge = Judge(parse_policy("version = 1\n[clients.default]\nmax_dollars_a_day = 30"))
        self.judge.reservations.on_doubt = self._doubt
        signs = SimpleNamespace(taken=lambda *_target: {"KALSHI-ACCESS-KEY": "id"})
        signs.request = lambda *given: RequestSigning(cast("ProxySigner", signs), *given)
        handler = Handler(
            lambda _request: Caller("default"),
            self.judge,
            cast("ProxySigner", signs),
            upstream,
            RunningRequests(),
            order_sent=lambda: None,
            trail=cast("AuditTrail", SimpleNamespace(append_lines=self._append)),
            metrics=Metrics(),
        )
        self.server = ClientServer(handler.answer, handler.refuse_unanswered, lambda _transport: "default", files=1000)
        self.connection: ClientConnection = self.server()
        self.wire = Wire()
        self.wire.written = self._look  # type: ignore[method-assign]
        self.connection.connection_made(self.wire)

    @property
    def held(self) -> int:
        return self.judge.reservations.account("default").live

    def _look(self) -> None:
        self.seen.append((self.held, len(self.kinds)))
        asyncio.get_running_loop().call_soon(lambda: self.seen.append((self.held, len(self.kinds))))

    def _doubt(self) -> None:
        self.doubts += 1

    def _append(self, lines: Iterable[tuple[str, object]]) -> int:
        self.kinds += [kind for kind, _members in lines]
        return len(self.kinds)

    async def ask(self, meanwhile: Callable[[Trading], object] = bool) -> None:
        """Send an order, and wait until it is over; meanwhile is called when it has gone to Kalshi."""
        self.connection.data_received(REQUEST)
        async with asyncio.timeout(20):
            await self._until(lambda: self.held > 0)
            meanwhile(self)
            await self._until(lambda: "outcome" in self.kinds and not self.connection.is_busy)

    @staticmethod
    async def _until(what: Callable[[], bool]) -> None:
        while not what():  # noqa: ASYNC110 - it is what is looked at that tells
            await asyncio.sleep(0.001)


async def kalshi(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while asked := await reader.read(65_536):
        writer.write(ANSWER if asked.startswith(b"POST") else b"HTTP/1.1 204 No Content\r\n\r\n")
    writer.close()


def traded(meanwhile: Callable[[Trading], object] = bool) -> Trading:
    async def run() -> Trading:
        server = await asyncio.start_server(kalshi, "127.0.0.1", 0)
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/trade-api/v2"
        async with server, Upstream(base_url, Metrics()) as upstream:
            trading = Trading(upstream)
            await trading.ask(meanwhile)
        return trading

    return asyncio.run(run())


def test_an_order_is_settled_behind_its_answer_and_before_the_next_request() -> None:
    trading = traded()
    assert trading.wire.sent.endswith(SAID)
    assert trading.seen == [(3 * 5600, 1), (0, 2)]
    assert (trading.kinds, trading.doubts) == (["decision", "outcome"], 0)


def test_an_order_is_settled_where_nobody_waits_for_its_answer() -> None:
    trading = traded(lambda trading: trading.connection.connection_lost(None))
    assert (trading.wire.sent, trading.held) == (b"", 0)
    assert (trading.kinds, trading.doubts) == (["decision", "outcome"], 0)


def test_an_order_is_settled_when_the_proxy_stops() -> None:
    def stop(trading: Trading) -> None:
        trading.server.is_stopping = True

    trading = traded(stop)
    assert b"Connection: close\r\n" in trading.wire.sent
    assert trading.wire.ended
    assert trading.seen == [(3 * 5600, 1), (0, 2)]


def test_an_order_that_could_not_be_settled_is_held_and_looked_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settle(_reservations: Reservations, _states: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Reservations, "settle", settle)
    trading = traded()
    assert trading.wire.sent.startswith(ANSWER[:20])
    assert trading.wire.sent.count(b"HTTP/1.1") == 1  # no second answer behind the first one
    assert trading.wire.aborted
    assert trading.held == 3 * 5600
    assert (trading.kinds, trading.doubts) == (["decision", "outcome", "decision"], 1)
    assert "a request failed, which is a defect" in caplog.text
