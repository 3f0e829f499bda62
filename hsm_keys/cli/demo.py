"""``demo``: the whole story on a throwaway sandbox, with a real key in the real token."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hsm_keys.cli.options import Settings, settings_options
from hsm_keys.cli.sandbox import import_sandbox
from hsm_keys.cli.session import opened_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["demo"]

_ORDER = {"ticker": "KXDEMO-26", "side": "yes", "action": "buy", "count": 1, "type": "limit", "yes_price": 50}


def _say(line: str) -> None:
    click.echo(f"   {line}")


class _Steps:
    """Numbers the headings."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, heading: str) -> None:
        self._number += 1
        click.echo(f"{self._number}. {heading}")


@click.command(epilog="Example: hsm-keys demo --slot 0")
@settings_options
@click.pass_obj
def demo(settings: Settings) -> None:
    """Show the whole story on a throwaway sandbox: enroll, sign, trade, and prove that the key can't be read.

    The key is real and lives in your token until the end of the demo. Nothing is sent to Kalshi.
    """
    sandbox_server = import_sandbox().SandboxServer
    step = _Steps()
    with opened_store(settings, _say) as store, sandbox_server(tier="premier") as sandbox:
        step(f"A strict stand-in for Kalshi listens on {sandbox.base_url}")
        name = f"demo-{secrets.token_hex(3)}"
        with _destroyed_at_the_end(store, name):
            step(f"hsm-keys enroll --name {name}")
            key = _enroll(store, name, sandbox)
            with _connect(sandbox, key.signer()) as client:
                _use(step, client)
            step("Can the private half be read, or taken out?")
            for fact in key.custody_facts():
                _say(f"{fact.name}: {fact.value}" + (f" ({fact.note})" if fact.note else ""))
            _tamper(step, sandbox, key)
            _delete(step, sandbox, key)
    step(f"The key pair {name} is destroyed; the token is as it was")


def _connect(sandbox: Any, signer: RequestSigner) -> KalshiClient:
    from hsm_keys.kalshi.client import KalshiClient

    return KalshiClient(signer, base_url=sandbox.base_url)


@contextmanager
def _destroyed_at_the_end(store: KeyStore, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        for key in store.keys():
            if key.name == name:
                store.destroy(key)


def _enroll(store: KeyStore, name: str, sandbox: Any) -> StoredKey:
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.lifecycle.enroll import enroll

    bootstrap = KalshiClient.from_private_key(
        sandbox.bootstrap_key_id, sandbox.bootstrap_pem, base_url=sandbox.base_url
    )
    with bootstrap as management:
        done = enroll(
            store,
            name,
            key_type=None,
            scopes=None,
            subaccount=None,
            management=management,
            connect=lambda signer: _connect(sandbox, signer),
            report=_say,
        )
    return done.key


def _use(step: _Steps, client: KalshiClient) -> None:
    step("Requests, each signed in the token")
    balance = client.request("GET", "/portfolio/balance")
    _say(f"GET /portfolio/balance: {balance.status_code} {balance.text}")
    order = client.request("POST", "/portfolio/orders", json=_ORDER)
    _say(f"POST /portfolio/orders: {order.status_code}, order {order.json()['order']['order_id']}")


def _tamper(step: _Steps, sandbox: Any, key: StoredKey) -> None:
    import httpx2

    step("Would a signature for one path do for another?")
    headers = key.signer().headers("GET", "/trade-api/v2/portfolio/balance")
    answer = httpx2.get(f"{sandbox.base_url}/api_keys", headers=headers)
    _say(f"GET /api_keys with the headers of GET /portfolio/balance: {answer.status_code} {answer.text}")


def _delete(step: _Steps, sandbox: Any, key: StoredKey) -> None:
    step("Delete the API key, with itself, and use it once more")
    with _connect(sandbox, key.signer()) as client:
        client.api_keys.delete(str(key.api_key_id))
        answer = client.request("GET", "/portfolio/balance")
    _say(f"GET /portfolio/balance: {answer.status_code} {answer.text}")
