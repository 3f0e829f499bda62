"""Back-ends that can make a new store."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hsm_keys.stores.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hsm_keys.person import Person
    from hsm_keys.values import Secret

__all__ = ["MakesStores", "NewStore"]


@dataclass(frozen=True, slots=True)
class NewStore:
    """A store that was made.

    Args:
        uri: Its URI.
        finish: Forgets what a further run would have gone on by; called when the store is found by other means.
        options: What opens it beside the URI.
        pin: Its PIN where a person has just typed one, which is kept nowhere; else None.
    """

    uri: str
    finish: Callable[[], None]
    options: Mapping[str, Any] = field(default_factory=dict)
    pin: Secret | None = None


class MakesStores(Backend):
    """A back-end that can make a store.

    Attributes:
        options_of_new: The names of its options that may describe a store which isn't there yet.
        remedy: What somebody does who has neither a store nor what makes one.
    """

    options_of_new: ClassVar[frozenset[str]]
    remedy: ClassVar[str]

    @abstractmethod
    def is_making(self, folder: Path) -> bool:
        """Tell whether an earlier run was making a store, and was killed.

        Args:
            folder: Where its notes are.
        """

    @abstractmethod
    def make_store(
        self, options: Mapping[str, Any], env: Mapping[str, str], folder: Path, person: Person
    ) -> NewStore | None:
        """Make a store, if a person agrees; go on with one that an earlier run began.

        Args:
            options: This back-end's options.
            env: The environment.
            folder: Where notes and files with PINs go.
            person: Who is asked.

        Returns:
            The store; None if this machine lacks what makes one.

        Raises:
            UsageError: If the answer is no, or a file can't be written or read.
            PinError: If the PIN is one that the store doesn't take.
            StoreError: If it can't be made.
        """
