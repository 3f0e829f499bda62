"""Importing private halves that were made elsewhere into a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsm_keys.errors import KeyBusyError

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import KeyType, PrivateKey
    from hsm_keys.stores.base import StoredKey

__all__ = ["KeyImports", "PendingImport", "taken_over"]


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
    The mark belongs to the run that left it last, on whatever machine: the ``put`` of another run gives way.
    """

    @abstractmethod
    def pending(self, name: str) -> PendingImport | None:
        """Return what is left of an import under that name that was prepared and not ended; None if none was."""

    @abstractmethod
    def prepare(self, name: str, key_type: KeyType, environment: str) -> StoredKey | None:
        """Leave a lasting mark that a key of that name is about to come, and that the store takes such keys.

        A mark that ``pending`` has shown is taken over, or replaced. So a key that wasn't there before this
        call is put in by nobody else after it, and whatever Kalshi has made for another run is of no use any more.

        Args:
            name: The key's name.
            key_type: What is to be imported.
            environment: The environment of Kalshi that is to make it, as ``environment_name`` gives it.

        Returns:
            A throwaway key that was imported in the very same way, to judge by; None where the mark is none.

        Raises:
            UsageError: If the store can't have such a name.
            KeyExistsError: If the name is taken.
            KeyBusyError: If another run has left its mark since ``pending``, or has put its key in.
            StoreError: If the store takes no such key; nothing is left behind.
        """

    @abstractmethod
    def is_taken_over(self, name: str) -> bool:
        """Tell whether the mark that ``prepare`` left is another run's by now, or gone."""

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
            KeyBusyError: If another run has taken the import over: what was put in doesn't count. ``withdraw`` destroys
                it, once its API key is dead.
            StoreError: If the store refuses.
        """

    def give_up(self, name: str) -> None:  # noqa: B027 - most stores carry nothing out late
        """Keep other runs from going on with a key that comes late: ``put`` failed, and its API key is about to end.

        A mark stays, as long as the API key may live.
        """

    @abstractmethod
    def withdraw(self, name: str) -> None:
        """Destroy what ``put`` has put in before it raised ``KeyBusyError``."""

    @abstractmethod
    def end(self, name: str) -> None:
        """Remove the mark; an imported key that is bound stays. Nothing happens if there is no mark.

        After ``prepare`` it removes the mark that this left, and none of another run.
        """


def taken_over(name: str, where: str) -> KeyBusyError:
    """Return the error of an import that another run is working on, too."""
    return KeyBusyError(
        f"somebody else generates a key {name!r} for {where} at the same moment, so this run stopped",
        hint="see it with `hsm-keys list`, or run the same command again in a while",
    )
