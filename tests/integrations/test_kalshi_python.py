"""kalshi-python-sync and -async, unchanged, signing in a token and in KMS; the recipes are those of docs/sdks.md."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, RequestSigner
from hsm_keys.errors import StoreError, UsageError
from hsm_keys.integrations.kalshi_python import sign_with
from hsm_keys.sandbox.keys import generate_pair
from hsm_keys.signing.headers import SIGNATURE_HEADER
from hsm_keys.signing.pem import PemKey
from tests.support.kalshi_stub import Stub, send
from tests.support.sdks import need, run_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.server import BaseHTTPRequestHandler

    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.sandbox.state import SandboxKey

pytestmark = pytest.mark.sdks

USES = {
    "kalshi-python-sync": """
        balance = client.get_balance()
        keys = client.get_api_keys()
        client.delete_api_key(api_key=key.api_key_id)
        client.rest_client.pool_manager.clear()
        """,
    "kalshi-python-async": """
        async with client:
            balance = await client.get_balance()
            keys = await client.get_api_keys()
            await client.delete_api_key(api_key=key.api_key_id)
        """,
}


@pytest.fixture(params=USES)
def sdk(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(name)
    return name


@pytest.fixture
def package(sdk: str) -> Any:
    return import_module(sdk.replace("-", "_"))


class Pem:
    """The sandbox's bootstrap key, which counts its signatures and can wait before each."""

    def __init__(self, sandbox: SandboxServer) -> None:
        self.inner = PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)
        self.name = "pem"
        self.api_key_id: str | None = sandbox.bootstrap_key_id
        self.signed = 0
        self.before: Callable[[], object] = lambda: None

    def sign(self, message: bytes, /) -> bytes:
        self.before()
        self.signed += 1
        return self.inner.sign(message)


def call(package: Any, sandbox: SandboxServer | Stub, signer: RequestSigner, method: str, *arguments: str) -> Any:
    """Call a method of a client that signs so, and return what it returns."""
    client = sign_with(package.KalshiClient(package.Configuration(host=sandbox.base_url)), signer)
    if not inspect.iscoroutinefunction(package.rest.RESTClientObject.request):
        try:
            return getattr(client, method)(*arguments)
        finally:  # this SDK has no close
            client.rest_client.pool_manager.clear()

    async def run() -> Any:
        async with client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(run())


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_the_recipe(sdk: str, enrolled: Callable[..., SandboxKey], sandbox: SandboxServer, key_type: KeyType) -> None:
    registered = enrolled(key_type)
    space = run_recipe(sdk, USES[sdk])
    assert space["keys"].api_keys[-1].api_key_id == registered.api_key_id
    assert space["balance"].balance > 0
    assert [(seen.method, seen.path, seen.api_key_id, seen.verified, seen.status) for seen in sandbox.requests] == [
        ("GET", "/trade-api/v2/portfolio/balance", registered.api_key_id, True, 200),
        ("GET", "/trade-api/v2/api_keys", registered.api_key_id, True, 200),
        ("DELETE", f"/trade-api/v2/api_keys/{registered.api_key_id}", registered.api_key_id, True, 204),
    ]


@pytest.mark.parametrize("store_uri", [pytest.param("SoftHSM", marks=pytest.mark.softhsm)], indirect=True)
def test_a_store_that_fails_says_so_and_nothing_is_sent(sdk: str, prod: SandboxKey, sandbox: SandboxServer) -> None:
    with pytest.raises(StoreError):
        run_recipe(sdk, f"store.close()\n{inspect.cleandoc(USES[sdk])}")
    assert sandbox.requests == ()


def test_a_request_costs_one_signature(package: Any, sandbox: SandboxServer) -> None:
    key = Pem(sandbox)
    call(package, sandbox, RequestSigner(key), "get_balance")
    assert key.signed == 1
    assert [seen.verified for seen in sandbox.requests] == [True]


def test_the_path_is_signed_as_it_goes_out(package: Any, sandbox: SandboxServer) -> None:
    with pytest.raises(package.exceptions.ApiException):
        call(package, sandbox, RequestSigner(Pem(sandbox)), "delete_api_key", "a:b c/é%2f~")
    (seen,) = sandbox.requests
    assert seen.verified
    assert seen.path.startswith("/trade-api/v2/api_keys/a")


def test_a_refused_request_follows_a_rotation_and_is_sent_once_more(package: Any, sandbox: SandboxServer) -> None:
    old, new = Pem(sandbox), Pem(sandbox)
    registered = sandbox.state.find_key(sandbox.bootstrap_key_id)
    assert registered is not None
    old.api_key_id = sandbox.add_key("gone", registered.public_pem).api_key_id
    sandbox.state.delete_key(old.api_key_id)
    assert call(package, sandbox, RequestSigner(old, follow=lambda: new), "get_balance").balance > 0
    assert [(seen.api_key_id, seen.verified) for seen in sandbox.requests] == [
        (old.api_key_id, False),
        (new.api_key_id, True),
    ]


def test_a_refused_request_of_a_key_that_stays_is_not_repeated(package: Any, sandbox: SandboxServer) -> None:
    key = Pem(sandbox)
    sandbox.state.delete_key(sandbox.bootstrap_key_id)
    with pytest.raises(package.exceptions.UnauthorizedException):
        call(package, sandbox, RequestSigner(key, follow=lambda: key), "get_balance")
    assert len(sandbox.requests) == 1


def test_headers_that_grew_old_on_their_way_are_made_anew(
    package: Any, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 3.0
            return self.now

    monkeypatch.setattr("hsm_keys.signing.flow.time", Late())
    key = Pem(sandbox)
    with Stub((401, {}), (200, {"balance": 1, "portfolio_value": 1, "updated_ts": 1})) as stub:
        with suppress(package.exceptions.ApiException, ValueError):  # the stub's answer isn't Kalshi's
            call(package, stub, RequestSigner(key), "get_balance")
        assert len(stub.arrived) == key.signed == 2


def test_a_redirect_to_another_host_carries_no_signature(package: Any, sandbox: SandboxServer) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 307, {}, {"Location": f"http://localhost:{other.base_url.split(':')[2]}/portfolio/balance"})

    with Stub((401, {})) as other, Stub(redirect) as stub:
        with pytest.raises(package.exceptions.UnauthorizedException):
            call(package, stub, RequestSigner(Pem(sandbox)), "get_balance")
        assert SIGNATURE_HEADER in stub.arrived[0].headers
        assert other.arrived
        assert [seen for seen in other.arrived if SIGNATURE_HEADER in seen.headers] == []


@pytest.mark.parametrize("how", ["environment", "configuration"])
def test_no_signature_goes_through_a_proxy_in_plain_text(
    package: Any, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Stub((200, {})) as proxy:
        address = proxy.base_url.removesuffix("/trade-api/v2")
        configuration = package.Configuration(host=sandbox.base_url)
        if how == "environment":
            monkeypatch.setenv("HTTP_PROXY", address)
        else:
            configuration.proxy = address
        client = sign_with(package.KalshiClient(configuration), RequestSigner(Pem(sandbox)))

        async def run() -> None:
            async with client:
                await client.get_balance()

        if how == "environment" and package.__name__ == "kalshi_python_sync":  # urllib3 doesn't read it
            client.get_balance()
        else:
            with pytest.raises(UsageError, match="could read its signature"):
                asyncio.run(run()) if inspect.iscoroutinefunction(client.get_balance) else client.get_balance()
        if package.__name__ == "kalshi_python_sync":
            client.rest_client.pool_manager.clear()
        assert proxy.arrived == []


@pytest.mark.parametrize("sdk", ["kalshi-python-async"], indirect=True)
def test_the_event_loop_runs_while_a_token_signs(package: Any, sandbox: SandboxServer) -> None:
    key, go_on = Pem(sandbox), threading.Event()

    async def run() -> None:
        loop, signing = asyncio.get_running_loop(), asyncio.Event()

        def wait() -> None:
            loop.call_soon_threadsafe(signing.set)
            assert go_on.wait(10), "the loop stood still"

        key.before = wait
        client = sign_with(package.KalshiClient(package.Configuration(host=sandbox.base_url)), RequestSigner(key))
        async with client:
            request = asyncio.create_task(client.get_balance())
            await signing.wait()
            go_on.set()
            await request

    asyncio.run(run())
    assert [seen.verified for seen in sandbox.requests] == [True]


def test_a_pem_that_the_client_was_given_is_used_no_more(package: Any, sandbox: SandboxServer) -> None:
    configuration = package.Configuration(host=sandbox.base_url)
    configuration.api_key_id = sandbox.bootstrap_key_id
    configuration.private_key_pem, _ = generate_pair("rsa")  # 3.2.0 takes no other kind
    signer = RequestSigner(Pem(sandbox))
    client = sign_with(sign_with(package.KalshiClient(configuration), signer), signer)
    assert client.kalshi_auth is None
    assert type(client.rest_client.inner) is package.rest.RESTClientObject


def test_a_newer_version_is_tried_with_a_warning(
    package: Any, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "__version__", "3.35.0")
    with pytest.warns(UserWarning, match=r"3\.35\.0 wasn't tried with hsm-keys: 3\.34\.0 is the newest") as caught:
        call(package, sandbox, RequestSigner(Pem(sandbox)), "get_balance")
    assert caught[0].filename == __file__
    assert [seen.verified for seen in sandbox.requests] == [True]


def test_an_older_version_is_refused(package: Any, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "__version__", "2.1.4")
    with pytest.raises(UsageError, match=r"2\.1\.4 is too old.*pip install 'kalshi-python-\w+>=3\.2\.0'"):
        call(package, sandbox, RequestSigner(Pem(sandbox)), "get_balance")


def test_one_that_sends_otherwise_is_refused(
    package: Any, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package.rest.RESTClientObject, "request", lambda self, call: None)
    client = package.KalshiClient(package.Configuration(host=sandbox.base_url))
    before = client.rest_client
    with pytest.raises(UsageError, match=r"doesn't know.*that were tried: kalshi-python-\w+ 3\.2\.0 or 3\.34\.0"):
        sign_with(client, RequestSigner(Pem(sandbox)))
    assert client.rest_client is before
