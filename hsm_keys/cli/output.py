"""Results go to stdout, messages for people to stderr, errors to stderr as a sentence or as one JSON object."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, Final

import click

from hsm_keys.errors import HsmKeysError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TextIO

    from hsm_keys.kalshi.attestation import Attestation

__all__ = [
    "Reporter",
    "fail",
    "fail_interrupted",
    "fail_usage",
    "print_json",
    "print_line",
    "print_rows",
    "print_table",
    "print_verdict",
    "report_attestation",
    "wants_json",
]

_SIGINT_EXIT: Final = 130


def wants_json(argv: Sequence[str]) -> bool:
    """Tell whether errors are to be JSON, also when the command line can't be parsed."""
    argv = list(takewhile("--".__ne__, argv))  # what follows is a program's
    return "--output=json" in argv or any(option == "--output" and value == "json" for option, value in pairwise(argv))


def print_json(result: dict[str, Any]) -> None:
    """Print the one object of a command."""
    import json

    click.echo(json.dumps(_encodable(result), indent=2))


def _encodable(value: Any) -> Any:
    """Return a value without the halves of characters that JSON can't hold (RFC 8259, section 8.2)."""
    from hsm_keys.values import encodable

    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return encodable(value) if isinstance(value, str) else value


def print_line(line: str, *, err: bool = False) -> None:
    """Print one line, in which a key's name can't write over others: Kalshi takes any characters in one.

    Words on stderr that a full disk doesn't take stop no command half way; a pipe that nobody reads does.
    """
    try:
        click.echo(_visible(line), err=err)
    except OSError as error:
        if not err or isinstance(error, BrokenPipeError):
            raise


def print_verdict(verdict: str, rest: str = "", *, colour: str) -> None:
    """Print one line that begins with a verdict; on a terminal that shows colours the verdict has one."""
    click.echo(_coloured(verdict, colour, sys.stdout) + _visible(rest))


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    verdicts: tuple[int, Callable[[str], str | None]] | None = None,
) -> None:
    """Print a table, a row a line and never folded: an id is there to be copied, and a pipe to be searched.

    Args:
        headings: What stands above the columns.
        rows: Their cells.
        verdicts: Which column holds verdicts, counted from 0, and what gives the colour of one; None where it has none.
    """
    shown = [list(map(_visible, row)) for row in rows]
    if verdicts is not None:
        column, colour_of = verdicts
        for row in shown:
            if colour := colour_of(row[column]):
                row[column] = _coloured(row[column], colour, sys.stdout)
    _print_aligned([headings, *shown])


def print_rows(rows: Iterable[Sequence[str]]) -> None:
    """Print a table without headings; see ``print_table``."""
    _print_aligned([list(map(_visible, row)) for row in rows])


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    from hsm_keys.tables import aligned

    for line in aligned(rows):
        click.echo(line)


def report_attestation(attestation: Attestation, report: Callable[[str], None]) -> None:
    """Say when the account's location attestation ends, and warn where that is soon."""
    warning, remedy = ("WARNING: ", f"; {attestation.remedy}") if attestation.is_due else ("", "")
    report(f"{warning}{attestation.message}{remedy}")


def _visible(text: str) -> str:
    """Return it with escapes for what steers a terminal: control characters, ends of lines, changes of direction."""
    if text.isprintable():
        return text
    from hsm_keys.values import encodable

    text = encodable(text)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class Reporter:
    """Prints progress for people on stderr.

    With ``--output json`` the lines wait until the command has succeeded: then a program that reads stderr
    finds either people's words or one error object, never both.
    """

    def __init__(self, *, hold: bool) -> None:
        self._held: list[str] | None = [] if hold else None

    def __call__(self, line: str) -> None:
        """Say a line."""
        if self._held is None:
            print_line(line, err=True)
        else:
            self._held.append(line)

    def release(self) -> None:
        """Say what was held back."""
        held, self._held = self._held or [], None
        for line in held:
            print_line(line, err=True)


def fail(error: Exception, *, as_json: bool) -> int:
    """Print an error and return the exit code of its class.

    Of an error that nobody foresaw only the kind and the place are told: its text may hold anything.
    """
    if isinstance(error, click.ClickException):
        return _tell("usage", error.format_message(), "", as_json=as_json, exit_code=error.exit_code)
    if isinstance(error, HsmKeysError):
        return _tell(error.code, error.message, error.hint, as_json=as_json, exit_code=error.exit_code)
    if isinstance(error, OSError) and error.strerror:
        from hsm_keys.values import shown_path

        where = f" ({shown_path(error.filename)})" if isinstance(error.filename, str) else ""
        return _tell(
            "system",
            f"the operating system refused something: {error.strerror}{where}",
            "mend that, then run the same command again",
            as_json=as_json,
            exit_code=HsmKeysError.exit_code,
        )
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
            _last_words(message)
            return error.exit_code
        message = "Missing command."
    return _tell("usage", message, f"see `{command} --help`", as_json=as_json, exit_code=error.exit_code)


def fail_interrupted(*, as_json: bool) -> int:
    """Print that a person ended the command, by Ctrl-C or by no answer, and return what shells return for that."""
    hint = "run the same command again to go on"
    if as_json:
        return _tell("interrupted", "the command was interrupted", hint, as_json=True, exit_code=_SIGINT_EXIT)
    _last_words(f"interrupted; {hint}")
    return _SIGINT_EXIT


def _tell(code: str, message: str, hint: str, *, as_json: bool, exit_code: int) -> int:
    if as_json:
        import json

        _last_words(json.dumps(_encodable({"error": {"code": code, "message": message, "hint": hint}})))
    else:
        _last_words(_coloured("error:", "red", sys.stderr) + _visible(f" {message} [{code}]"))
        if hint:
            _last_words(_visible(f"hint: {hint}"))
    return exit_code


def _coloured(text: str, colour: str, stream: TextIO | None) -> str:
    """Return a text in a colour if a terminal shows it that has some, and nobody asked for none (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or stream is None or not stream.isatty():
        return text
    return click.style(text, fg=colour, bold=True)


def _last_words(text: str) -> None:
    """Write to stderr what the exit code says, too: where nobody reads it, the code is to stay."""
    with suppress(OSError):
        click.echo(text, err=True)
