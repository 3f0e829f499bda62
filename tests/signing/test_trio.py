"""Under trio, as under asyncio: what is awaited signs in a thread, and the event loop runs on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx
import httpx2
import pytest
import trio

from hsm_keys import AsyncKalshiClient, RequestSigner
from hsm_keys.signing.headers import KEY_HEADER
from hsm_keys.signing.pem import PemKey

if TYPE_CHECKING:
    from types import ModuleType

    from hsm_keys.sandbox import SandboxServer

PATH = "/trade-api/v2/portfolio/balance"


@pytest.fixture
def key(sandbox: SandboxServer) -> PemKey:
    return PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)


def test_headers(key: PemKey) -> None:
    async def use() -> dict[str, str]:
        return await RequestSigner(key).aheaders("GET", PATH)

    assert trio.run(use)[KEY_HEADER] == key.api_key_id


def test_the_client(sandbox: SandboxServer, key: PemKey) -> None:
    async def use() -> tuple[int, int]:
        async with AsyncKalshiClient(RequestSigner(key), base_url=sandbox.base_url) as client:
            listed = await client.api_keys.list()
            return len(listed.api_keys), (await client.request("POST", "/api_keys", json={})).status_code

    assert trio.run(use) == (1, 400)
    assert {seen.verified for seen in sandbox.requests} == {True}


def test_the_client_tries_a_get_again_and_follows_a_rotation(sandbox: SandboxServer, key: PemKey) -> None:
    dead = PemKey("0f8fad5b-d9cb-469f-a165-70867728950e", sandbox.bootstrap_pem)

    async def use() -> int:
        signer = RequestSigner(dead, follow=lambda: key)
        async with AsyncKalshiClient(signer, base_url=sandbox.base_url) as client:
            return (await client.request("GET", "/portfolio/balance")).status_code

    assert trio.run(use) == 200
    assert [seen.api_key_id for seen in sandbox.requests] == [dead.api_key_id, key.api_key_id]


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_the_auth_object(sandbox: SandboxServer, key: PemKey, library: ModuleType) -> None:
    async def use() -> int:
        auth = RequestSigner(key).auth(base_url=sandbox.base_url)
        async with library.AsyncClient(auth=auth, base_url=sandbox.base_url) as client:
            status: int = (await client.get("/portfolio/balance")).status_code
            return status

    assert trio.run(use) == 200


def test_whoever_is_cancelled_does_not_wait_for_the_token() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Stuck:
        name, api_key_id = "prod", "id"

        def sign(self, message: bytes, /) -> bytes:
            entered.set()
            assert go_on.wait(20)
            return b""

    async def use() -> bool:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(RequestSigner(Stuck()).aheaders, "GET", PATH)
                await trio.to_thread.run_sync(entered.wait, 20)
                scope.cancel()
        return scope.cancelled_caught

    try:
        assert trio.run(use)
    finally:
        go_on.set()
