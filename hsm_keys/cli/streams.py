"""The program's standard streams: open from the start, only for the command's output, and closed without an error.

A PKCS#11 module is other people's code in this process, and may write anything to descriptors 1 and 2. So the
command's output goes to a copy of descriptor 1, and a module's output on descriptor 1 goes to stderr. With JSON output,
stderr may hold only the JSON object of an error, so a module's output is discarded.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final, TextIO

__all__ = ["SIGPIPE_EXIT", "claim_streams", "end_streams"]

SIGPIPE_EXIT: Final = 141
"""What shells return for a program that wrote to a pipe which nobody reads any more."""

_module_streams: list[TextIO] = []
"""Streams of descriptors 1 and 2, which would close these when they are dropped."""


def claim_streams(*, quiet: bool) -> None:
    """Open what the caller closed, and keep standard output for the command.

    Args:
        quiet: Whether a module's words are dropped on both descriptors, and don't go to stderr.
    """
    _open_closed()
    sys.stdout = _moved(sys.stdout)
    if quiet:
        sys.stderr = _moved(sys.stderr)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    os.dup2(2, 1)


def _moved(stream: TextIO) -> TextIO:
    """Return a stream to a copy of that one's descriptor."""
    _module_streams.append(stream)
    copy = os.dup(stream.fileno())  # above 2, as these are open
    buffering = 1 if stream.line_buffering else -1
    return open(copy, "w", buffering, encoding=stream.encoding, errors=stream.errors)  # noqa: PTH123 - a descriptor


def _open_closed() -> None:
    """Put the null device in the place of descriptors that aren't open: else the next file to be opened gets them."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def end_streams(exit_code: int) -> int:
    """Write what is still to be written, and return the exit code: another one where the output was lost.

    Python would complain of what it can't write, and return a code of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if exit_code == 0 and isinstance(error, BrokenPipeError):
                exit_code = SIGPIPE_EXIT
            elif exit_code == 0 and stream is sys.stdout:
                exit_code = 1
    return exit_code
