"""Which keys of a store are ours to change, and the errors for the others.

A store may hold keys of other programs. A key that isn't ours signs if an API key id is given, and is never ended,
renamed or bound; only ``adopt`` makes such a key ours.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from hsm_keys.errors import ForeignKeyError, KeyBusyError

if TYPE_CHECKING:
    from hsm_keys.stores.base import KeyStore, StoredKey
    from hsm_keys.stores.marks import Mark

__all__ = [
    "check_not_registered_since",
    "check_ours",
    "how_to_adopt",
    "name_in_use",
    "not_ours",
    "ours",
    "renamed_meanwhile",
    "why_not_ours",
]


def renamed_meanwhile(name: str, where: str) -> KeyBusyError:
    """Return the error for a key that somebody else has given another name."""
    return KeyBusyError(
        f"somebody else has given the key {name!r} in {where} another name meanwhile; the key wasn't changed",
        hint="look with `hsm-keys list`, then run the same command again",
    )


def ours(store: KeyStore) -> list[StoredKey]:
    """Return the keys of a store that hsm-keys made or adopted."""
    return [key for key in store.keys() if key.ours]


def check_ours(key: StoredKey, where: str) -> None:
    """Make sure that a key may be changed.

    Args:
        key: The key.
        where: What people call its store.

    Raises:
        ForeignKeyError: If it is somebody else's.
    """
    if not key.ours:
        raise not_ours(key, where)


def check_not_registered_since(key: StoredKey, now: Mark, where: str) -> None:
    """Make sure, right before a key is destroyed, that nobody has begun to register it since it was looked at.

    Args:
        key: The key as it was looked at.
        now: What its store says of it now.
        where: What people call its store.

    Raises:
        KeyBusyError: If somebody has: Kalshi may know it by now.
    """
    if now.api_key_id not in {None, key.api_key_id} or (
        (now.registering or now.offered) and not (key.registering or key.offered)
    ):
        raise KeyBusyError(
            f"somebody else has registered the key {key.name!r} in {where} meanwhile; nothing was destroyed",
            hint="look with `hsm-keys list`, then run the same command again",
        )


def not_ours(key: StoredKey, where: str) -> ForeignKeyError:
    """Return the error for a key that only its owner may change."""
    return ForeignKeyError(
        f"the key {key.name!r} in {where} isn't ours: {why_not_ours(key)}; the key wasn't changed",
        hint=f"if it is yours to change, adopt it first: {how_to_adopt(key)}",
    )


def name_in_use(key: StoredKey, where: str) -> ForeignKeyError:
    """Return the error for a name that a key of our own was to get, and that somebody else's has."""
    return ForeignKeyError(
        f"a key called {key.name!r} is in {where} already, and isn't ours: {why_not_ours(key)}; nothing was done",
        hint=f"choose another name; or, if that key is registered at Kalshi, {how_to_adopt(key)}",
    )


def why_not_ours(key: StoredKey) -> str:
    """Return why a key isn't ours; a clause."""
    return key.doubt or "hsm-keys has neither made nor adopted it"


def how_to_adopt(key: StoredKey) -> str:
    """Return the command that makes a key ours."""
    return f"hsm-keys adopt {shlex.quote(key.name)} --api-key-id ID"
