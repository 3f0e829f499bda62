"""Running the command line on a terminal, with somebody who answers."""

from __future__ import annotations

import os
import pty
import sys

from tests.support.cli import ROOT


def answer(question: bytes, typed: bytes, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal, answer its question, and return its exit code and what it showed."""
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
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()
