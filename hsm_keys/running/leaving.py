"""Forked helper processes of a run leave the terminal, so that its signals don't reach them."""

from __future__ import annotations

import os
import signal
from typing import Final

__all__ = ["drop_terminal_signals", "fork_aside", "hear_terminal_signals"]

_FROM_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)


def fork_aside() -> int:
    """Fork; in the new process the terminal's signals are held back until it has left the terminal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINAL)
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINAL)
    return process


def drop_terminal_signals() -> None:
    """Drop what came before this process had left the terminal: that was the program's."""
    for number in _FROM_TERMINAL:
        signal.signal(number, signal.SIG_IGN)


def hear_terminal_signals() -> None:
    """Let the terminal's signals do again what they do to any process."""
    for number in _FROM_TERMINAL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINAL)
