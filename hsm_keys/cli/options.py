"""The options that every command shares, taken before and after the command."""

from __future__ import annotations

import os
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from hsm_keys.cli.completing import complete_key_names, complete_profiles, complete_scopes
from hsm_keys.cli.help_pages import SharedOption, show_shared_options
from hsm_keys.cli.settings import Settings
from hsm_keys.errors import UsageError
from hsm_keys.stores import backends
from hsm_keys.values import describe, may_be_shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.stores.backend import Option
    from hsm_keys.stores.policies import PrintsPolicies

__all__ = [
    "api_key_id_option",
    "auth_option",
    "check_new_key",
    "check_printable_name",
    "creation_options",
    "given_options",
    "key_name",
    "new_key_options",
    "output_option",
    "policy_options",
    "rights_options",
    "secret_files",
    "settings_options",
    "shared_options",
    "signing_key_options",
]

_F = TypeVar("_F", bound="Callable[..., Any]")


def given_options(settings: Settings) -> dict[str, str]:
    """Return the options that were given, such as ``--pin-file``, with their values."""
    offered = {
        option.flag: settings.store_options.get(option.name) for backend in backends() for option in backend.options
    }
    values: dict[str, object] = {
        "--store": " ".join(settings.stores) or None,
        **offered,
        "--base-url": settings.base_url,
        "--env": settings.env,
        "--ws-url": settings.ws_url,
        "--exchange": settings.exchange,
    }
    return {option: str(value) for option, value in values.items() if value is not None}


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep a given value in the settings; what stands after the command overrides what stands before it."""
    settings = ctx.ensure_object(Settings)
    if value not in (None, ()) and param.name is not None:
        _check_url(param.name, value)
        setattr(settings, param.name, value)


def _check_url(name: str, value: Any) -> None:
    """Refuse what can't be a URL of Kalshi's, also where the command asks nobody."""
    if name not in {"base_url", "ws_url"}:
        return
    from hsm_keys.signing.environments import check_websocket_url, resolve

    if name == "base_url":
        resolve(base_url=value)
    else:
        check_websocket_url(value)


def _offered(option: Option, mapping: str, cls: type[click.Option] = click.Option) -> Callable[[_F], _F]:
    """Return what adds an option of a back-end, and keeps its value in a mapping of the settings."""

    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:  # noqa: ARG001 - click's signature
        if value not in (None, ()):
            getattr(ctx.ensure_object(Settings), mapping)[option.name] = value

    attributes: dict[str, Any] = {"metavar": option.metavar} if option.metavar else {}
    attributes |= {"is_flag": True, "default": None} if option.kind is bool else {"type": option.kind}
    return click.option(
        option.flag,
        cls=cls,
        expose_value=False,
        callback=remember,
        multiple=option.multiple,
        help=" ".join([option.help, *(f"[{variable}]" for variable in option.variables[:1])]),
        **attributes,
    )


def _shared(*names: str, cls: type[click.Option] = SharedOption, **attributes: Any) -> Callable[[_F], _F]:
    return click.option(*names, cls=cls, expose_value=False, callback=_remember, **attributes)


_SHARED = (
    _shared(
        "--store",
        "stores",
        multiple=True,
        metavar="URI",
        help="Where the keys live: pkcs11:token=...?module-path=... [HSM_KEYS_STORE] "
        "For list, reconcile and custody it can be repeated.",
    ),
    *(_offered(option, "store_options", SharedOption) for backend in backends() for option in backend.options),
    _shared(
        "--profile",
        metavar="NAME",
        shell_complete=complete_profiles,
        help="Take the settings with this name from config.toml. [HSM_KEYS_PROFILE]",
    ),
    _shared("--env", type=click.Choice(["prod", "demo"]), help="Kalshi's environment. [KALSHI_DEMO]"),
    _shared("--base-url", metavar="URL", help="Kalshi's base URL. [KALSHI_API_BASE_URL]"),
    _shared("--ws-url", metavar="URL", help="The WebSocket's URL, if --base-url isn't enough. [KALSHI_WS_URL]"),
    _shared(
        "--exchange",
        type=click.Choice(["perps"]),
        help="perps: perpetual futures, which have API keys of their own. [KALSHI_PERPS_KEY_ID, ...]",
    ),
)


_verbose = _shared(
    "-v",
    "--verbose",
    cls=click.Option,
    is_flag=True,
    default=None,
    help="Print each request to the store and Kalshi.",
)

_help_store = click.option(
    "--help-store",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_shared_options,
    help="Show the options for the store and the environment, and exit.",
)


def _output(*choices: str) -> Callable[[_F], _F]:
    return _shared("--output", cls=click.Option, type=click.Choice(choices), help="How to print the result.")


output_option = _output("table", "json")
"""Adds ``--output`` alone, for commands that need neither a store nor Kalshi."""


def shared_options(*outputs: str) -> Callable[[_F], _F]:
    """Return what adds the store and environment options to a command, and ``--output`` with these choices."""

    def add(function: _F) -> _F:
        for option in reversed((*_SHARED, _output(*outputs), _verbose, _help_store)):
            function = option(function)
        return function

    return add


settings_options = shared_options("table", "json")
"""Adds the options that nearly every command shares: ``table`` is for people, ``json`` for programs."""


def creation_options(function: _F) -> _F:
    """Add what back-ends take for making keys."""
    offered = [option for backend in backends() for option in backend.creation_options]
    for option in reversed(offered):
        function = _offered(option, "creation_options")(function)
    return function


def policy_options(backend: PrintsPolicies) -> Callable[[_F], _F]:
    """Return what adds the options that a back-end takes for its policies."""

    def add(function: _F) -> _F:
        for option in reversed(backend.policy_options):
            function = _offered(option, "store_options")(function)
        return function

    return add


def secret_files(settings: Settings) -> list[str]:
    """Return the paths from which a store would read a secret: those of options, else of their variables."""
    paths = [
        settings.store_options.get(option.name) or os.environ.get(option.variables[0])
        for backend in backends()
        for option in backend.options
        if option.is_secret_file
    ]
    return [path for path in paths if path]


def auth_option(function: _F) -> _F:
    """Add ``--auth``: which key of the store signs management calls."""
    return click.option(
        "--auth",
        metavar="NAME",
        shell_complete=complete_key_names,
        help="The store's key that signs management calls, instead of KALSHI_KEY_ID.",
    )(function)


def rights_options(otherwise: str) -> Callable[[_F], _F]:
    """Return what adds ``--scope`` and ``--subaccount``: what a new API key may do.

    Args:
        otherwise: What it may do where they are left out; a sentence.
    """
    scope = click.option(
        "--scope",
        "scopes",
        multiple=True,
        metavar="S",
        shell_complete=complete_scopes,
        help=f"What the API key may do, such as read or write::trade; can be repeated. {otherwise}",
    )
    subaccount = click.option(
        "--subaccount", type=int, metavar="N", help="Restrict the API key to one subaccount, 0 to 63."
    )
    return lambda function: scope(subaccount(function))


def new_key_options(function: _F) -> _F:
    """Add ``--scope``, ``--subaccount`` and ``--auth``: what a new API key may do, and who asks for it."""
    rights = rights_options("Left out, Kalshi grants read and write, transfers included.")
    return rights(auth_option(function))


def check_new_key(name: str, scopes: Sequence[str] = (), subaccount: int | None = None) -> None:
    """Refuse what a new key can't be called or be allowed, before anything is looked for.

    Raises:
        UsageError: If the name, a scope or the subaccount can't be.
    """
    from hsm_keys.kalshi.api_keys import new_key_fields
    from hsm_keys.stores.key_names import check_new_name

    check_new_name(name)
    new_key_fields(name, list(scopes) or None, subaccount)


def _checked_id(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    from hsm_keys.signing.api_key_ids import check_api_key_id

    return check_api_key_id(value)


def api_key_id_option(function: _F) -> _F:
    """Add ``--api-key-id``, for keys whose store can't hold the id; a bad one is refused at once."""
    return click.option(
        "--api-key-id", metavar="ID", callback=_checked_id, help="The API key id, where the store can't hold it."
    )(function)


def check_printable_name(name: str | None) -> None:
    """Refuse a name that will be printed and has the form of a secret.

    Raises:
        UsageError: If it has.
    """
    if name is not None and not may_be_shown(name):
        raise UsageError(f"{describe(name)} is no name for a key", hint="give the key's name, such as prod")


def key_name(what: str, *, metavar: str = "NAME", required: bool = True) -> Callable[[_F], _F]:
    """Return what adds a key's name to a command, as the argument NAME and as ``--name``: either will do.

    Args:
        what: What the key is to the command, for its help.
        metavar: What the argument is called.
        required: Whether one of them has to be given; else the function gets None for none.
    """

    def add(function: _F) -> _F:
        @wraps(function)
        def call(*args: Any, name_argument: str | None, name_option: str | None, **given: Any) -> Any:
            return function(*args, name=_one_name(name_argument, name_option, metavar, required=required), **given)

        option = click.option("--name", "name_option", metavar=metavar, help=what, shell_complete=complete_key_names)
        argument = click.argument(
            "name_argument",
            required=False,
            metavar=metavar if required else f"[{metavar}]",
            shell_complete=complete_key_names,
        )
        return cast("_F", argument(option(call)))

    return add


def _one_name(argument: str | None, option: str | None, metavar: str, *, required: bool) -> str | None:
    if argument is not None and option is not None and argument != option:
        raise click.UsageError(f"{metavar} and --name say two names: give one of them.", click.get_current_context())
    name = option if argument is None else argument
    if name == "":
        raise click.UsageError(f"{metavar} is an empty text: give the key's name.", click.get_current_context())
    if name is None and required:
        raise click.UsageError(f"Missing the key's name: give {metavar} or --name.", click.get_current_context())
    return name


def signing_key_options(function: _F) -> _F:
    """Add the name and ``--api-key-id``: the key that signs."""
    return key_name("The key that signs.")(api_key_id_option(function))
