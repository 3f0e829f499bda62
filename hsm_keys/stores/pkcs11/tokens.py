"""Finds a token by URI, label, serial or slot. More than one match is an error that lists the tokens.

A token is named by label and serial, since slot ids change when tokens are added or removed. If another token has the
same, model and manufacturer are named too, and if those are the same as well, the slot.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pkcs11.constants import TokenFlag
from pkcs11.exceptions import PKCS11Error, TokenNotPresent, TokenNotRecognised

from hsm_keys.errors import StoreAmbiguousError, StoreNotFoundError, UsageError
from hsm_keys.stores.pkcs11.errors import mapped_errors
from hsm_keys.stores.pkcs11.library import find_module
from hsm_keys.stores.pkcs11.module import Module, acquire_module
from hsm_keys.stores.pkcs11.token_names import describe_token, label_of, serial_of, unpadded
from hsm_keys.stores.uri import LibraryVersion, Pkcs11Uri
from hsm_keys.values import describe, may_be_shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "FoundToken",
    "SlotChoice",
    "all_tokens",
    "choose_slot",
    "find_token",
    "initialised",
    "usable_tokens",
    "with_its_module",
]


_NO_PIN: Final = 1000
"""A number below isn't taken for a PIN that was given in the place of a slot's number."""

_MATCHERS: Final[dict[str, Callable[[Any], object]]] = {
    "token": label_of,
    "serial": serial_of,
    "manufacturer": lambda token: unpadded(token.manufacturer_id),
    "model": lambda token: unpadded(token.model),
    "slot_id": lambda token: token.slot.slot_id,
    "slot_description": lambda token: unpadded(token.slot.slot_description),
    "slot_manufacturer": lambda token: unpadded(token.slot.manufacturer_id),
}
"""Path attributes of RFC 7512 that narrow the choice of a token, and what each is compared with."""

_MODULE_MATCHERS: Final[dict[str, Callable[[Any], object]]] = {
    "library_manufacturer": lambda library: library.manufacturer_id,
    "library_description": lambda library: library.library_description,
    "library_version": lambda library: LibraryVersion(*library.library_version),
}
"""Those that say which module is meant."""

_NAMING: Final = (("token", "serial"), ("token", "serial", "manufacturer", "model"))
"""What names a token: the first that tells it apart from the module's other ones."""

_POINTING: Final = ("token", "serial", "slot_id")
"""Those by which somebody has one token in mind, also if it doesn't say that it is initialised."""

_READY: Final = TokenFlag.TOKEN_INITIALIZED | TokenFlag.USER_PIN_INITIALIZED
"""One that has a user PIN can be used, whether or not its module says that it is initialised."""

_OF_AN_OBJECT: Final = ("object", "type", "id")
"""Those that name an object of a token. What is opened is the token."""


@dataclass(frozen=True, slots=True)
class SlotChoice:
    """The token that ``--slot N`` means.

    Args:
        uri: Names the token.
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
            f"the PKCS#11 URI names an object in a token ({', '.join(named)}), and a store is a whole token",
            hint=f"leave out {', '.join(named)}, and name the key by its label: --name NAME, or store.key(NAME)",
        )
    if uri.module_name is not None:
        raise UsageError(
            "module-name needs a search path, which hsm-keys doesn't have",
            hint="name the module by its file: module-path=/usr/lib/softhsm/libsofthsm2.so",
        )
    return replace(uri, module_path=find_module(uri.module_path or os.environ.get("HSM_KEYS_MODULE") or None))


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A token, and how it is told apart from the others of its module.

    Args:
        token: python-pkcs11's.
        uri: Names it.
    """

    token: Any
    uri: Pkcs11Uri

    @property
    def needs_slot(self) -> bool:
        """Whether nothing but the slot tells it apart from another token."""
        return self.uri.slot_id is not None

    @property
    def description(self) -> str:
        """What people call it."""
        return describe_token(self.token) + (f" in slot {self.uri.slot_id}" if self.needs_slot else "")


def _found(token: Any, tokens: Sequence[Any], module_path: str) -> FoundToken:
    """Return a token of several with the URI that names it and no other one that can be used."""
    others = [other for other in initialised(tokens) if other.slot.slot_id != token.slot.slot_id]
    for naming in (*_NAMING, (*_NAMING[0], "slot_id")):
        named: dict[str, Any] = {name: _MATCHERS[name](token) for name in naming}
        if not any(_fits(other, named) for other in others):
            break
    return FoundToken(
        token, Pkcs11Uri(**{name: value or None for name, value in named.items()}, module_path=module_path)
    )


def _fits(token: Any, wanted: Mapping[str, object]) -> bool:
    return all(_MATCHERS[name](token) == value for name, value in wanted.items())


def all_tokens(module: Module) -> list[Any]:
    """Return the module's tokens, in its own order of slots, without those whose information can't be had."""
    tokens, refusals = [], []
    with module.mutex, mapped_errors("list its slots"):
        for slot in module.library.slots():
            try:
                tokens.append(slot.get_token())
            except (TokenNotPresent, TokenNotRecognised):
                continue
            except PKCS11Error as error:
                refusals.append(error)
        if refusals and not tokens:
            raise refusals[0]
    return tokens


def initialised(tokens: Sequence[Any]) -> list[Any]:
    """Return those that can be used."""
    return [token for token in tokens if token.flags & _READY]


def _listing(tokens: Sequence[Any]) -> str:
    return ", ".join(f"{describe_token(token)} in slot {token.slot.slot_id}" for token in tokens)


def _what_there_is(tokens: Sequence[Any], module: Module) -> str:
    """Return which tokens there are, or how to make the first."""
    if tokens:
        return f"it has {_listing(tokens)}"
    if "softhsm" in module.file.lower():
        return (
            "`hsm-keys init` makes one; or choose its two PINs yourself: softhsm2-util --init-token --free --label "
            "kalshi. If you have one, let SOFTHSM2_CONF name the configuration of SoftHSM that it was made with"
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


def find_token(module: Module, uri: Pkcs11Uri) -> FoundToken:
    """Return the one token that the URI names.

    Raises:
        StoreNotFoundError: If none matches, or the module is another one than the URI means.
        StoreAmbiguousError: If several do; the message lists them.
    """
    _check_module(module, uri)
    tokens = all_tokens(module)
    ready = initialised(tokens)
    wanted = {name: getattr(uri, name) for name in _MATCHERS if getattr(uri, name) is not None}
    matches = [token for token in ready if _fits(token, wanted)]
    if not matches and any(wanted.get(name) for name in _POINTING):
        matches = [token for token in tokens if _fits(token, wanted) and _is_named(token)]
    if len(matches) == 1:
        return _found(matches[0], tokens, str(uri.module_path))
    criteria = ", ".join(f"{name.replace('_', '-')}={_said(name, value)}" for name, value in wanted.items())
    if not matches:
        raise StoreNotFoundError(
            f"no token of {uri.module_path} matches {criteria}" if criteria else f"{uri.module_path} has no token yet",
            hint=_what_there_is(ready, module),
        )
    first = _found(matches[0], tokens, str(uri.module_path))
    by = "its slot: --slot N, or pkcs11:slot-id=N" if first.needs_slot else "its serial: pkcs11:serial=..."
    raise StoreAmbiguousError(
        f"{len(matches)} tokens of {uri.module_path} match {criteria or 'the URI'}: {_listing(matches)}",
        hint=f"name one by {by}",
    )


def _is_named(token: Any) -> bool:
    """Tell whether a token has been given a name; an empty slot of SoftHSM shows one without."""
    return bool(label_of(token) or serial_of(token))


def _check_module(module: Module, uri: Pkcs11Uri) -> None:
    for name, said_by in _MODULE_MATCHERS.items():
        wanted, there = getattr(uri, name), said_by(module.library)
        if wanted is not None and wanted != there:
            attribute = name.replace("_", "-")
            raise StoreNotFoundError(
                f"{uri.module_path} doesn't match the URI's {attribute}: the module says {str(there)!r}",
                hint=f"leave {attribute} out, or name the right module: module-path, --module, HSM_KEYS_MODULE",
            )


def usable_tokens(module_path: str) -> list[tuple[Pkcs11Uri, str]]:
    """Return the initialised tokens of a module: the URI that names each, and what people call it.

    Raises:
        StoreError: If the module can't be used.
    """
    module = acquire_module(module_path)
    try:
        tokens = all_tokens(module)
        candidates = [_found(token, tokens, module_path) for token in initialised(tokens)]
        return [(each.uri, each.description) for each in candidates]
    finally:
        module.release()


def choose_slot(number: int, module_path: str) -> SlotChoice:
    """Return the token that ``--slot N`` means.

    Slot ids are rarely small numbers (SoftHSM makes them up), so N is first the id of a slot that holds an
    initialised token, and else an index, from 0, into the initialised tokens.

    Raises:
        StoreNotFoundError: If there is neither.
    """
    module = acquire_module(module_path)
    try:
        tokens = all_tokens(module)
        ready = initialised(tokens)
        named = [token for token in (*ready, *filter(_is_named, tokens)) if token.slot.slot_id == number]
        if not named and 0 <= number < len(ready):
            named = [ready[number]]
        if not named:
            which = f"no slot {number}" if 0 <= number < _NO_PIN else "no slot of that number"
            raise StoreNotFoundError(
                f"{module_path} has {which} with an initialised token", hint=_what_there_is(ready, module)
            )
        chosen = _found(named[0], tokens, module_path)
        others = tuple(
            _found(token, tokens, module_path).description
            for token in ready
            if token.slot.slot_id != chosen.token.slot.slot_id
        )
        return SlotChoice(chosen.uri, chosen.description, others)
    finally:
        module.release()
