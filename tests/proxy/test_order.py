"""What the client waits for, and what can wait for it."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from hsm_keys.proxy.access import Caller
from hsm_keys.proxy.client_requests import ClientRequest
from hsm_keys.proxy.decisions import DecisionLog
from hsm_keys.proxy.handler import Handler
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.replies import Reply
from hsm_keys.proxy.running import RunningRequests
from hsm_keys.proxy.signing import ProxySigner
from hsm_keys.proxy.subjects import Subject
from tests.support.client_requests import client_request
from tests.support.orders import ORDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.signing import RequestSigning
    from hsm_keys.proxy.upstream import Upstream
    from hsm_keys.signing.signer import RequestSigner

BALANCE = "/trade-api/v2/portfolio/balance"
HEADERS = {"KALSHI-ACCESS-KEY": "id"}


def test_an_answer_does_not_wait_for_its_outcome_and_signing_waits_for_its_decision() -> None:
    done: list[str] = []

    def append_lines(lines: Iterable[tuple[str, object]]) -> int:
        done.extend(kind for kind, _members in lines)
        return 1

    async def headers() -> dict[str, str]:
        done.append("signed")
        return HEADERS

    async def forward(_request: ClientRequest, _body: object, signing: RequestSigning, _hear: object) -> Reply:
        await signing.headers()
        return Reply(200)

    async def ask() -> None:
        handler = Handler(
            lambda _request: Caller("default"),
            Judge(),
            cast("ProxySigner", SimpleNamespace(request=lambda *_: SimpleNamespace(headers=headers))),
            cast("Upstream", SimpleNamespace(forward=forward)),
            RunningRequests(),
            order_sent=lambda: None,
            trail=cast("AuditTrail", SimpleNamespace(append_lines=append_lines)),
            metrics=Metrics(),
        )
        await handler.answer(client_request("GET", BALANCE))
        assert done == ["decision", "signed"]
        await asyncio.sleep(0)
        assert done == ["decision", "signed", "outcome"]

    asyncio.run(ask())


def test_outcomes_go_with_the_next_decision_in_one_write() -> None:
    written: list[list[str]] = []

    def append_lines(lines: Iterable[tuple[str, object]]) -> int:
        written.append([kind for kind, _members in lines])
        return 1

    async def decide() -> None:
        trail = cast("AuditTrail", SimpleNamespace(append_lines=append_lines))
        decisions = DecisionLog(trail, Metrics(), may_fail=False)
        request = client_request("GET", BALANCE)
        for _ in range(2):
            decisions.add_outcome(1, 200, 5)
        decisions.write_allowed(request, Caller("default"), Subject("GET", BALANCE), None)
        decisions.add_outcome(1, 200, 5)
        for _ in range(2):
            await asyncio.sleep(0)

    asyncio.run(decide())
    assert written == [["outcome", "outcome", "decision"], ["outcome"]]


def test_an_outcome_that_is_written_at_once_takes_along_those_that_wait() -> None:
    written: list[list[str]] = []

    def append_lines(lines: Iterable[tuple[str, object]]) -> int:
        written.append([kind for kind, _members in lines])
        return 1

    async def decide() -> None:
        decisions = DecisionLog(
            cast("AuditTrail", SimpleNamespace(append_lines=append_lines)), Metrics(), may_fail=False
        )
        decisions.add_outcome(0, 200, 5, at_once=True)  # its decision couldn't be written, and may be missing
        decisions.add_outcome(1, 200, 5)
        decisions.add_outcome(2, 200, 5, at_once=True)
        assert written == [["outcome", "outcome"]]
        for _ in range(2):
            await asyncio.sleep(0)

    asyncio.run(decide())
    assert written == [["outcome", "outcome"]]


def test_headers_in_hand_are_made_anew_when_the_request_has_gone_out() -> None:
    async def ask() -> None:
        woken = asyncio.Event()

        def take(_method: str, _path: str, *, later: Callable[[Callable[[], None]], object]) -> dict[str, str]:
            later(woken.set)
            return HEADERS

        ahead = SimpleNamespace(take=take, close=lambda: None)
        signer = cast(
            "RequestSigner", SimpleNamespace(ahead=lambda learn, rate: ahead if (learn, rate) == (1, 7.0) else None)
        )
        signs = ProxySigner(signer, Judge(), Metrics(), ahead=1, rate=7.0)
        assert await signs.request("GET", BALANCE, lambda: None).headers() == HEADERS
        await asyncio.sleep(0)
        assert not woken.is_set()
        async with asyncio.timeout(20):
            await woken.wait()
        signs.close()

    asyncio.run(ask())


@pytest.mark.parametrize("parts", [[b"{}"], [b"{", b"}"], [b""]])
def test_what_is_against_a_route_comes_before_what_is_against_its_body(parts: list[bytes]) -> None:
    """However the body comes, and also if it isn't waited for."""

    async def ask() -> Reply:
        handler = Handler(
            lambda _request: Caller("default"),
            Judge(parse_policy("version = 1\n[clients.default]\nmax_count = 5"), frozen=True),
            cast("ProxySigner", None),
            cast("Upstream", None),
            RunningRequests(),
            order_sent=lambda: None,
            trail=cast("AuditTrail", SimpleNamespace(append_lines=lambda _lines: 1)),
            metrics=Metrics(),
        )
        head = f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n"
        request = ClientRequest(client_request("GET", BALANCE).connection, head.encode())
        for part in parts:
            request.take(bytearray(part))
        async with asyncio.timeout(20):
            return await handler.answer(request)

    assert json.loads(asyncio.run(ask()).body)["error"]["code"] == "frozen"
