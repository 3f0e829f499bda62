"""``demo``: all steps on a throwaway sandbox, with a real key in the real token."""

from __future__ import annotations

import logging
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.extras import import_extra
from hsm_keys.cli.options import settings_options
from hsm_keys.cli.output import print_json
from hsm_keys.cli.session import opened_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.cli.settings import Settings
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["demo"]

_ORDERS = "/portfolio/events/orders"
_ORDER = {
    "ticker": "KXTEST-1",
    "side": "bid",
    "count": "1",
    "price": "0.50",
    "time_in_force": "good_till_canceled",
    "self_trade_prevention_type": "taker_at_cross",
}


class _Story:
    """Tells people each step as it comes, or keeps the steps for a program."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self.steps: list[dict[str, Any]] = []

    def step(self, heading: str) -> None:
        """Begin a step."""
        self.steps.append({"step": heading, "lines": []})
        if not self._keep:
            click.echo(f"{len(self.steps)}. {heading}")

    def report(self, line: str) -> None:
        """Report the result of the step."""
        if not self._keep:
            click.echo(f"   {line}")
        elif self.steps:
            self.steps[-1]["lines"].append(line)


@command(epilog="Example: hsm-keys demo --slot 0")
@settings_options
@click.pass_obj
def demo(settings: Settings) -> None:
    """Enroll, sign, trade, rotate, and prove that the key can't be read, on a throwaway sandbox.

    The key is real and lives in your token until the end of the demo. Nothing is sent to Kalshi.
    """
    sandbox_server = import_extra("sandbox", "hsm_keys.sandbox").SandboxServer
    story = _Story(keep=settings.as_json)
    with opened_store(settings, story.report) as store, sandbox_server(tier="premier") as sandbox:
        story.step(f"A strict stand-in for Kalshi listens on {sandbox.base_url}")
        name = f"demo-{secrets.token_hex(3)}"
        with _destroyed_at_the_end(store, name):
            story.step(f"hsm-keys enroll --name {name}")
            key = _enroll(story, store, name, sandbox)
            with _connect(sandbox, key.signer()) as client:
                _use(story, client)
            story.step("Can the private half be read, or taken out?")
            for fact in key.custody_facts():
                story.report(f"{fact.name}: {fact.value}" + (f" ({fact.note})" if fact.note else ""))
            _tamper(story, sandbox, key)
            _rotate(story, store, name, sandbox)
    story.step(f"The key pair {name} is destroyed; the token is as it was")
    if settings.as_json:
        print_json({"steps": story.steps})


def _connect(sandbox: Any, signer: RequestSigner) -> KalshiClient:
    from hsm_keys.kalshi.client import KalshiClient

    return KalshiClient(signer, base_url=sandbox.base_url)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Leave out warnings that a module is initialised again: the demo itself destroys what the module had open."""
    log = logging.getLogger("hsm_keys")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


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


def _enroll(story: _Story, store: KeyStore, name: str, sandbox: Any) -> StoredKey:
    from hsm_keys.kalshi.account import Account
    from hsm_keys.lifecycle.enroll import enroll

    with _management(sandbox) as management:
        enrollment = enroll(
            store,
            name,
            key_type=None,
            scopes=None,
            subaccount=None,
            account=Account(management, lambda signer: _connect(sandbox, signer)),
            report=story.report,
        )
    return enrollment.key


def _use(story: _Story, client: KalshiClient) -> None:
    story.step("Requests, each signed in the token")
    balance = client.request("GET", "/portfolio/balance")
    story.report(f"GET /portfolio/balance: {balance.status_code} {balance.text}")
    order = client.request("POST", _ORDERS, json=_ORDER)
    story.report(f"POST {_ORDERS}: {order.status_code}, order {order.json()['order_id']}")


def _tamper(story: _Story, sandbox: Any, key: StoredKey) -> None:
    import httpx2

    story.step("Would a signature for one path do for another?")
    headers = key.signer().headers("GET", "/trade-api/v2/portfolio/balance")
    answer = httpx2.get(f"{sandbox.base_url}/api_keys", headers=headers)
    story.report(f"GET /api_keys with the headers of GET /portfolio/balance: {answer.status_code} {answer.text}")


def _rotate(story: _Story, store: KeyStore, name: str, sandbox: Any) -> None:
    from hsm_keys.kalshi.account import Account
    from hsm_keys.lifecycle.rotate import Rotator

    story.step(f"hsm-keys rotate {name}")
    old = store.key(name)
    with _connect(sandbox, old.signer()) as client, _management(sandbox) as management:
        rotator = Rotator(store, Account(management, lambda signer: _connect(sandbox, signer)), story.report)
        rotator.advance(name)
        story.step(f"hsm-keys rotate {name} --finish, while a program still has the old key open")
        rotator.finish(name, keep_old=False)
        with _without_warnings():
            answer = client.request("GET", "/portfolio/balance")
        story.report(
            f"GET /portfolio/balance by it: {answer.status_code}, signed by API key {client.signer.api_key_id}"
        )
