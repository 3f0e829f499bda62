"""Running the command line on a terminal, with somebody who answers."""

from __future__ import annotations

import os
import pty
import sys
from typing import TYPE_CHECKING

import click

from tests.support.cli import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable


def answer(question: bytes, typed: bytes, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal, answer its question, and return its exit code and its words, without colours."""
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "hsm_keys", *arguments])  # noqa: S606 - no shell is the point
    shown, answered = b"", False
    try:
        while True:
            shown += os.read(terminal, 1024)
            if question in shown and not answered:
                answered = True
                os.write(terminal, typed + b"\n")
    except OSError:  # the terminal ends with its program
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), click.unstyle(shown.decode())


def converse(dialogue: list[tuple[bytes, bytes | Callable[[str], bytes]]], *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal, answer its questions, and return its exit code and what it showed.

    Args:
        dialogue: Questions in their order, each with what is typed; a function makes that of what was shown so far.
        arguments: The command's.
    """
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "hsm_keys", *arguments])  # noqa: S606 - no shell is the point
    shown, heard, waiting = b"", 0, list(dialogue)
    try:
        while True:
            shown += os.read(terminal, 1024)
            if waiting and waiting[0][0] in shown[heard:]:
                _, typed = waiting.pop(0)
                heard = len(shown)
                os.write(terminal, (typed(shown.decode()) if callable(typed) else typed) + b"\n")
    except OSError:  # the terminal ends with its program
        pass
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not waiting, f"never asked: {waiting[0][0]!r}; shown: {shown.decode()}"
    return code, shown.decode()
