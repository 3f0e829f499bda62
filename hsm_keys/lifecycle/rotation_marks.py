"""How far the rotation of a name has come, read from the names of the keys in the store.

No other state is kept::

    NAME                      no rotation under way
    NAME, NAME+next           the successor is made; with an API key id, it is registered
    NAME+next, NAME+retired   the name is being handed over
    NAME, NAME+retired        the successor has the name; the old key works until it is ended
    NAME, NAME+finishing      the old key's end has begun: nobody goes back to it
    NAME, NAME+aborting       the successor's end has begun: it doesn't get the name any more

In KMS a key has two names if a run was killed while it renamed the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsm_keys.errors import (
    ForeignKeyError,
    KeyBusyError,
    KeyNotFoundError,
    KeyNotRegisteredError,
    KeyProblemError,
)
from hsm_keys.inspecting.proof_of_possession import can_sign, is_going, public_half
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.key_names import ABORTING, FINISHING, RETIRED, SUCCESSOR, rotation_names
from hsm_keys.stores.ownership import check_ours, why_not_ours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = [
    "Stage",
    "finish_renames",
    "forsaken",
    "id_of",
    "in_hand",
    "is_stray",
    "is_surplus",
    "overtaken",
    "parts",
    "renamed",
    "same",
]


@dataclass(frozen=True, slots=True)
class Stage:
    """How far the rotation of a name has come, read off the store.

    Args:
        current: The key that has the name; None for the instant in which it is handed over.
        successor: The key that is to get it.
        retired: The key that had it.
    """

    current: StoredKey | None
    successor: StoredKey | None
    retired: StoredKey | None

    @classmethod
    def read(cls, store: KeyStore, name: str) -> Stage:
        """Read it off the store.

        Raises:
            KeyNotFoundError: If the store has no such key.
            ForeignKeyError: If a key that isn't ours has a name that the rotation goes by.
            KeyProblemError: If it holds more than one rotation of the name leaves behind.
        """
        keys: dict[str, StoredKey] = {}
        for key in in_hand(store, name):
            if key.name in keys:
                raise KeyProblemError(
                    f"{store.describe()} has two keys called {key.name!r}",
                    hint="see them with `hsm-keys reconcile`, and end one by its id: hsm-keys revoke ID --destroy",
                )
            keys[key.name] = key
        current, successor, retired = parts(keys, name)
        if successor is not None and is_surplus(current, successor, retired):
            successor = None
        if is_stray(current, successor, retired):
            current = None
        if current is None and retired is None:
            current, successor = _left_alone(successor, ABORTING)
        elif current is None and successor is None:
            current, retired = _left_alone(retired, RETIRED, FINISHING)
        if current is None and (successor is None or retired is None):
            store.key(name)  # says which keys there are
            raise KeyNotFoundError(f"{store.describe()} has no key called {name!r}")
        if current and successor and retired and not (same(current, successor) or same(current, retired)):
            raise KeyProblemError(
                f"{store.describe()} holds {name}, {successor.name} and {retired.name}: no rotation leaves all three",
                hint="see them with `hsm-keys list`, and end the unused one: hsm-keys revoke NAME --destroy",
            )
        return cls(current, successor, retired)

    @property
    def under_way(self) -> bool:
        """Whether a rotation was begun and not ended."""
        return self.successor is not None or self.retired is not None

    @property
    def finishing(self) -> bool:
        """Whether the old key's end has begun."""
        return self.retired is not None and self.retired.name.endswith(FINISHING)

    @property
    def aborting(self) -> bool:
        """Whether the successor's end has begun."""
        return self.successor is not None and self.successor.name.endswith(ABORTING)

    @property
    def handed_over(self) -> bool:
        """Whether the successor has the name, and nothing is left to do but to end the old key."""
        return self.successor is None and self.retired is not None

    @property
    def twin(self) -> StoredKey | None:
        """A further name of the key that has the name: KMS may carry a request out long after it was sent."""
        twin = self.successor or self.retired
        if twin is None or self.current is None:
            return None
        if self.successor and self.retired and not is_going(self.retired):
            return None  # the handover goes on, and takes the further name away
        there = can_sign(twin) and same(self.current, twin) and self.current.name != twin.name
        return twin if there else None


def in_hand(store: KeyStore, name: str) -> list[StoredKey]:
    """Return the keys that a rotation of the name goes by.

    Raises:
        ForeignKeyError: If one of them isn't ours.
    """
    keys = [key for key in store.keys() if key.name in rotation_names(name)]
    for key in keys:
        if key.name == name and len(keys) == 1:
            check_ours(key, store.describe())
        if not key.ours:
            raise ForeignKeyError(
                f"{store.describe()} has a key {key.name!r}, the name that a rotation of {name!r} needs, and the key "
                f"isn't ours: {why_not_ours(key)}; nothing was done",
                hint="give that key another label with the vendor's tool, or enroll a key under another name",
            )
    return keys


def parts(keys: Mapping[str, StoredKey], name: str) -> tuple[StoredKey | None, StoredKey | None, StoredKey | None]:
    """Return the key that has the name, its successor, and the one that had it."""
    successor = keys.get(name + SUCCESSOR) or (None if forsaken(keys, name) else keys.get(name + ABORTING))
    return keys.get(name), successor, keys.get(name + RETIRED) or keys.get(name + FINISHING)


def forsaken(keys: Mapping[str, StoredKey], name: str) -> StoredKey | None:
    """Return the successor of an earlier rotation, which a killed abort was about to end; None if there is none.

    The rotation under way has another successor, or has given the name to one.
    """
    condemned, successor = keys.get(name + ABORTING), keys.get(name + SUCCESSOR)
    current, retired = keys.get(name), keys.get(name + RETIRED) or keys.get(name + FINISHING)
    if condemned is None:
        return None
    if successor is None and (current is None or retired is None or _lead_to_one(current, retired)):
        return None
    others = [key for key in (current, successor, retired) if key is not None]
    return None if any(_lead_to_one(key, condemned) for key in others) else condemned


def _lead_to_one(one: StoredKey, other: StoredKey) -> bool:
    """Tell whether two keys are the same pair; KMS hides the public half of a key whose deletion is scheduled."""
    return can_sign(one) and can_sign(other) and same(one, other)


def _left_alone(key: StoredKey | None, *marks: str) -> tuple[StoredKey | None, StoredKey | None]:
    """Return a key as the one of the name, where the one that was to get the name from it has ended; else as it is."""
    return (key, None) if key is not None and key.name.endswith(marks) else (None, key)


def same(one: StoredKey | None, other: StoredKey | None) -> bool:
    """Tell whether two names lead to the same pair, or neither to any."""
    if one is None or other is None:
        return one is other
    halves = [public_half(one), public_half(other)]
    if halves == [None, None]:
        return one.public_key() == other.public_key()  # raises
    return halves[0] == halves[1]


def renamed(store: KeyStore, key: StoredKey, name: str) -> StoredKey:
    """Return a key under a name, which it may have already."""
    return key if key.name == name else RenamesKeys.of(store).rename(key, name)


def is_surplus(current: StoredKey | None, successor: StoredKey, retired: StoredKey | None) -> bool:
    """Tell whether a machine made a successor while another one's got the name."""
    handed_over = current is not None and retired is not None and not same(current, retired)
    if not handed_over or successor.api_key_id is not None:
        return False
    return not can_sign(successor) or not same(current, successor)  # KMS hides the public half of one that is going


def is_stray(current: StoredKey | None, successor: StoredKey | None, retired: StoredKey | None) -> bool:
    """Tell whether another machine's `enroll` or `generate` made a key of the name while that was handed over."""
    if current is None or successor is None or retired is None or not successor.api_key_id:
        return False
    if current.api_key_id and not current.passing:
        return False
    return can_sign(current) and not (same(current, successor) or same(current, retired))


def finish_renames(store: KeyStore, name: str) -> None:
    """Take a key's former name away, where a run that began its end was killed between the two."""
    keys = {key.name: key for key in store.keys()}
    for before, after in ((SUCCESSOR, ABORTING), (RETIRED, FINISHING)):
        key, condemned = keys.get(name + before), keys.get(name + after)
        if key is not None and condemned is not None and can_sign(key) and same(key, condemned):
            RenamesKeys.of(store).rename(key, name + after)


def id_of(key: StoredKey) -> str:
    """Return the API key id that a key is bound to.

    Raises:
        KeyNotRegisteredError: If there is none.
    """
    if key.api_key_id is None:
        raise KeyNotRegisteredError(f"the key {key.name!r} has no API key id", hint=f"hsm-keys enroll {key.name}")
    return key.api_key_id


def overtaken(name: str) -> KeyBusyError:
    """Return what a run says that gives way to another machine's."""
    return KeyBusyError(
        f"somebody else is rotating {name!r} at this moment", hint="look with `hsm-keys list`, then run it again"
    )
