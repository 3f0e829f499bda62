"""``demo``: the whole story on a throwaway sandbox, with a real key in the real token."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hsm_keys.cli.extras import import_extra
from hsm_keys.cli.options import Settings, settings_options
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
    """Show the whole story on a throwaway sandbox: enroll, sign, trade, rotate, and prove that the key can't be read.

    The key is real and lives in your token until the end of the demo. Nothing is sent to Kalshi.
    """
    sandbox_server = import_extra("sandbox", "hsm_keys.sandbox").SandboxServer
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
            _rotate(step, store, name, sandbox)
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
            if key.name.partition("+")[0] == name:
                store.destroy(key)


def _management(sandbox: Any) -> KalshiClient:
    from hsm_keys.kalshi.client import KalshiClient

    return KalshiClient.from_private_key(sandbox.bootstrap_key_id, sandbox.bootstrap_pem, base_url=sandbox.base_url)


def _enroll(store: KeyStore, name: str, sandbox: Any) -> StoredKey:
    from hsm_keys.lifecycle.enroll import enroll

    with _management(sandbox) as management:
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


def _rotate(step: _Steps, store: KeyStore, name: str, sandbox: Any) -> None:
    from hsm_keys.lifecycle.rotate import Rotator

    step(f"hsm-keys rotate {name}")
    old = store.key(name)
    with _connect(sandbox, old.signer()) as client, _management(sandbox) as management:
        rotator = Rotator(store, management, lambda signer: _connect(sandbox, signer), _say)
        rotator.advance(name)
        step(f"hsm-keys rotate {name} --finish, while a program still has the old key open")
        rotator.finish(name, keep_old=False)
        answer = client.request("GET", "/portfolio/balance")
        _say(f"GET /portfolio/balance by it: {answer.status_code}, signed by API key {client.signer.api_key_id}")
