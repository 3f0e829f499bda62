"""What ``signer.auth()`` can't sign doesn't go out: unknown requests, and hooks that are called in other ways."""

from __future__ import annotations

import asyncio
import inspect
import urllib.request
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import requests

from hsm_keys import RequestSigner
from hsm_keys.errors import StoreUnavailableError, UsageError
from hsm_keys.signing.headers import SIGNATURE_HEADER
from hsm_keys.signing.pem import PemKey
from tests.support.http_clients import HAS_NIQUESTS, each_client, niquests, run
from tests.support.kalshi_stub import Stub

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer

PATH = "/portfolio/balance"


@pytest.fixture
def key(sandbox: SandboxServer) -> PemKey:
    return PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)


class Away:
    """A key whose token is away."""

    name, api_key_id = "prod", "id"

    def sign(self, message: bytes, /) -> bytes:
        raise StoreUnavailableError("the token is away")


@each_client
def test_nothing_goes_out_when_the_store_can_not_sign(client: Any) -> None:
    with Stub((200, {})) as stub:
        auth = RequestSigner(Away()).auth(base_url=stub.base_url)
        with pytest.raises(StoreUnavailableError):
            run(client)(auth, "POST", stub.base_url + "/portfolio/events/orders", json={})
        assert stub.arrived == []


@pytest.mark.parametrize(
    "other",
    [
        urllib.request.Request("https://external-api.kalshi.com/trade-api/v2/exchange/status"),
        requests.Request("GET", "https://external-api.kalshi.com/trade-api/v2/exchange/status"),
        httpx.Request("GET", "https://external-api.kalshi.com/trade-api/v2/exchange/status"),
        httpx2.Request("GET", "https://external-api.kalshi.com/trade-api/v2/exchange/status"),
        object(),
    ],
    ids=lambda other: f"{type(other).__module__}.{type(other).__qualname__}",
)
def test_a_request_of_an_unknown_kind_is_refused(key: PemKey, other: Any) -> None:
    with pytest.raises(UsageError, match="can't sign a") as caught:
        RequestSigner(key).auth(environment="prod")(other)
    assert "signer.headers(method, path)" in caught.value.hint


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_an_auth_that_wraps_this_one_sends_it_signed(sandbox: SandboxServer, key: PemKey, library: Any) -> None:
    """httpx's own class has an ``auth_flow`` that yields the request as it is; wrappers call that one."""

    class Wrapping(library.Auth):  # type: ignore[misc]  # one of two libraries
        def auth_flow(self, request: Any) -> Any:
            next(auth.auth_flow(request))
            yield request

    auth = RequestSigner(key).auth(base_url=sandbox.base_url)
    with library.Client(auth=Wrapping()) as client:
        assert client.get(sandbox.base_url + PATH).status_code == 200

    async def use() -> int:
        async with library.AsyncClient(auth=Wrapping()) as client:
            status: int = (await client.get(sandbox.base_url + PATH)).status_code
            return status

    assert asyncio.run(use()) == 200
    assert [seen.verified for seen in sandbox.requests] == [True, True]


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_an_auth_that_wraps_this_one_is_refused_before_a_proxy(
    key: PemKey, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    auth = RequestSigner(key).auth(base_url="http://127.0.0.1:2")
    with pytest.raises(UsageError, match="could read its signature"):
        auth.auth_flow(library.Request("GET", auth.base_url + PATH))


@each_client
def test_a_client_that_is_used_in_a_running_loop_sends_it_signed(
    sandbox: SandboxServer, key: PemKey, client: Any
) -> None:
    """A sync client in a coroutine, as in a notebook; niquests sent its requests unsigned there."""
    auth = RequestSigner(key).auth(base_url=sandbox.base_url)
    is_async = inspect.iscoroutinefunction(client)

    async def use() -> Any:
        answer = client(auth, "GET", sandbox.base_url + PATH)
        return await answer if is_async else answer

    assert asyncio.run(use()).status_code == 200
    assert [seen.verified for seen in sandbox.requests] == [True]


@each_client
def test_a_rotation_is_followed_in_a_running_loop(sandbox: SandboxServer, key: PemKey, client: Any) -> None:
    dead = PemKey("0f8fad5b-d9cb-469f-a165-70867728950e", sandbox.bootstrap_pem)
    auth = RequestSigner(dead, follow=lambda: key).auth(base_url=sandbox.base_url)
    is_async = inspect.iscoroutinefunction(client)

    async def use() -> Any:
        answer = client(auth, "GET", sandbox.base_url + PATH)
        return await answer if is_async else answer

    assert asyncio.run(use()).status_code == 200
    assert [seen.api_key_id for seen in sandbox.requests] == [dead.api_key_id, key.api_key_id]


if HAS_NIQUESTS:  # it has an environment of its own

    def test_an_async_session_that_sends_a_prepared_request_sends_it_signed(
        sandbox: SandboxServer, key: PemKey
    ) -> None:
        """Its ``send`` doesn't await what its ``request`` does."""

        async def use() -> int:
            async with niquests.AsyncSession() as session:
                session.auth = RequestSigner(key).auth(base_url=sandbox.base_url)
                prepared = session.prepare_request(niquests.Request("GET", sandbox.base_url + PATH))
                status: int = (await session.send(prepared)).status_code
                return status

        assert asyncio.run(use()) == 200
        assert [seen.verified for seen in sandbox.requests] == [True]


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_transport_that_changes_the_host_sends_nothing(key: PemKey, library: Any) -> None:
    class Elsewhere(library.HTTPTransport):  # type: ignore[misc]  # one of two libraries
        def handle_request(self, request: Any) -> Any:
            request.url = library.URL(other.base_url + PATH)
            return super().handle_request(request)

    with Stub((200, {})) as other, Stub((200, {})) as stub:
        auth = RequestSigner(key).auth(base_url=stub.base_url)
        with library.Client(auth=auth, transport=Elsewhere()) as client, pytest.raises(UsageError):
            client.get(stub.base_url + PATH)
        assert [seen for seen in other.arrived if SIGNATURE_HEADER in seen.headers] == []
