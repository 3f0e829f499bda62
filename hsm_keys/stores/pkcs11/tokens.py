"""Which token: by URI, label, serial or slot. More than one match is an error that lists them."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pkcs11.constants import TokenFlag
from pkcs11.exceptions import TokenNotPresent, TokenNotRecognised

from hsm_keys.errors import StoreAmbiguousError, StoreNotFoundError, UsageError
from hsm_keys.stores.pkcs11.errors import told_as_ours
from hsm_keys.stores.pkcs11.library import find_module
from hsm_keys.stores.pkcs11.module import Module, acquire
from hsm_keys.stores.uri import LibraryVersion, Pkcs11Uri
from hsm_keys.values import describe, may_be_shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "SlotChoice",
    "choose_slot",
    "describe_token",
    "find_token",
    "initialised_tokens",
    "serial_of",
    "token_uri",
    "with_its_module",
]


def serial_of(token: Any) -> str:
    """Return the token's serial number as text; vendors fill the field with ASCII."""
    return bytes(token.serial).decode("ascii", errors="replace")


_NO_PIN: Final = 1000
"""A number below isn't taken for a PIN that was given in the place of a slot's number."""

_MATCHERS: Final[dict[str, Callable[[Any], object]]] = {
    "token": lambda token: token.label,
    "serial": serial_of,
    "manufacturer": lambda token: token.manufacturer_id,
    "model": lambda token: token.model,
    "slot_id": lambda token: token.slot.slot_id,
    "slot_description": lambda token: token.slot.slot_description,
    "slot_manufacturer": lambda token: token.slot.manufacturer_id,
}
"""Path attributes of RFC 7512 that narrow the choice of a token, and what each is compared with."""

_MODULE_MATCHERS: Final[dict[str, Callable[[Any], object]]] = {
    "library_manufacturer": lambda library: library.manufacturer_id,
    "library_description": lambda library: library.library_description,
    "library_version": lambda library: LibraryVersion(*library.library_version),
}
"""Those that say which module is meant."""

_OF_AN_OBJECT: Final = ("object", "type", "id")
"""Those that name an object of a token. What is opened is the token."""


@dataclass(frozen=True, slots=True)
class SlotChoice:
    """The token that ``--slot N`` means.

    Args:
        uri: Names the token by label and serial: slot ids change when tokens come and go.
        description: What people call it.
        others: What people call the other initialised tokens of the module.
    """

    uri: Pkcs11Uri
    description: str
    others: tuple[str, ...]


def with_its_module(uri: Pkcs11Uri) -> Pkcs11Uri:
    """Return the URI of a token with the absolute path of its module: its own, else ``HSM_KEYS_MODULE``, else SoftHSM.

    Raises:
        UsageError: If it names an object, or a module by its name.
        StoreNotFoundError: If there is no such file.
    """
    named = [name for name in _OF_AN_OBJECT if getattr(uri, name) is not None]
    if named:
        raise UsageError(
            f"the PKCS#11 URI names an object of a token ({', '.join(named)}), and the token is what is opened",
            hint=f"leave out {', '.join(named)}, and name the key by its label: --name NAME, or store.key(NAME)",
        )
    if uri.module_name is not None:
        raise UsageError(
            "module-name needs a search path that this tool doesn't have",
            hint="name the module by its file: module-path=/usr/lib/softhsm/libsofthsm2.so",
        )
    return replace(uri, module_path=find_module(uri.module_path or os.environ.get("HSM_KEYS_MODULE") or None))


def describe_token(token: Any) -> str:
    """Return what people call the token."""
    return f'token "{token.label}" (serial {serial_of(token)})'


def token_uri(token: Any, module_path: str) -> Pkcs11Uri:
    """Return the URI that names the token by label and serial."""
    return Pkcs11Uri(token=token.label, serial=serial_of(token) or None, module_path=module_path)


def initialised_tokens(module: Module) -> list[Any]:
    """Return the module's initialised tokens, in the module's own order of slots."""
    tokens = []
    with module.mutex, told_as_ours("list its slots"):
        for slot in module.library.get_slots(token_present=True):
            try:
                token: Any = slot.get_token()
            except (TokenNotPresent, TokenNotRecognised):
                continue
            if token.flags & TokenFlag.TOKEN_INITIALIZED:
                tokens.append(token)
    return tokens


def _listing(tokens: Sequence[Any]) -> str:
    return ", ".join(f"{describe_token(token)} in slot {token.slot.slot_id}" for token in tokens)


def _what_there_is(tokens: Sequence[Any], module: Module) -> str:
    """Return which tokens there are, or how to make the first."""
    if tokens:
        return f"it has {_listing(tokens)}"
    if "softhsm" in module.file.lower():
        return (
            "SoftHSM has no token yet; make one, and choose its two PINs: softhsm2-util --init-token --free --label "
            "kalshi; one that you have is elsewhere if SOFTHSM2_CONF is"
        )
    path = shlex.quote(module.file)
    return (
        "it has no initialised token; make one with the vendor's tool, or: pkcs11-tool "
        f"--module {path} --init-token --label kalshi, and then: pkcs11-tool --module {path} --login --login-type so "
        "--init-pin"
    )


def _said(name: str, value: object) -> str:
    """Return a value that no token has: a label or a serial number is for people to compare."""
    text = str(value)
    return text if name in {"token", "serial"} and may_be_shown(text) else describe(text)


def find_token(module: Module, uri: Pkcs11Uri) -> Any:
    """Return the one token that the URI names.

    Raises:
        StoreNotFoundError: If none matches, or the module is another one than the URI means.
        StoreAmbiguousError: If several do; the message lists them.
    """
    _check_module(module, uri)
    tokens = initialised_tokens(module)
    wanted = {name: getattr(uri, name) for name in _MATCHERS if getattr(uri, name) is not None}
    matches = [token for token in tokens if all(_MATCHERS[name](token) == value for name, value in wanted.items())]
    if len(matches) == 1:
        return matches[0]
    asked = ", ".join(f"{name.replace('_', '-')}={_said(name, value)}" for name, value in wanted.items()) or "any token"
    if not matches:
        raise StoreNotFoundError(f"no token of {uri.module_path} matches {asked}", hint=_what_there_is(tokens, module))
    raise StoreAmbiguousError(
        f"{len(matches)} tokens of {uri.module_path} match {asked}: {_listing(matches)}",
        hint="name one by its serial: pkcs11:serial=...",
    )


def _check_module(module: Module, uri: Pkcs11Uri) -> None:
    for name, said_by in _MODULE_MATCHERS.items():
        wanted, there = getattr(uri, name), said_by(module.library)
        if wanted is not None and wanted != there:
            attribute = name.replace("_", "-")
            raise StoreNotFoundError(
                f"{uri.module_path} isn't the module that the URI means by {attribute}: it says {str(there)!r}",
                hint=f"leave {attribute} out, or name the right module: module-path, --module, HSM_KEYS_MODULE",
            )


def choose_slot(number: int, module_path: str) -> SlotChoice:
    """Return the token that ``--slot N`` means.

    Slot ids are rarely small numbers (SoftHSM makes them up), so N is first the id of a slot that holds an
    initialised token, and else an index, from 0, into the initialised tokens.

    Raises:
        StoreNotFoundError: If there is neither.
    """
    module = acquire(module_path)
    try:
        tokens = initialised_tokens(module)
        chosen = next((token for token in tokens if token.slot.slot_id == number), None)
        if chosen is None and 0 <= number < len(tokens):
            chosen = tokens[number]
        if chosen is None:
            which = f"no slot {number}" if 0 <= number < _NO_PIN else "no slot of that number"
            raise StoreNotFoundError(
                f"{module_path} has {which} with an initialised token", hint=_what_there_is(tokens, module)
            )
        others = tuple(describe_token(token) for token in tokens if token is not chosen)
        return SlotChoice(token_uri(chosen, module_path), describe_token(chosen), others)
    finally:
        module.release()
