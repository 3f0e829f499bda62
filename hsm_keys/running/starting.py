"""Becoming the program: what a forked process does until execve(2)."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from hsm_keys.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NOT_EXECUTABLE", "Program"]

NOT_EXECUTABLE: Final = 126
"""The exit code of a process that can't become its program, as shells have it."""

_PYTHON_IGNORES: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_FIRST_OF_OTHERS: Final = 3


@dataclass(frozen=True, slots=True)
class Program:
    """The program to run.

    Args:
        path: The file.
        arguments: Its own name first.
        environment: All variables that it has.
        streams: The descriptors that are to be its standard streams.
    """

    path: str
    arguments: Sequence[str] = field(repr=False)
    environment: dict[str, str] = field(repr=False)
    streams: tuple[int, int, int]

    def become(self) -> NoReturn:
        """Turn this process into the program; it has its standard streams, and no other descriptor."""
        try:
            die_with_parent()
            copies = [os.dup(stream) for stream in self.streams]
            for number, stream in enumerate(copies):
                os.dup2(stream, number)
            os.closerange(_FIRST_OF_OTHERS, os.sysconf("SC_OPEN_MAX"))
            _signals_as_before()
            self._exec()
        except OSError as error:
            with suppress(OSError):
                os.write(2, f"error: {self.arguments[0]} can't be run: {error.strerror}\n".encode())
        finally:
            os._exit(NOT_EXECUTABLE)

    def _exec(self) -> None:
        try:
            os.execve(self.path, list(self.arguments), self.environment)  # noqa: S606 - no shell is the point
        except OSError as error:
            if error.errno != errno.ENOEXEC:  # a script that names no interpreter: execvp(3) gives it to sh
                raise
        os.execve("/bin/sh", ["sh", self.path, *self.arguments[1:]], self.environment)  # noqa: S606


def _signals_as_before() -> None:
    """Let the program have the signals as this process found them: what it handles itself, exec(2) sets back."""
    for number in _PYTHON_IGNORES:
        signal.signal(number, signal.SIG_DFL)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
