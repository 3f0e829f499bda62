"""The order in which settings are taken (option, variable, profile, default), and the source of each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from hsm_keys.profiles.fields import OF_BACKENDS, holds_secret
from hsm_keys.stores import backends
from hsm_keys.values import describe, may_be_shown, shown_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.profiles.file import Profile
    from hsm_keys.stores.backend import Backend

__all__ = ["Origin", "Setting", "settings_in_order"]


class Origin(StrEnum):
    """Where a setting came from; the earlier counts."""

    OPTION = "option"
    VARIABLE = "variable"
    PROFILE = "profile"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """What counts.

    Args:
        name: The setting's name.
        value: Its value; described where it is or may be a secret.
        origin: Where it came from.
        by: The option, the variable, or the field of the profile; empty for a default.
    """

    name: str
    value: str
    origin: Origin
    by: str = ""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where a setting may come from, the first that is there first.

    Args:
        name: Its name.
        options: Options, which are called as their attributes in the settings are.
        variables: Variables of the environment; an empty one counts as left out.
        fields: Fields of a profile.
        default: What counts otherwise, in words.
    """

    name: str
    options: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    default: str = "none"


_NAMING: Final = tuple(option.flag for backend in backends() for option in backend.options if option.names_store)
_STORE: Final = _Kind("store", ("--store", *_NAMING), ("HSM_KEYS_STORE",), ("store",), "the one token of the module")
_GOES_WITH_STORE: Final = frozenset({*OF_BACKENDS, "api-key-id"})
"""A profile has them for its own store: another token is never tried with its PIN."""

_OF_BACKENDS: Final = tuple(
    _Kind(
        option.setting,
        (option.flag,),
        option.variables,
        (option.field,) if option.uri_attribute else (),
        option.default,
    )
    for backend in backends()
    for option in backend.options
    if option.setting
)

_LONGEST_NUMBER: Final = 3
_SECRET: Final = frozenset({"HSM_KEYS_PIN"})


def _kinds(exchange: str | None) -> tuple[_Kind, ...]:
    perps = "KALSHI_PERPS_" if exchange else "KALSHI_"
    bases = ("KALSHI_PERPS_API_BASE_URL", "KALSHI_PERPS_DEMO") if exchange else ()
    return (
        _STORE,
        *_OF_BACKENDS,
        _Kind(
            "environment",
            ("--base-url", "--env"),
            (*bases, "KALSHI_API_BASE_URL", "KALSHI_DEMO"),
            ("base-url", "env"),
            "prod",
        ),
        _Kind("websocket", ("--ws-url",), ("KALSHI_WS_URL",), ("ws-url",), "the environment's"),
        _Kind("exchange", ("--exchange",), (), ("exchange",), "event contracts"),
        _Kind("policy", (), (), ("policy",), "none"),
        _Kind("api-key-id", (), (), ("api-key-id",), "the one beside the key in its store"),
        _Kind("bootstrap key", (), (f"{perps}KEY_ID",), (), "none"),
    )


def settings_in_order(
    options: Mapping[str, str], profile: Profile | None, env: Mapping[str, str] = os.environ
) -> list[Setting]:
    """Return each setting with where it comes from.

    Args:
        options: The options that were given, such as ``--slot``, with their values.
        profile: The profile that counts.
        env: The environment's variables.
    """
    fields = dict(profile.fields) if profile else {}
    store = fields.get("store")
    if store is not None and (_another_back_end(options, store) or _first(_STORE, options, env)):
        fields = {name: value for name, value in fields.items() if name != "store" and name not in _GOES_WITH_STORE}
    elif store is None:
        fields = {name: value for name, value in fields.items() if _may_be_used(name, options, env)}
    exchange = options.get("--exchange") or fields.get("exchange")
    return [_setting(kind, options, env, fields) for kind in _kinds(exchange)]


def _another_back_end(options: Mapping[str, str], store: str) -> bool:
    """Tell whether options mean another back-end than a profile's store is of."""
    return any(_means(options, backend) for backend in backends() if not backend.has(store))


def _means(options: Mapping[str, str], backend: Backend) -> bool:
    return any(option.flag in options for option in backend.options)


def _may_be_used(field: str, options: Mapping[str, str], env: Mapping[str, str]) -> bool:
    """Tell whether a field of a profile without a store goes with the store that counts."""
    if field not in OF_BACKENDS:
        return True
    owner, _ = OF_BACKENDS[field]
    if any(_means(options, backend) for backend in backends() if backend is not owner):
        return False
    if any(option.flag in options for option in owner.options if option.names_store):
        return True
    named = options.get("--store") or env.get("HSM_KEYS_STORE", "")
    return owner.has(named) if named else owner is backends()[0]


def _first(kind: _Kind, options: Mapping[str, str], env: Mapping[str, str]) -> tuple[Origin, str, str] | None:
    for option in kind.options:
        if option in options:
            return Origin.OPTION, option, options[option]
    for variable in kind.variables:
        if env.get(variable, "").strip():
            return Origin.VARIABLE, variable, "hidden" if variable in _SECRET else env[variable]
    return None


def _setting(kind: _Kind, options: Mapping[str, str], env: Mapping[str, str], fields: Mapping[str, str]) -> Setting:
    first = _first(kind, options, env)
    if first is not None:
        origin, by, value = first
        shown = shown_path(value) if value != "hidden" and kind in _OF_BACKENDS and kind.fields else _safe(value)
        return Setting(kind.name, shown, origin, by)
    for field in kind.fields:
        if field in fields:
            return Setting(kind.name, fields[field], Origin.PROFILE, field)
    return Setting(kind.name, kind.default, Origin.DEFAULT)


def _safe(value: str) -> str:
    """Return a value as it may be printed: nobody has checked what an option or a variable holds."""
    structured = value.startswith(("/", "~/", "./")) or ":" in value
    plain = value.isprintable() and not holds_secret(value) if structured else may_be_shown(value)
    # Slots and switches are shorter numbers; a longer one may be a PIN.
    return value if plain and not (value.isdecimal() and len(value) > _LONGEST_NUMBER) else describe(value)
