"""From options and environment to an open store and a signed client."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.output import Reporter
from hsm_keys.cli.store_uri import store_uri, store_uris
from hsm_keys.errors import KeyNotFoundError, KeyNotRegisteredError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hsm_keys.cli.settings import Settings
    from hsm_keys.kalshi.account import Account
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.lifecycle.managing import Manager
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = [
    "Connector",
    "account_to_look_at",
    "bootstrap_signer",
    "connector",
    "is_environment_named",
    "kalshi_base_url",
    "management_client",
    "management_signer",
    "no_manager",
    "opened_store",
    "opened_stores",
    "reporting",
    "signing_key",
]


@contextmanager
def reporting(settings: Settings) -> Iterator[Reporter]:
    """Give a voice for people's words; what it held back is said when the command has succeeded.

    With ``--verbose`` it says what is asked of the store and of Kalshi, too.
    """
    reporter = Reporter(hold=settings.as_json)
    if settings.verbose:
        _report_requests(reporter)
    yield reporter
    reporter.release()


@contextmanager
def opened_store(
    settings: Settings, report: Callable[[str], None], *, asks: bool = True, isolated: bool = False
) -> Iterator[KeyStore]:
    """Open the store that options and environment name, and close it after the command.

    Args:
        settings: The shared options.
        report: Hears what people should know.
        asks: Whether somebody at a terminal may be asked for a PIN.
        isolated: Sign in a process of its own; such a store changes no keys.
    """
    _report_warnings(report)
    with _open(settings, store_uri(settings, report), asks=asks, isolated=isolated) as store:
        yield store


@contextmanager
def opened_stores(settings: Settings, report: Callable[[str], None]) -> Iterator[list[KeyStore]]:
    """Open the stores that options and environment name, one or several, and close them after the command.

    Args:
        settings: The shared options.
        report: Hears what people should know.

    Raises:
        UsageError: If a store is named twice, or a further token has no pin-source.
    """
    from hsm_keys.stores import open_store

    first, *further = store_uris(settings, report)
    _report_warnings(report)
    with ExitStack() as opened:
        stores = [opened.enter_context(_open(settings, first))]
        for uri in further:
            store = opened.enter_context(open_store(uri, ask_pin=_ask_secret if sys.stdin.isatty() else None))
            if store.uri in {other.uri for other in stores}:
                raise UsageError(f"{store.describe()} is given twice", hint="leave one --store out")
            stores.append(store)
        yield stores


def _open(settings: Settings, uri: str, *, asks: bool = True, isolated: bool = False) -> KeyStore:
    from hsm_keys.stores import backend_of, open_store

    ask = _ask_secret if asks and sys.stdin.isatty() else None
    if isolated:
        pin_file, force_pin = (settings.store_options.get(name) for name in ("pin_file", "force_pin"))
        given = Path(pin_file) if pin_file else None
        return open_store(uri, pin_file=given, ask_pin=ask, force_pin=bool(force_pin), isolated=True)
    return backend_of(uri).open(uri, settings.store_options, ask, settings.creation_options)


def _report_warnings(report: Callable[[str], None]) -> None:
    """Pass the library's warnings on, such as that of a PIN file that others can read."""
    import logging

    from hsm_keys.logs import LineHandler

    logging.getLogger("hsm_keys").addHandler(LineHandler(report))


def _report_requests(report: Callable[[str], None]) -> None:
    import logging

    from hsm_keys.logs import LOG

    class _Asked(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report(f"  {record.getMessage()}")

    LOG.setLevel(logging.DEBUG)
    LOG.propagate = False
    LOG.addHandler(_Asked())


def _ask_secret(prompt: str) -> str:
    # An empty answer is an answer: some tokens have an empty PIN.
    answer: str = click.prompt(prompt, default="", show_default=False, hide_input=True, err=True, prompt_suffix=": ")
    return answer


def kalshi_base_url(settings: Settings) -> str:
    """Return the base URL of the chosen environment.

    Raises:
        UsageError: If it can't be one, or two options contradict each other.
    """
    from hsm_keys.signing.environments import check_websocket_url, resolve

    if settings.base_url is not None and settings.env is not None:
        raise UsageError("--env and --base-url both name an environment", hint="give one of them")
    check_websocket_url(settings.ws_url)
    return resolve(base_url=settings.base_url, environment=settings.env, exchange=settings.exchange)


def is_environment_named(settings: Settings) -> bool:
    """Tell whether an option, a profile or a variable names the environment, rather than that production is taken."""
    from hsm_keys.signing.environments import is_named

    return is_named(base_url=settings.base_url, environment=settings.env, exchange=settings.exchange)


def connector(settings: Settings) -> Connector:
    """Return what makes a client of the chosen environment for a signer.

    Raises:
        UsageError: If the base URL can't be one, or two options contradict each other.
    """
    import stamina

    base_url = kalshi_base_url(settings)
    stamina.instrumentation.set_on_retry_hooks([])  # a second try of a GET isn't worth a message
    return Connector(base_url, settings.exchange)


@dataclass(frozen=True, slots=True)
class Connector:
    """Makes clients of one environment.

    Args:
        base_url: Kalshi's.
        exchange: ``perps``, or None for the other one.
    """

    base_url: str
    exchange: str | None

    def __call__(self, signer: RequestSigner) -> KalshiClient:
        """Return a client for a signer.

        Raises:
            WrongEnvironmentError: If the signer's key belongs to another environment.
        """
        from hsm_keys.kalshi.client import KalshiClient

        return KalshiClient(signer, base_url=self.base_url, exchange=self.exchange)

    @property
    def environment(self) -> str:
        """The name of the environment, as stores keep it beside a key."""
        from hsm_keys.signing.environments import environment_name

        return environment_name(self.base_url, exchange=self.exchange)


def bootstrap_signer(exchange: str | None) -> RequestSigner | None:
    """Return what signs with the bootstrap key of the environment, for an exchange; None if there is none."""
    from hsm_keys.kalshi.bootstrap import bootstrap_key_from_env
    from hsm_keys.signing.signer import RequestSigner

    ask = _ask_secret if sys.stdin.isatty() else None
    key = bootstrap_key_from_env(exchange=exchange, ask_passphrase=ask)
    return None if key is None else RequestSigner(key)


def signing_key(store: KeyStore, name: str, settings: Settings, api_key_id: str | None = None) -> RequestSigner:
    """Return what signs with a key of the store, for the environment that options and variables choose.

    Args:
        store: The open store.
        name: The key's name.
        settings: The shared options.
        api_key_id: The API key id to sign for, instead of the key's own; where neither is there, a profile's.

    Raises:
        WrongEnvironmentError: If the key's own API key belongs to another environment.
    """
    from hsm_keys.signing.environments import check_environment

    key = store.key(name)
    signer = key.signer(api_key_id=api_key_id or (None if key.api_key_id else settings.api_key_id))
    check_environment(name, signer.environment, connector(settings).environment)
    return signer


def management_signer(
    connect: Connector,
    stores: Sequence[KeyStore],
    auth: str | None,
    report: Callable[[str], None],
    *,
    prefer: str | None = None,
    avoid: str | None = None,
) -> RequestSigner | None:
    """Return what signs calls that make or delete API keys: --auth, else the bootstrap key, else a key of the stores.

    Args:
        connect: Makes clients of the environment.
        stores: The open stores.
        auth: What --auth named.
        report: Hears which key of the stores was taken.
        prefer: The key of the stores to take before others.
        avoid: The key of the stores, or its API key id, to take after all others.

    Returns:
        The signer; None if there is no key at all for this environment.

    Raises:
        KeyProblemError: If there are keys, and none of them can do it, or --auth names none.
    """
    named = _signer_by_name(connect, stores, auth)
    if named is not None:
        return named
    manager = _manager(connect, stores, report, changes=True, prefer=prefer, avoid=avoid)
    return manager.key.signer() if manager else None


def _signer_by_name(connect: Connector, stores: Sequence[KeyStore], auth: str | None) -> RequestSigner | None:
    return bootstrap_signer(connect.exchange) if auth is None else _signer_of(_named(stores, auth))


def _signer_of(key: StoredKey) -> RequestSigner:
    """Return what signs management calls with a key that --auth names; no option says another API key id for it."""
    from hsm_keys.stores.ownership import how_to_adopt

    try:
        return key.signer()
    except KeyNotRegisteredError as error:
        if not key.ours:
            error.amend(hint=f"bind the id to it: {how_to_adopt(key)}")
        raise


def _manager(
    connect: Connector,
    stores: Sequence[KeyStore],
    report: Callable[[str], None],
    *,
    changes: bool,
    prefer: str | None = None,
    avoid: str | None = None,
) -> Manager | None:
    from hsm_keys.lifecycle.managing import find_manager

    keys = [key for store in stores for key in store.keys()]
    manager = find_manager(keys, connect, connect.environment, changes=changes, prefer=prefer, avoid=avoid)
    if manager is not None:
        name = manager.key.name
        report(f"management calls are signed with the key {name!r} of the store (--auth chooses another)")
    return manager


def _named(stores: Sequence[KeyStore], name: str) -> StoredKey:
    """Return the key of that name in the first store that has one."""
    *others, last = stores
    for store in others:
        with suppress(KeyNotFoundError):
            return store.key(name)
    return last.key(name)


@contextmanager
def management_client(
    connect: Connector,
    stores: Sequence[KeyStore],
    auth: str | None,
    report: Callable[[str], None],
    *,
    prefer: str | None = None,
    avoid: str | None = None,
) -> Iterator[KalshiClient]:
    """Give a client that makes and deletes API keys; the arguments are those of ``management_signer``.

    Raises:
        KeyNotRegisteredError: If there is no key that could.
        KeyProblemError: If there are keys, and none of them can.
        WrongEnvironmentError: If --auth names a key of another environment.
    """
    signer = management_signer(connect, stores, auth, report, prefer=prefer, avoid=avoid)
    if signer is None:
        raise no_manager(connect, stores)
    with connect(signer) as client:
        yield client


@contextmanager
def account_to_look_at(
    connect: Connector, stores: Sequence[KeyStore], auth: str | None, report: Callable[[str], None]
) -> Iterator[Account | None]:
    """Give the account, to list its API keys; None if there is no key at all to ask Kalshi with.

    Args:
        connect: Makes clients of the environment.
        stores: The open stores.
        auth: What --auth named.
        report: Hears which key of the stores was taken.

    Raises:
        KeyProblemError: If there are keys, and none of them can list, or --auth names none.
        WrongEnvironmentError: If --auth names a key of another environment.
    """
    from hsm_keys.kalshi.account import Account

    signer, answer = _signer_by_name(connect, stores, auth), None
    if signer is None:
        manager = _manager(connect, stores, report, changes=False)
        if manager is None:
            yield None
            return
        signer, answer = manager.key.signer(), manager.answer
    with connect(signer) as client:
        yield Account(client, connect, answer)


def no_manager(connect: Connector, stores: Sequence[KeyStore]) -> KeyNotRegisteredError:
    """Return the error that there is no key to sign management calls with; it names the environments of those there."""
    from hsm_keys.kalshi.bootstrap_variables import bootstrap_variables

    message = (
        "there is no key to sign management calls with: neither a bootstrap key nor one in the store that is "
        f"registered in the environment {connect.environment} and isn't about to be deleted"
    )
    variables = bootstrap_variables(connect.environment).to_set
    environments = {key.environment for store in stores for key in store.keys() if key.environment}
    others = sorted(environments - {connect.environment})
    if others:
        return KeyNotRegisteredError(
            f"{message}; the store's keys belong to {' and '.join(others)}",
            hint=f"point the command at their environment with --env or --base-url, or set {variables}",
        )
    return KeyNotRegisteredError(
        message,
        hint=f"set {variables}, or begin with `hsm-keys enroll NAME --offline` and paste the public key on Kalshi's "
        "account page",
    )
