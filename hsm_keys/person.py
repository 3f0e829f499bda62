"""The person who reads progress and answers questions, if there is one at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.values import Secret

__all__ = ["Person"]


class Person(Protocol):
    """Reads progress and answers questions. Without a terminal, every question was answered with yes beforehand."""

    @property
    def answers(self) -> bool:
        """Whether there is somebody to ask."""

    def report(self, line: str) -> None:
        """Say a line."""

    def agree(self, question: str) -> None:
        """Ask whether to go on.

        Raises:
            UsageError: If the answer is no.
        """

    def choose(self, question: str, choices: Sequence[str]) -> int:
        """Ask for one of several, and return its place."""

    def new_pin(self, prompt: str) -> Secret:
        """Ask twice, without echo, for a PIN that is new; empty if none was chosen."""

    def text(self, prompt: str) -> str:
        """Ask for a line of text; empty if there is none."""
