"""The way into a store for private halves that were made elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import KeyType, PrivateKey
    from hsm_keys.stores.base import StoredKey

__all__ = ["KeyImports", "PendingImport"]


@dataclass(frozen=True, slots=True)
class PendingImport:
    """An import that was prepared and not ended: what an interrupted run left.

    Args:
        key_type: What was to be imported.
        key: The imported key; None while nothing was.
        environment: The environment of Kalshi that was to make it; None if the mark doesn't say.
    """

    key_type: KeyType
    key: StoredKey | None
    environment: str | None


class KeyImports(ABC):
    """The way into a store for private halves that were made elsewhere, in steps that a crash may part.

    ``prepare`` leaves a lasting mark, ``put`` puts the key in, ``end`` removes the mark. Use one object for all three.
    """

    @abstractmethod
    def pending(self, name: str) -> PendingImport | None:
        """Return what is left of an import under that name that was prepared and not ended; None if none was."""

    @abstractmethod
    def prepare(self, name: str, key_type: KeyType, environment: str) -> StoredKey | None:
        """Leave a lasting mark that a key of that name is about to come, and that the store takes such keys.

        Safe to repeat: a mark that is there already is taken, or replaced.

        Args:
            name: The key's name.
            key_type: What is to be imported.
            environment: The environment of Kalshi that is to make it, as ``environment_name`` gives it.

        Returns:
            A throwaway key that was imported in the very same way, to judge by; None where the mark is none.

        Raises:
            UsageError: If the store can't have such a name.
            KeyExistsError: If the name is taken.
            StoreError: If the store takes no such key; nothing is left behind.
        """

    @abstractmethod
    def put(self, name: str, private_key: PrivateKey, api_key_id: str, environment: str) -> StoredKey:
        """Put the private half in, after ``prepare``; it doesn't come out again.

        Args:
            name: The key's name.
            private_key: The private half.
            api_key_id: The id that Kalshi knows it by.
            environment: The environment in which Kalshi does.

        Returns:
            The key; bound to the API key id already where the store does both in one step.

        Raises:
            StoreError: If the store refuses.
        """

    @abstractmethod
    def end(self, name: str) -> None:
        """Remove the mark; an imported key that is bound stays. Nothing happens if there is no mark."""
