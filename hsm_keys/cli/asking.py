"""Asking somebody at a terminal, on stderr: stdout is for the result."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hsm_keys.errors import UsageError
from hsm_keys.values import Secret, hides_its_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["TerminalPerson"]


class TerminalPerson:
    """Answers questions: a person at the terminal, or ``--yes`` in the place of one.

    Args:
        report: Hears what people should know.
        yes: Whether everything was agreed to on the command line.
    """

    def __init__(self, report: Callable[[str], None], *, yes: bool) -> None:
        self.report = report
        self._yes = yes

    @property
    def answers(self) -> bool:
        """Whether there is somebody to ask."""
        return not self._yes and sys.stdin.isatty()

    def agree(self, question: str) -> None:
        """Ask whether to go on.

        Raises:
            UsageError: If the answer is no.
        """
        if self._yes:
            self.report(f"{question} yes (--yes)")
        elif not click.confirm(question, default=True, err=True):
            raise UsageError(
                "not confirmed; nothing more was done", hint="run the same command again: it continues from there"
            )

    def choose(self, question: str, choices: Sequence[str]) -> int:
        """Ask for one of several, and return its place.

        Raises:
            UsageError: If there is nobody to ask.
        """
        if not self.answers:
            raise UsageError(
                f"there are several stores: {'; '.join(choices)}", hint="name one with --store, --token or --kms"
            )
        for number, choice in enumerate(choices, 1):
            self.report(f"{number}. {choice}")
        return int(click.prompt(question, type=click.IntRange(1, len(choices)), err=True)) - 1

    @hides_its_arguments
    def new_pin(self, prompt: str) -> Secret:
        """Ask twice, without echo, for a PIN that is new; empty if none was chosen, or there is nobody to ask."""
        if not self.answers:
            return Secret("")
        while True:
            pin = _typed(prompt)
            if not pin or pin == _typed("The same again"):
                return pin
            click.echo("The two PINs were different.", err=True)

    def text(self, prompt: str) -> str:
        """Ask for a line of text; empty if there is none."""
        answer: str = click.prompt(prompt, default="", show_default=False, err=True)
        return answer.strip()


def _typed(prompt: str) -> Secret:
    return Secret(click.prompt(prompt, default="", show_default=False, hide_input=True, err=True))
