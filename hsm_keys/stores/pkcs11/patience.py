"""Waits for threads that are inside a module, with a time limit, because a call into a module may never return."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import StoreUnavailableError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["PATIENCE_S", "PatientLock", "end_of_program", "inside", "wait_if_ending"]

PATIENCE_S: Final = 30.0
"""How long a thread waits for others that are inside the module."""

_last_thread: int | None = None


class _Inside(threading.local):
    sessions: int = 0


inside = _Inside()
"""How many sessions this thread has: with one it is inside the module, and goes on until it has put that back."""


def end_of_program() -> None:
    """From now on this thread alone may use modules: the others are daemons, which end with the program."""
    global _last_thread  # noqa: PLW0603 - process-wide by nature
    _last_thread = threading.get_ident()


def wait_if_ending() -> None:
    """Never return to a daemon thread while the program ends: an error would be its traceback on stderr.

    A thread that is inside the module comes out first: whoever finalises that waits for it.
    """
    if _last_thread is not None and threading.get_ident() != _last_thread and inside.sessions < 1:
        threading.Event().wait()


class PatientLock:
    """A re-entrant lock; ``with`` gives up after ``PATIENCE_S``, since whoever has it may never come back.

    Raises:
        StoreUnavailableError: From ``with``, if it couldn't be had.
    """

    def __init__(self) -> None:
        lock = threading.RLock()
        self.acquire = lock.acquire
        self.release = lock.release

    def __enter__(self) -> None:
        wait_if_ending()
        if not self.acquire(timeout=PATIENCE_S):
            raise StoreUnavailableError(
                f"a call into the PKCS#11 module hasn't returned for {PATIENCE_S:.0f} s",
                hint="check the token and its daemon; restart this program if it never returns",
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
