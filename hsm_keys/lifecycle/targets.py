"""Finds which API key a word means: a name in the store, an API key id, or a name at Kalshi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from hsm_keys.errors import (
    ForeignKeyError,
    KeyAmbiguousError,
    KeyExistsError,
    KeyNotFoundError,
    KeyProblemError,
    UsageError,
)
from hsm_keys.inspecting.proof_of_possession import is_going
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.stores.key_names import ABORTING, ENDING, FINISHING, IMPORTING, RETIRED, ROTATION, SUCCESSOR
from hsm_keys.stores.ownership import why_not_ours
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = [
    "Target",
    "check_no_end_begun",
    "check_no_import_begun",
    "check_no_rotation_begun",
    "check_not_foreign",
    "check_not_handed_over",
    "find_target",
    "keys_named",
]


@dataclass(frozen=True, slots=True)
class Target:
    """What a word meant.

    Args:
        api_key_id: The API key's id; None for a pair that no API key is bound to.
        key: The pair in the store; None if the private half isn't there.
        listing: What Kalshi lists of the API key; None if Kalshi doesn't list it.
        explanation: Why this one was meant where it could have been another; else empty.
    """

    api_key_id: str | None
    key: StoredKey | None
    listing: ApiKey | None
    explanation: str = ""

    @property
    def name(self) -> str:
        """The store's name for it, else Kalshi's; empty if neither has it."""
        return self.key.name if self.key else self.listing.name if self.listing else ""


def keys_named(word: str, keys: Sequence[StoredKey]) -> list[StoredKey]:
    """Return the keys of the store that a word names or is the API key id of."""
    try:
        api_key_id = check_api_key_id(word)
    except UsageError:
        api_key_id = ""  # a name at Kalshi may be anything
    return [key for key in keys if key.name in {word, word + ENDING} or (api_key_id and key.api_key_id == api_key_id)]


def check_no_end_begun(store: KeyStore, name: str) -> None:
    """Make sure that no API key of a name is half ended: it may live, and a second one would stand beside it.

    Raises:
        KeyExistsError: If a killed ``revoke`` left one whose private half isn't going yet.
    """
    try:
        key = store.key(name + ENDING)
    except KeyNotFoundError:
        return
    if key.ours and not is_going(key):
        lives = f"its API key {key.api_key_id} may live" if key.api_key_id else "its private half is still there"
        raise KeyExistsError(
            f"a `revoke` of {name!r} was interrupted, and {lives}; nothing was done",
            hint=f"let it come to its end first: hsm-keys revoke {key.name if store.holds(name) else name} --destroy",
        )


def check_no_import_begun(store: KeyStore, name: str) -> None:
    """Make sure that no `generate` of a name is half done: Kalshi may have made an API key of the name already.

    Raises:
        KeyExistsError: If a killed one left its mark.
    """
    if store.holds(name + IMPORTING):
        raise KeyExistsError(
            f"a `generate` of {name!r} was begun and hasn't ended: Kalshi may have made an API key for it; nothing was "
            "done",
            hint=f"let it come to its end first: hsm-keys generate {name}; or choose another name",
        )


def check_no_rotation_begun(store: KeyStore, name: str) -> None:
    """Make sure that no rotation of a name is under way: a token has no key of the name while it hands the name over.

    Raises:
        KeyExistsError: If one is.
    """
    keys = {key.name: key for key in store.keys() if key.ours}
    marked = [name + mark for mark in ROTATION if name + mark in keys]
    if marked:
        replaced = keys.get(name)
        forlorn = marked == [name + SUCCESSOR] and (replaced is None or replaced.api_key_id is None)
        raise KeyExistsError(
            f"a rotation of {name!r} is under way: {store.describe()} has {', '.join(marked)}; nothing was done",
            hint=f"no registered key is there to be replaced: hsm-keys revoke {name}{SUCCESSOR} --destroy"
            if forlorn
            else f"let it come to its end first: hsm-keys rotate {name}",
        )


def check_not_handed_over(store: KeyStore, name: str) -> None:
    """Make sure that nobody registers a key of a name that a rotation is giving to another one at this moment.

    Raises:
        KeyExistsError: If a rotation does.
    """
    names = {key.name for key in store.keys() if key.ours}
    if names & {name + SUCCESSOR, name + ABORTING} and names & {name + RETIRED, name + FINISHING}:
        raise KeyExistsError(
            f"a rotation of {name!r} was interrupted while it handed the name over; nothing was registered",
            hint=f"let it come to its end first: hsm-keys rotate {name}",
        )


def check_not_foreign(word: str, keys: Sequence[StoredKey], where: str) -> None:
    """Make sure that a word doesn't name a key of the store that isn't ours; an API key id is none of its names.

    Raises:
        ForeignKeyError: If it does.
    """
    foreign = [key for key in keys if key.name == word and not key.ours]
    if foreign and not _is_uuid(word) and not keys_named(word, [key for key in keys if key.ours]):
        raise ForeignKeyError(
            f"the key {word!r} in {where} isn't ours: {why_not_ours(foreign[0])}; nothing was done",
            hint="an API key at Kalshi can be ended by its id; the key itself is for its owner's tool to destroy",
        )


def find_target(word: str, keys: Sequence[StoredKey], listed: Sequence[ApiKey]) -> Target:
    """Return the API key that a word means. The store's names win over Kalshi's, as with every command.

    Args:
        word: A name in the store, an API key id, or a name at Kalshi.
        keys: The store's keys that are ours.
        listed: What Kalshi lists.

    Raises:
        KeyAmbiguousError: If it could mean several.
        KeyNotFoundError: If it means none; an id that nobody knows is none of those, it is a key that is gone.
    """
    named = [key for key in keys if key.name == word] or [key for key in keys if key.name == word + ENDING]
    by_id = _by_id(word, keys, listed)
    if len(named) > 1 or (named and by_id and by_id.key is not named[0]):
        raise _ambiguous(word, "in the store", [*named, *([by_id] if by_id else [])])
    if named:
        _check_not_rotating(named[0], keys)
        return _in_store(named[0], word, listed)
    if by_id:
        return by_id
    _check_not_handed_over(word, keys)
    titled = [listing for listing in listed if listing.name == word]
    if len(titled) > 1:
        raise _ambiguous(word, "at Kalshi", titled)
    if titled:
        target = _by_id(titled[0].api_key_id, keys, listed)
        return target or Target(titled[0].api_key_id, None, titled[0])
    if _is_uuid(word):
        return Target(check_api_key_id(word), None, None)
    names = [key.name for key in keys] + [listing.name for listing in listed]
    choices = ", ".join(repr(name) for name in dict.fromkeys(names))
    raise KeyNotFoundError(
        f"neither the store nor Kalshi has a key called {shown(word)}",
        hint=f"there are {choices}" if choices else "see what there is with `hsm-keys list`",
    )


def _by_id(word: str, keys: Sequence[StoredKey], listed: Sequence[ApiKey]) -> Target | None:
    try:
        api_key_id = check_api_key_id(word)
    except UsageError:
        return None  # a name at Kalshi may be anything
    listing = next((listing for listing in listed if listing.api_key_id == api_key_id), None)
    holders = [key for key in keys if key.api_key_id == api_key_id]
    if len(holders) > 1:
        names = ", ".join(repr(key.name) for key in holders)
        raise KeyAmbiguousError(
            f"several keys of the store are bound to API key {api_key_id}: {names}", hint="give one of these names"
        )
    return Target(api_key_id, holders[0] if holders else None, listing) if holders or listing else None


def _in_store(key: StoredKey, word: str, listed: Sequence[ApiKey]) -> Target:
    listing = next((listing for listing in listed if listing.api_key_id == key.api_key_id), None)
    others = [entry.api_key_id for entry in listed if entry.name == word and entry.api_key_id != key.api_key_id]
    explanation = (
        f"{word!r} was taken as the name in the store; at Kalshi it is also the name of {', '.join(others)} (give "
        "the id if that is meant)"
        if others
        else ""
    )
    return Target(key.api_key_id, key, listing, explanation)


def _check_not_handed_over(word: str, keys: Sequence[StoredKey]) -> None:
    marked = [key for key in keys if key.name in {word + mark for mark in ROTATION}]
    if marked:
        names = ", ".join(f"{key.name} ({key.api_key_id or 'no API key id'})" for key in marked)
        handing_over = len(marked) > 1  # one alone is what was left when the key of the name was taken away
        go_on = f"run `hsm-keys rotate {word}` to go on with it, or give" if handing_over else "give"
        raise KeyProblemError(
            f"no key of the store is called {word!r} at this moment, since a rotation was interrupted: it has {names}",
            hint=f"{go_on} one of these names or ids",
        )


def _check_not_rotating(key: StoredKey, keys: Sequence[StoredKey]) -> None:
    """Make sure that nobody ends one key of a name and believes that the other one ended too."""
    marked = [other for other in keys if other.name in {key.name + mark for mark in ROTATION}]
    if marked:
        names = ", ".join(f"{other.name} ({other.api_key_id or 'no API key id'})" for other in marked)
        raise KeyAmbiguousError(
            f"a rotation of {key.name!r} is under way, so that name stands for several keys: {key.name} "
            f"({key.api_key_id or 'no API key id'}) and {names}; nothing was done",
            hint=f"end the rotation first (hsm-keys rotate {key.name} --finish, or --abort), or end each by its own id",
        )


def _ambiguous(word: str, where: str, candidates: Sequence[StoredKey | ApiKey | Target]) -> KeyAmbiguousError:
    ids = ", ".join(dict.fromkeys(entry.api_key_id or "one without an API key id" for entry in candidates))
    return KeyAmbiguousError(
        f"{shown(word)} means several keys {where}: {ids}", hint="give the id of the one that is meant"
    )


def _is_uuid(word: str) -> bool:
    try:
        return str(UUID(word)) == word.lower()
    except ValueError:
        return False
