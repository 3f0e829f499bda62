"""Forks: lets all back-ends notice that they are in a child process, where they can't use what the parent opened.

A child inherits sessions, connections and locks. If it uses them, they fail, hang (a thread that the child doesn't have
may hold the lock) or break the parent. So a store notes the process's generation, and opens everything anew in a child.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ProcessLock", "fork_generation"]

_generation = 0


def _count() -> None:
    global _generation  # noqa: PLW0603 - process-wide by nature
    _generation += 1


os.register_at_fork(after_in_child=_count)


def fork_generation() -> int:
    """Return how many forks lie between this process and the one that imported this module."""
    return _generation


class ProcessLock:
    """A lock that is new and free in every forked child. Make one for each module: it is never released from memory."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, timeout_s: float) -> bool:
        """Return whether the lock could be had within so many seconds."""
        return self._lock.acquire(timeout=timeout_s)

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
