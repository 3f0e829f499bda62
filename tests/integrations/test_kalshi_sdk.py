"""kalshi-sdk, unchanged, signing in a token and in KMS; the recipes are those of docs/sdks.md."""

from __future__ import annotations

import inspect
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hsm_keys import KeyType, RequestSigner
from hsm_keys.errors import StoreError, UsageError, WrongEnvironmentError
from hsm_keys.integrations.kalshi_sdk import auth_for, sign_with
from hsm_keys.signing.environments import environment_name
from hsm_keys.signing.pem import PemKey
from tests.support.fix_gateway import FixGateway
from tests.support.kalshi_stub import Stub
from tests.support.sdks import need, run_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.sandbox.state import SandboxKey

pytestmark = pytest.mark.sdks


@pytest.fixture(autouse=True)
def _sdk() -> None:
    need("kalshi-sdk")


def arrived(sandbox: SandboxServer, key: SandboxKey) -> list[tuple[str, str, bool, int | None]]:
    assert {seen.api_key_id for seen in sandbox.requests} == {key.api_key_id}
    return [(seen.method, seen.path, seen.verified, seen.status) for seen in sandbox.requests]


def test_sync(prod: SandboxKey, sandbox: SandboxServer) -> None:
    space = run_recipe(
        "kalshi-sdk",
        """
        keys = client.api_keys.list()
        client.api_keys.delete(key.api_key_id)
        client.close()
        """,
    )
    assert [listed.api_key_id for listed in space["keys"].api_keys][-1] == prod.api_key_id
    assert arrived(sandbox, prod) == [
        ("GET", "/trade-api/v2/portfolio/balance", True, 200),
        ("GET", "/trade-api/v2/api_keys", True, 200),
        ("DELETE", f"/trade-api/v2/api_keys/{prod.api_key_id}", True, 204),
    ]


@pytest.mark.parametrize("store_uri", [pytest.param("SoftHSM", marks=pytest.mark.softhsm)], indirect=True)
def test_a_store_that_fails_says_so_and_nothing_is_sent(prod: SandboxKey, sandbox: SandboxServer) -> None:
    with pytest.raises(StoreError):
        run_recipe(
            "kalshi-sdk",
            """
            store.close()
            with client:
                client.portfolio.balance()
            """,
        )
    assert [seen.verified for seen in sandbox.requests] == [True]


def test_async(prod: SandboxKey, sandbox: SandboxServer) -> None:
    run_recipe("kalshi-sdk, asyncio", "await client.close()")
    assert arrived(sandbox, prod) == [("GET", "/trade-api/v2/portfolio/balance", True, 200)]


def test_websocket_signs_again_when_it_reconnects(prod: SandboxKey, sandbox: SandboxServer) -> None:

    def restart() -> None:
        sandbox.stop()
        sandbox.start()

    run_recipe(
        "kalshi-sdk, WebSocket",
        """
        import asyncio
        streaming = asyncio.Event()
        async def changed(before, now):
            if now.value == "streaming":
                streaming.set()
        socket._on_state_change = changed
        async with socket.connect() as session:
            await session.subscribe_ticker(tickers=["KXTEST-26"])
            streaming.clear()
            await asyncio.to_thread(restart)
            await asyncio.wait_for(streaming.wait(), 30)
        """,
        restart=restart,
    )
    handshakes = arrived(sandbox, prod)
    assert [seen for seen in handshakes if seen[3] == 101] == [("GET", "/trade-api/ws/v2", True, 101)] * 2
    timestamps = [seen.timestamp for seen in sandbox.requests]
    assert len(set(timestamps)) == len(timestamps)


def test_fix_session_logs_on_and_on_again(prod: SandboxKey) -> None:
    with FixGateway(prod.api_key_id, prod.public_key) as gateway:
        run_recipe(
            "kalshi-sdk, FIX",
            """
            import asyncio
            from kalshi.fix import FixConfig
            active = asyncio.Event()
            async def changed(before, now):
                if now.value == "active":
                    active.set()
            here = FixConfig(host="127.0.0.1", port=gateway.port, use_tls=False)
            async with FixClient(fix.signer, config=here).order_entry(on_state_change=changed):
                active.clear()
                await asyncio.to_thread(gateway.hang_up)
                await asyncio.wait_for(active.wait(), 30)
            """,
            gateway=gateway,
        )
    assert gateway.verdicts == ["good", "good"]


def test_fix_session_of_another_key_is_refused(prod: SandboxKey) -> None:
    other = rsa.generate_private_key(65537, 2048).public_key()
    with FixGateway(prod.api_key_id, other) as gateway, pytest.raises(Exception, match="logon rejected"):
        run_recipe(
            "kalshi-sdk, FIX",
            """
            from kalshi.fix import FixConfig
            here = FixConfig(host="127.0.0.1", port=gateway.port, use_tls=False)
            await FixClient(fix.signer, config=here).order_entry().start()
            """,
            gateway=gateway,
        )
    assert gateway.verdicts == ["signature"]


@pytest.mark.parametrize("recipe", ["kalshi-sdk", "kalshi-sdk, FIX"])
def test_ed25519_keys_are_beyond_it(enrolled: Callable[..., SandboxKey], sandbox: SandboxServer, recipe: str) -> None:
    enrolled(KeyType.ED25519)
    with pytest.raises(UsageError, match="is no RSA key"):
        run_recipe(recipe)
    with pytest.raises(TypeError, match="positional argument"):  # what the SDK makes of one that gets to it
        import_module("kalshi").KalshiAuth("id", Ed25519PrivateKey.generate()).sign_request(
            "GET", "/trade-api/v2/portfolio/balance"
        )
    assert sandbox.requests == ()


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_with_a_signer_it_takes_both_kinds_of_key(
    enrolled: Callable[..., SandboxKey], sandbox: SandboxServer, key_type: KeyType
) -> None:
    registered = enrolled(key_type)
    run_recipe("kalshi-sdk, with a signer", "client.portfolio.balance(); client.close()")
    assert arrived(sandbox, registered) == [("GET", "/trade-api/v2/portfolio/balance", True, 200)]


_ROTATE = """
    successor = store.generate_like(key, "prod+next")
    new = sandbox.add_key("prod", successor.public_pem())
    bound = store.bind(successor, new.api_key_id, key.environment)
    store.hand_over("prod", taker=bound, leaver=key, mark="+retired")
    sandbox.state.delete_key(key.api_key_id)
    """


def test_with_a_signer_it_follows_a_rotation(prod: SandboxKey, sandbox: SandboxServer) -> None:
    run_recipe(
        "kalshi-sdk, with a signer",
        f"client.portfolio.balance()\n{inspect.cleandoc(_ROTATE)}\nclient.portfolio.balance(); client.close()",
        sandbox=sandbox,
    )
    first, refused, second = sandbox.requests
    assert first.api_key_id == refused.api_key_id == prod.api_key_id != second.api_key_id
    assert (first.verified, refused.verified, second.verified) == (True, False, True)


def test_with_a_signer_the_async_client_and_its_websocket_do_too(prod: SandboxKey, sandbox: SandboxServer) -> None:
    run_recipe(
        "kalshi-sdk, with a signer",
        f"""
client.close()
from kalshi import AsyncKalshiClient, KalshiConfig
config = KalshiConfig(base_url=base_url, ws_base_url=ws_url)
client = sign_with(AsyncKalshiClient(config=config), key.signer())
await client.portfolio.balance()
{inspect.cleandoc(_ROTATE)}
await client.portfolio.balance()
async with client.ws.connect() as session:
    await session.subscribe_ticker(tickers=["KXTEST-26"])
await client.close()
""",
        sandbox=sandbox,
    )
    assert [(seen.path.rpartition("/")[2], seen.verified) for seen in sandbox.requests] == [
        ("balance", True),
        ("balance", False),
        ("balance", True),
        ("v2", True),
    ]


def test_with_a_signer_a_request_costs_one_signature(sandbox: SandboxServer) -> None:
    signed: list[bytes] = []

    class Counting(PemKey):
        def sign(self, message: bytes, /) -> bytes:
            signed.append(message)
            return super().sign(message)

    key = Counting(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)
    client = sign_with(import_module("kalshi").KalshiClient(base_url=sandbox.base_url), RequestSigner(key))
    client.portfolio.balance()
    client.close()
    assert len(signed) == 1
    assert [seen.verified for seen in sandbox.requests] == [True]


def test_no_signature_goes_through_a_proxy_in_plain_text(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Stub((200, {})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/trade-api/v2"))
        key = PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)
        client = sign_with(import_module("kalshi").KalshiClient(base_url=sandbox.base_url), RequestSigner(key))
        with pytest.raises(UsageError, match="could read its signature"):
            client.portfolio.balance()
        client.close()
        assert proxy.arrived == []


def test_what_is_no_client_of_it_is_refused(sandbox: SandboxServer) -> None:
    key = PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)
    with pytest.raises(UsageError, match="is no client of kalshi-sdk"):
        sign_with(object(), RequestSigner(key))


def test_fix_with_a_signer(prod: SandboxKey) -> None:
    with FixGateway(prod.api_key_id, prod.public_key) as gateway:
        run_recipe(
            "kalshi-sdk, with a signer",
            """
            from hsm_keys.integrations.kalshi_sdk import auth_for
            from kalshi.fix import FixClient, FixConfig
            client.close()
            fix = FixClient.from_auth(auth_for(key.signer()))
            here = FixConfig(host="127.0.0.1", port=gateway.port, use_tls=False)
            async with FixClient(fix.signer, config=here).order_entry():
                pass
            """,
            gateway=gateway,
        )
    assert gateway.verdicts == ["good"]


class _OfDemo(PemKey):
    environment = "demo"


def test_a_key_of_another_environment_signs_for_no_client(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = RequestSigner(_OfDemo(sandbox.bootstrap_key_id, sandbox.bootstrap_pem))
    client = import_module("kalshi").KalshiClient(base_url=sandbox.base_url)
    here = environment_name(sandbox.base_url)
    for use in (partial(sign_with, client), auth_for):
        with pytest.raises(WrongEnvironmentError) as caught:
            use(signer)
        assert "demo" in caught.value.message
        assert here in caught.value.message
    client.close()
    assert auth_for(signer, environment="demo").key_id == sandbox.bootstrap_key_id
    with pytest.raises(WrongEnvironmentError, match="prod"):
        auth_for(signer, environment="prod")
    monkeypatch.delenv("KALSHI_API_BASE_URL")
    with pytest.raises(WrongEnvironmentError, match="prod"):
        auth_for(signer)
    monkeypatch.setenv("KALSHI_DEMO", "true")
    assert auth_for(signer)
    assert not sandbox.requests
