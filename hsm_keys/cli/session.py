"""From options and environment to an open store and a signed client."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.output import Voice
from hsm_keys.errors import KeyNotRegisteredError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.cli.options import Settings
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["connector", "management_client", "opened_store", "speaking"]


@contextmanager
def speaking(settings: Settings) -> Iterator[Voice]:
    """Give a voice for people's words; what it held back is said when the command has succeeded."""
    voice = Voice(hold=settings.as_json)
    yield voice
    voice.release()


@contextmanager
def opened_store(settings: Settings, say: Callable[[str], None]) -> Iterator[KeyStore]:
    """Open the store that options and environment name, and close it after the command."""
    from hsm_keys.stores import open_store

    _hear_warnings(say)
    pin_file = Path(settings.pin_file) if settings.pin_file else None
    ask_pin = _ask_secret if sys.stdin.isatty() else None
    with open_store(_store_uri(settings, say), pin_file=pin_file, ask_pin=ask_pin) as store:
        yield store


def _hear_warnings(say: Callable[[str], None]) -> None:
    """Pass the library's warnings on, such as that of a PIN file that others can read."""
    import logging

    class _Saying(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"{record.levelname.lower()}: {record.getMessage()}")

    logging.getLogger("hsm_keys").addHandler(_Saying())


def _ask_secret(prompt: str) -> str:
    answer: str = click.prompt(prompt, hide_input=True, err=True, prompt_suffix=": ")
    return answer


def _store_uri(settings: Settings, say: Callable[[str], None]) -> str:
    """Return the URI of the store: one of --store, --slot and --token, else HSM_KEYS_STORE, else the module."""
    given = {
        "--store": settings.store,
        "--slot": settings.slot,
        "--token": settings.token,
    }
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} both name a store", hint="give one of them")
    if settings.store is not None:
        return _checked_uri(settings.store, settings.module)
    if not named and os.environ.get("HSM_KEYS_STORE"):
        return os.environ["HSM_KEYS_STORE"]
    return _uri_in_module(settings, say)


def _uri_in_module(settings: Settings, say: Callable[[str], None]) -> str:
    from hsm_keys.stores.pkcs11.module import find_module
    from hsm_keys.stores.pkcs11.tokens import choose_slot
    from hsm_keys.stores.uri import Pkcs11Uri

    module_path = find_module(settings.module or os.environ.get("HSM_KEYS_MODULE"))
    if settings.slot is None:
        return str(Pkcs11Uri(token=settings.token, module_path=module_path))
    choice = choose_slot(settings.slot, module_path)
    say(f"slot {settings.slot} is {choice.description}")
    if choice.others:
        say(f"warning: slot numbers change when tokens come and go; this module also has {', '.join(choice.others)}")
    return str(choice.uri)


def _checked_uri(uri: str, module: str | None) -> str:
    """Return a URI from the command line, with --module worked in; a PIN in it is refused, it is in argv."""
    if not uri.lower().startswith("pkcs11:"):
        if module is not None:
            raise UsageError("--module goes with PKCS#11 tokens, and --store names another kind of store")
        return uri
    from dataclasses import replace

    from hsm_keys.stores.uri import Pkcs11Uri

    parsed = Pkcs11Uri.parse(uri)
    if parsed.pin_value is not None:
        raise UsageError(
            "a pin-value on the command line shows in every process list; nothing was opened",
            hint="use --pin-file, pin-source=file:/path in the URI, HSM_KEYS_PIN_FILE, or the prompt",
        )
    if module is None:
        return uri
    if parsed.module_path not in {None, module}:
        raise UsageError("--module and the URI's module-path name different modules", hint="give one of them")
    return str(replace(parsed, module_path=module))


def connector(settings: Settings) -> Callable[[RequestSigner], KalshiClient]:
    """Return what makes a client of the chosen environment for a signer.

    Raises:
        UsageError: If the base URL can't be one.
    """
    import stamina

    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.kalshi.environments import resolve

    stamina.instrumentation.set_on_retry_hooks([])  # a second try at a GET is no news for a terminal
    base_url = resolve(base_url=settings.base_url, environment=settings.env)
    return lambda signer: KalshiClient(signer, base_url=base_url)


def management_signer(store: KeyStore, auth: str | None, say: Callable[[str], None]) -> RequestSigner | None:
    """Return what signs management calls: --auth, else the bootstrap key, else a registered key of the store.

    Returns:
        The signer; None if there is no key at all.
    """
    from hsm_keys.kalshi.bootstrap import bootstrap_key_from_env
    from hsm_keys.signing.signer import RequestSigner

    if auth is not None:
        return store.key(auth).signer()
    bootstrap = bootstrap_key_from_env(ask_passphrase=_ask_secret if sys.stdin.isatty() else None)
    if bootstrap is not None:
        return RequestSigner(bootstrap)
    registered: list[StoredKey] = [key for key in store.keys() if key.api_key_id is not None]
    if not registered:
        return None
    say(f"management calls are signed with the key {registered[0].name!r} of the store (--auth chooses another)")
    return registered[0].signer()


@contextmanager
def management_client(
    connect: Callable[[RequestSigner], KalshiClient], store: KeyStore, auth: str | None, say: Callable[[str], None]
) -> Iterator[KalshiClient]:
    """Give a client that signs management calls.

    Raises:
        KeyNotRegisteredError: If there is no key that could.
    """
    signer = management_signer(store, auth, say)
    if signer is None:
        raise KeyNotRegisteredError(
            "there is no key to sign management calls with: neither a bootstrap key nor a registered one in the store",
            hint="set KALSHI_KEY_ID and KALSHI_PRIVATE_KEY_PATH, or use --offline and paste the public key on "
            "Kalshi's account page",
        )
    with connect(signer) as client:
        yield client
