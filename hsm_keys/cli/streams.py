"""The program's standard streams: there from the beginning, the command's alone, and closed without a word.

A PKCS#11 module is other people's code in this process, and may write to descriptor 1 whatever it likes. So the
command's output goes to a copy of that descriptor, and what a module writes goes where people's words go.
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
"""Streams of descriptor 1, which would close it when they are dropped."""


def claim_streams(*, quiet: bool) -> None:
    """Open what the caller closed, and keep standard output for the command.

    Args:
        quiet: Whether a module's words on descriptor 1 are dropped, and don't go to stderr: a program that asked for
            JSON reads one object there.
    """
    _open_closed()
    output = sys.stdout
    kept = os.dup(1)  # above 2, as these are open
    others = os.open(os.devnull, os.O_WRONLY) if quiet else 2
    os.dup2(others, 1)
    if quiet:
        os.close(others)
    sys.stdout = open(kept, "w", encoding=output.encoding, errors=output.errors)  # noqa: SIM115, PTH123 - to the end
    _module_streams.append(output)


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
    """Write what is still to be written, and return the exit code: another one where nobody read the output.

    Python would complain of what it can't write, and return a code of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if exit_code == 0:
                exit_code = SIGPIPE_EXIT if isinstance(error, BrokenPipeError) else 1
    return exit_code
