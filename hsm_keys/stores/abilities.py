"""Abilities of some stores: each is a class that such a store inherits besides ``KeyStore``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

from hsm_keys.errors import KeyBusyError, KeyNotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from hsm_keys.stores.backend import Backend
    from hsm_keys.stores.base import KeyStore, StoredKey
    from hsm_keys.stores.key_imports import KeyImports

__all__ = ["Ability", "ImportsKeys", "RawSigning", "RenamesKeys", "ReplicatesKeys"]


class Ability(ABC):
    """Something that not every store can do.

    Attributes:
        what: What it is, as a verb and its object.
    """

    what: ClassVar[str]

    @classmethod
    def of(cls, store: KeyStore) -> Self:
        """Return the store as one that can do it.

        Raises:
            UsageError: If it can't.
        """
        if isinstance(store, cls):
            return store
        raise store.refusal() or _lacking(store.describe(), cls)

    @classmethod
    def check(cls, backend: Backend) -> None:
        """Refuse a back-end whose stores can't do it, before one is opened.

        Raises:
            UsageError: If they can't.
        """
        if cls not in backend.abilities:
            raise _lacking(backend.title, cls)


class RenamesKeys(Ability):
    """A store that gives keys other names."""

    what = "rename keys"

    @abstractmethod
    def rename(self, key: StoredKey, name: str) -> StoredKey:
        """Give a key another name, and return it. Killed half way, it can be called again.

        Raises:
            KeyBusyError: If it hasn't got the name any more that it was seen with: somebody else has renamed it.
            KeyExistsError: If another key has that name.
            StoreError: If the store doesn't let it be changed.
        """

    def hand_over(self, name: str, taker: StoredKey, leaver: StoredKey, mark: str) -> tuple[StoredKey, StoredKey]:
        """Give a name that one key has to another key. Killed half way, it can be called again.

        ``key(name)`` of the store finds one of the two at every instant.

        Args:
            name: The name to hand over.
            taker: The key that gets it.
            leaver: The key that has it, or that is called ``name + mark`` already.
            mark: What the leaver's name ends in from now on: ``RETIRED`` or ``ABORTING``.

        Returns:
            The taker and the leaver, under their new names.

        Raises:
            KeyBusyError: If somebody else has renamed one of the two, or ended the taker; then the name stays where it
                was.
            StoreError: If the store doesn't let this name be changed.
        """
        left = self.rename(leaver, name + mark)
        try:
            return self.rename(taker, name), left
        except (KeyBusyError, KeyNotFoundError):
            if leaver.name == name:
                self.rename(left, name)
            raise KeyBusyError(
                f"somebody else is working on the key {taker.name!r}; {name!r} wasn't changed",
                hint="look with `hsm-keys list`, then run the same command again",
            ) from None

    def keep_name(self, key: StoredKey) -> None:
        """Give a key its name again, if another machine has taken it since `hand_over`, and was killed then.

        Raises:
            KeyExistsError: If another key has it.
        """


class ImportsKeys(Ability):
    """A store that takes private halves in that were made elsewhere."""

    what = "take in keys that were made elsewhere"

    @abstractmethod
    def imports(self) -> KeyImports:
        """Return what puts them in."""


class ReplicatesKeys(Ability):
    """A store that makes a key usable in a further place."""

    what = "replicate keys"

    @abstractmethod
    def replicate(self, name: str, region: str) -> StoredKey:
        """Make the key usable there too, and return it. Safe to repeat.

        Its ``attributes()`` name ``primary_region`` and ``replica_regions``.
        """


class RawSigning(Ability):
    """A store whose library has a signing call of its own, to be measured beside ours.

    Attributes:
        raw_call: What that call is named.
    """

    what = "sign by a call of its library's own"
    raw_call: ClassVar[str]

    @abstractmethod
    def raw(self, key: StoredKey) -> AbstractContextManager[Callable[[bytes], bytes]]:
        """Give that call, for one thread."""


def _lacking(who: str, ability: type[Ability]) -> UsageError:
    from hsm_keys.stores import backends

    able = [backend for backend in backends() if ability in backend.abilities]
    return UsageError(
        f"{who} can't {ability.what}; {' and '.join(backend.title for backend in able) or 'no other store'} can",
        hint=f"name such a store: {' or '.join(backend.example for backend in able)}" if able else "",
    )
