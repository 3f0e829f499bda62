"""Progress of long work on a terminal's last line; none in a pipe, a log or with JSON output."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["count_down", "progress"]

_CLEAR: Final = "\r\x1b[K"


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Give what shows how far a command is, in place of what it showed before; it is gone at the end.

    Args:
        quiet: Whether to show nothing, whatever stderr is.
    """
    shows = not quiet and sys.stderr.isatty()

    def show(text: str) -> None:
        if shows:
            click.echo(f"{_CLEAR}{text}", err=True, nl=False)

    try:
        yield show
    finally:
        show("")


def count_down(seconds: int, text: str, *, quiet: bool = False) -> None:
    """Wait for this time, and show how much of it is left.

    Args:
        seconds: How long.
        text: What ends then; the time that is left is put before it.
        quiet: As for ``progress``.
    """
    end = time.monotonic() + seconds
    with progress(quiet=quiet) as show:
        while (left := end - time.monotonic()) > 0:
            show(f"{spelled(left)} {text}")
            time.sleep(min(left, 1.0))


def spelled(seconds: float) -> str:
    """Return a time as people read it, in whole seconds: ``1 h 02 min 03 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min {rest:02} s"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
