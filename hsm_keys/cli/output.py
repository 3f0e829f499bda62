"""What goes where: results to stdout, people's words to stderr, errors as a sentence or as one JSON object."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import click

from hsm_keys.errors import HsmKeysError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Voice", "fail", "fail_interrupted", "fail_usage", "print_json", "wants_json"]

_SIGINT_EXIT: Final = 130
_SIGPIPE_EXIT: Final = 141


def wants_json(argv: Sequence[str]) -> bool:
    """Tell whether errors are to be JSON, also when the command line can't be parsed."""
    return "--output=json" in argv or any(option == "--output" and value == "json" for option, value in pairwise(argv))


def print_json(result: dict[str, Any]) -> None:
    """Print the one object of a command."""
    import json

    click.echo(json.dumps(result, indent=2))


class Voice:
    """Tells people, on stderr, what is going on.

    With ``--output json`` the lines wait until the command has succeeded: then a program that reads stderr
    finds either people's words or one error object, never both.
    """

    def __init__(self, *, hold: bool) -> None:
        self._held: list[str] | None = [] if hold else None

    def __call__(self, line: str) -> None:
        """Say a line."""
        if self._held is None:
            click.echo(line, err=True)
        else:
            self._held.append(line)

    def release(self) -> None:
        """Say what was held back."""
        held, self._held = self._held or [], None
        for line in held:
            click.echo(line, err=True)


def fail(error: Exception, *, as_json: bool) -> int:
    """Print an error and return the exit code of its class.

    Of an error that nobody foresaw only the kind and the place are told: its text may hold anything.
    """
    if isinstance(error, click.ClickException):
        return _tell("usage", error.format_message(), "", as_json=as_json, exit_code=error.exit_code)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; without this Python complains once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _SIGPIPE_EXIT
    if isinstance(error, HsmKeysError):
        return _tell(error.code, error.message, error.hint, as_json=as_json, exit_code=error.exit_code)
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119 - pathlib would slow every start
    return _tell(
        "unexpected",
        f"something went wrong that nobody foresaw: {type(error).__name__} at {place}",
        "please report this line, and what you ran",
        as_json=as_json,
        exit_code=HsmKeysError.exit_code,
    )


def fail_usage(error: click.UsageError, *, as_json: bool) -> int:
    """Print an error in the command line itself and return 2; without any command, the help is what people need."""
    command = error.ctx.command_path if error.ctx else "hsm-keys"
    message = error.format_message()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        if not as_json:
            click.echo(message, err=True)
            return error.exit_code
        message = "Missing command."
    return _tell("usage", message, f"see `{command} --help`", as_json=as_json, exit_code=error.exit_code)


def fail_interrupted(*, as_json: bool) -> int:
    """Print that a person ended the command, by Ctrl-C or by no answer, and return what shells return for that."""
    if as_json:
        hint = "run the same command again to go on"
        return _tell("interrupted", "the command was interrupted", hint, as_json=True, exit_code=_SIGINT_EXIT)
    click.echo("interrupted; run the same command again to go on", err=True)
    return _SIGINT_EXIT


def _tell(code: str, message: str, hint: str, *, as_json: bool, exit_code: int) -> int:
    if as_json:
        import json

        click.echo(json.dumps({"error": {"code": code, "message": message, "hint": hint}}), err=True)
    else:
        click.echo(f"error: {message}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)
    return exit_code
