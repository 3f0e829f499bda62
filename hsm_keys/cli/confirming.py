"""Asks before something is done that can't be undone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hsm_keys.cli.output import print_line
from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["confirm", "require_consent", "yes_option"]

_F = TypeVar("_F", bound="Callable[..., Any]")


def yes_option(function: _F) -> _F:
    """Add ``--yes``."""
    return click.option("--yes", is_flag=True, help="Don't ask; for scripts.")(function)


def require_consent(*, yes: bool) -> None:
    """Make sure, before anything else happens, that somebody has agreed or can be asked.

    Raises:
        UsageError: If --yes wasn't given and stdin is no terminal.
    """
    if not yes and not sys.stdin.isatty():
        raise UsageError("this needs a confirmation, and there is no terminal; nothing was done", hint="give --yes")


def confirm(lines: Sequence[str], *, yes: bool, report: Callable[[str], None]) -> None:
    """Say what will happen, and go on only if a person wants it.

    Args:
        lines: What will happen.
        yes: Whether it was agreed to on the command line.
        report: Hears the lines if nobody is asked.

    Raises:
        UsageError: If the answer is no.
    """
    for line in lines:
        if yes:
            report(line)
        else:
            print_line(line, err=True)
    if not yes and not click.confirm("Go on?", err=True):
        raise UsageError("not confirmed; nothing was done")
