"""A request that Kalshi refuses with 401 through the proxy: signed and sent once more, or passed on, never lost."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest import mock

import aiohttp
import pytest

from hsm_keys import RequestSigner
from hsm_keys.errors import StoreUnavailableError
from hsm_keys.proxy.access import Caller
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.running import Running
from hsm_keys.proxy.serving import ClientServer
from hsm_keys.proxy.signing import ProxySigner
from hsm_keys.proxy.upstream import Upstream
from hsm_keys.signing.headers import SIGNATURE_HEADER
from hsm_keys.signing.pem import PemKey
from tests.support.kalshi_stub import Stub

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.client_requests import ClientRequest
    from hsm_keys.proxy.replies import Reply
    from hsm_keys.sandbox import SandboxServer

BALANCE = "/trade-api/v2/portfolio/balance"
DEAD = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def key(sandbox: SandboxServer) -> PemKey:
    return PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)


@pytest.fixture
def rotated(sandbox: SandboxServer, key: PemKey) -> RequestSigner:
    """Signs for a key that is dead, whose name has gone to another one."""
    return RequestSigner(PemKey(DEAD, sandbox.bootstrap_pem), follow=lambda: key)


def through_the_proxy(
    base_url: str, signer: RequestSigner, use: Callable[[aiohttp.ClientSession, str], Any], judge: Judge | None = None
) -> Any:
    """Use a server that forwards all to Kalshi, signed."""

    async def run() -> Any:
        signs = ProxySigner(signer, judge or Judge(), Metrics())

        async def answer(request: ClientRequest) -> Reply:
            signing = signs.request(request.method, request.raw_path, lambda: None)
            if request.is_websocket:
                return await upstream.relay(request, signing, Running(Caller("bot")))
            return await upstream.forward(request, await request.whole_body(1000) or None, signing)

        async with Upstream(base_url, Metrics()) as upstream:
            assert upstream._warming is not None
            upstream._warming.cancel()  # the connection that it keeps is a request too
            clients = ClientServer(answer, mock.Mock(), lambda _transport: "bot", files=1000)
            server = await asyncio.get_running_loop().create_server(clients, "127.0.0.1", 0)
            async with aiohttp.ClientSession() as session:
                result = await use(session, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            server.close()
            await clients.stop(10)
        signs.close()
        return result

    return asyncio.run(asyncio.wait_for(run(), 30))


def test_a_rotation_is_followed(sandbox: SandboxServer, rotated: RequestSigner, key: PemKey) -> None:
    async def use(session: aiohttp.ClientSession, at: str) -> int:
        async with session.post(at + "/trade-api/v2/api_keys", json={"name": "x"}) as answer:
            return answer.status

    assert through_the_proxy(sandbox.base_url, rotated, use) == 400
    assert [seen.api_key_id for seen in sandbox.requests] == [DEAD, key.api_key_id]


def test_a_websocket_follows_it_too(sandbox: SandboxServer, rotated: RequestSigner, key: PemKey) -> None:
    async def use(session: aiohttp.ClientSession, at: str) -> None:
        async with session.ws_connect(at + "/trade-api/ws/v2") as socket:
            await socket.close()

    through_the_proxy(sandbox.base_url, rotated, use)  # the WebSocket is where KALSHI_WS_URL says
    assert [(seen.api_key_id, seen.status) for seen in sandbox.requests] == [(DEAD, 401), (key.api_key_id, 101)]


def test_headers_that_grew_old_are_made_anew(key: PemKey, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 3.0
            return self.now

    monkeypatch.setattr("hsm_keys.signing.flow.time", Late())

    async def use(session: aiohttp.ClientSession, at: str) -> int:
        async with session.get(at + BALANCE) as answer:
            return answer.status

    with Stub((401, {}), (200, {})) as stub:
        later_each_time = count(1_700_000_000_000).__next__  # Ed25519 signs the same millisecond in the same way
        assert through_the_proxy(stub.base_url, RequestSigner(key, clock=later_each_time), use) == 200
        first, second = stub.arrived
        assert first.headers[SIGNATURE_HEADER] != second.headers[SIGNATURE_HEADER]


@pytest.mark.parametrize("why", ["frozen", "the store is away"])
def test_what_cannot_be_signed_again_stays_refused(sandbox: SandboxServer, why: str) -> None:
    judge = Judge()
    signed_at: list[float] = []

    class Once(PemKey):
        def sign(self, message: bytes, /) -> bytes:
            if signed_at and why != "frozen":
                raise StoreUnavailableError("the token is away")
            signed_at.append(time.monotonic())
            return super().sign(message)

    def follow() -> PemKey:
        judge.frozen = why == "frozen"
        return Once("another-key", sandbox.bootstrap_pem)

    async def use(session: aiohttp.ClientSession, at: str) -> int:
        async with session.get(at + BALANCE) as answer:
            return answer.status

    signer = RequestSigner(Once(DEAD, sandbox.bootstrap_pem), follow=follow)
    with Stub((401, {}), (200, {})) as stub:
        assert through_the_proxy(stub.base_url, signer, use, judge) == 401
        assert len(stub.arrived) == 1
