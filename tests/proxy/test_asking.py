"""What the proxy asks Kalshi for itself: signed like a client's requests, counted like them, and bounded."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest

from hsm_keys import RequestSigner
from hsm_keys.proxy.asking import OwnRequests
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.signing import FrozenError, ProxySigner
from hsm_keys.proxy.upstream import Upstream
from hsm_keys.signing.pem import PemKey
from tests.support.judging import ORDERS, V2, ask, judge
from tests.support.kalshi_stub import Stub

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

    from hsm_keys.sandbox import SandboxServer

DEAD = "0f8fad5b-d9cb-469f-a165-70867728950e"
LIMITS = "/account/limits"


@pytest.fixture
def key(sandbox: SandboxServer) -> PemKey:
    return PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)


def asked(base_url: str, signer: RequestSigner, judged: Judge) -> tuple[int, bytes]:
    """Ask as a proxy does that signs ahead for the busiest route."""

    async def run() -> tuple[int, bytes]:
        signs = ProxySigner(signer, judged, Metrics(), ahead=1)
        try:
            async with Upstream(base_url, Metrics()) as upstream:
                assert upstream._warming is not None
                upstream._warming.cancel()  # the connection that it keeps is a request too
                return await OwnRequests(upstream, signs, judged).get(LIMITS)
        finally:
            signs.close()

    return asyncio.run(asyncio.wait_for(run(), 30))


def test_a_rotation_is_followed(sandbox: SandboxServer, key: PemKey) -> None:
    rotated = RequestSigner(PemKey(DEAD, sandbox.bootstrap_pem), follow=lambda: key)
    assert asked(sandbox.base_url, rotated, Judge())[0] == 200
    assert [seen.api_key_id for seen in sandbox.requests] == [DEAD, key.api_key_id]


def test_a_key_that_is_refused_asks_once(sandbox: SandboxServer) -> None:
    dead = RequestSigner(PemKey(DEAD, sandbox.bootstrap_pem))
    assert asked(sandbox.base_url, dead, Judge())[0] == 401
    assert len(sandbox.requests) == 1


def test_nothing_is_signed_while_frozen(key: PemKey) -> None:
    signs = ProxySigner(RequestSigner(key), Judge(frozen=True), Metrics())
    with pytest.raises(FrozenError):
        signs.headers_at_once("GET", f"{V2}{LIMITS}")
    signs.close()


def test_it_is_no_busy_route(key: PemKey) -> None:
    """A route is learned when it is missed twice."""
    signs = ProxySigner(RequestSigner(key), Judge(), Metrics(), ahead=1)
    for _ in range(3):
        signs.headers_at_once("GET", f"{V2}{LIMITS}")
    assert signs._ahead is not None
    assert not signs._ahead._pools.by_route
    signs.close()


def test_it_counts_among_the_accounts_requests(
    sandbox: SandboxServer, key: PemKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.proxy.asking.time.monotonic", lambda: 0.0)
    judged = judge('read_tokens_per_second = "tier"')
    assert asked(sandbox.base_url, RequestSigner(key), judged)[0] == 200
    assert sum(ask(judged, "GET", ORDERS).allowed for _ in range(30)) == 19  # of the lowest level's twenty


def test_an_answer_without_an_end_is_given_up(key: PemKey) -> None:
    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            while True:
                handler.wfile.write(bytes(65_536))

    with Stub(flood) as stub, pytest.raises(aiohttp.ClientPayloadError):
        asked(stub.base_url, RequestSigner(key), Judge())
