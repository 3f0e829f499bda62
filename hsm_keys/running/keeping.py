"""The keeper: a process between a run and its program, which becomes the parent of processes that the program leaves.

The run and its keeper watch each other: if one is killed, the other ends the program and all processes that it started.
Both are in the program's process group, so a terminal's signals (Ctrl-C, Ctrl-Z, fg) reach all three. A signal to the
run alone is passed on by the run; the keeper tells the two cases apart, since it gets the signals of the whole group.

Ctrl-Z stops only the program. The run stops after the program has stopped: a shell takes the terminal back when the run
stops, and before that an editor may still be restoring the terminal. The keeper is never stopped.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from hsm_keys.processes import adopt_orphans, children_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = [
    "END",
    "ENDED",
    "HANDED_ON",
    "STOPPED",
    "STOPS",
    "WORD_SIZE",
    "end_children",
    "exit_code_of",
    "keep",
    "next_word",
]

HANDED_ON: Final = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that are the program's, if the run gets them."""

STOPS: Final = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
"""Signals of the terminal that stop the program, and the run after it."""

ENDED: Final = 0
"""A keeper's word: the program has ended; its exit code follows."""

STOPPED: Final = 1
"""A keeper's word: the program was stopped; the signal's number follows."""

WORD_SIZE: Final = 2
"""Bytes of a keeper's word and what follows it."""

END: Final = 0
"""What a run writes to its keeper instead of a signal's number: the program has to end."""

_NO_CODE: Final = -1
"""The run ended before the program did."""

_GRACE_S: Final = 2.0
_SIGNALLED: Final = 128
_KILLED: Final = _SIGNALLED + signal.SIGKILL


def exit_code_of(status: int) -> int:
    """Return the exit code that shells give for what waitpid(2) says: 128 and the signal's number, if one ended it."""
    code = os.waitstatus_to_exitcode(status)
    return _SIGNALLED - code if code < 0 else code


def next_word(peer: socket.socket, size: int = 1) -> bytes:
    """Return the next bytes that a run or its keeper was sent; none at the end.

    Who ends before it has read everything resets the connection: that is an end, too. What it had sent comes first.
    """
    try:
        return peer.recv(size, socket.MSG_WAITALL)
    except ConnectionResetError:
        return b""


def keep(run: socket.socket, become: Callable[[], NoReturn]) -> NoReturn:
    """Be the keeper of a program, in a process of its own; it ends with the program.

    Args:
        run: Tells of signals, a byte each; its end is that of the run. Is told when the program stops, and its exit
            code.
        become: Turns a process into the program.
    """
    code = _NO_CODE
    try:
        adopt_orphans()
        signal.pthread_sigmask(signal.SIG_BLOCK, {*HANDED_ON, *STOPS, signal.SIGCONT})
        waking, woken = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        program = os.fork()
        if program == 0:
            signal.set_wakeup_fd(-1)
            become()
        code = _kept(run, waking, program)
        if code != _NO_CODE:
            with suppress(OSError):
                run.sendall(bytes([ENDED, code]))
        end_children(grace_s=_GRACE_S)
    finally:
        os._exit(0)


def _kept(run: socket.socket, waking: int, program: int) -> int:
    """Return the program's exit code, once it has ended."""
    kill_at = float("inf")
    while True:
        left = max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select([run.fileno(), waking], [], [], None if kill_at == float("inf") else left)
        if waking in ready:
            with suppress(BlockingIOError):
                os.read(waking, 4096)
        for status in _changes(program):
            if not os.WIFSTOPPED(status):
                return exit_code_of(status)
            with suppress(OSError):
                run.sendall(bytes([STOPPED, os.WSTOPSIG(status)]))
        if run.fileno() in ready:
            word = next_word(run)
            if not word:
                return _NO_CODE
            if word[0] == END:
                kill_at = time.monotonic() + _GRACE_S
            _obey(program, word[0])
        if time.monotonic() >= kill_at:
            if not _signal(program, signal.SIGKILL):
                return _KILLED
            kill_at = time.monotonic() + _GRACE_S


def _obey(program: int, number: int) -> None:
    """Hand a signal on, or ask the program to end."""
    if number == END:
        _signal(program, signal.SIGTERM)
        _signal(program, signal.SIGCONT)
    elif number in signal.sigpending():
        signal.sigwait({number})  # the whole group got the signal, the program too
    else:
        _signal(program, number)


def _changes(program: int) -> list[int]:
    """Return what waitpid(2) says of a program that has stopped or ended; other children that have ended go, too."""
    changes = []
    with suppress(ChildProcessError):
        while (change := os.waitpid(-1, os.WNOHANG | os.WUNTRACED))[0]:
            changes.append(change)
    return [status for pid, status in changes if pid == program]


def end_children(*, but: Collection[int] = (), grace_s: float = 0.0) -> None:
    """End all children of this process, and theirs as they become its own, but for some.

    Args:
        but: Processes that stay.
        grace_s: Seconds that they have from SIGTERM to SIGKILL.
    """
    until = time.monotonic() + grace_s
    told: set[int] = set()
    while True:
        with suppress(ChildProcessError):
            for child in set(children_of(os.getpid())) - set(but):
                os.waitpid(child, os.WNOHANG)
        left = set(children_of(os.getpid())) - set(but)
        if not left:
            return
        late = time.monotonic() >= until
        for child in left:
            if late:
                if not _signal(child, signal.SIGKILL):
                    but = {*but, child}  # another user's, as sudo's are: this user can't end it
            elif child not in told:
                told.add(child)
                _signal(child, signal.SIGTERM)
                _signal(child, signal.SIGCONT)
        time.sleep(0.01)


def _signal(process: int, number: int) -> bool:
    """Send a signal; tell whether this user may."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True
