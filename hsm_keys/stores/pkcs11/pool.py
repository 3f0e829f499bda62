"""Signing sessions: as many as threads sign at once, each with its own handle of each key.

A session does one operation at a time (PKCS#11 v2.40, section 5.1), so a thread that signs has one to
itself. They are opened without a PIN: the login is the process's.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import exceptions as ckr

from hsm_keys.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.stores.pkcs11.module import Module

__all__ = ["Lane", "PoolClosedError", "SessionPool"]

_POLL_S: Final = 0.001
_MAX_LANES: Final = 32
"""More than the cores of most machines and fewer than the sessions of most tokens."""


@dataclass(slots=True, eq=False)
class Lane:
    """A session, and the handles of the keys that have signed in it: looking one up is slow."""

    session: Any
    handles: dict[object, Any] = field(default_factory=dict)
    busy: bool = False


class PoolClosedError(StoreUnavailableError):
    """The pool gives no lanes any more: its store was closed, or the module is being brought back."""


class SessionPool:
    """Hands a lane to each thread that signs, and opens a further one while the token allows it.

    Args:
        module: The token's module.
        open_session: Opens a session without a PIN.
    """

    def __init__(self, module: Module, open_session: Callable[[], Any]) -> None:
        self._module = module
        self._open_session = open_session
        # None in the queue is leave to open a lane in place of one that broke.
        self._free: SimpleQueue[Lane | None] = SimpleQueue()
        self._growing = threading.Lock()
        self._limit = _MAX_LANES if module.parallel else 1
        self.closed = False
        self._lanes: set[Lane] = set()
        module.pools.add(self)

    def take(self) -> Lane:
        """Return a lane that nobody else uses; blocks while the token has no more sessions.

        Raises:
            PoolClosedError: If the pool is closed.
        """
        try:
            lane = self._free.get_nowait()
        except Empty:
            lane = self._grow()
        while lane is None and not self.closed:
            lane = self._grow() or self._free.get()
        if lane is not None:
            lane.busy = True  # before `closed` is read, as `retire` reads them the other way round
            if not self.closed:
                return lane
            self.put(lane)
        self._free.put(None)  # wakes the next one that waits
        raise PoolClosedError("the store is closed", hint="open it again to sign")

    def put(self, lane: Lane) -> None:
        """Give a lane back."""
        lane.busy = False
        self._free.put(lane)

    def discard(self, lane: Lane) -> None:
        """Close a lane whose session broke."""
        with suppress(ckr.PKCS11Error):
            lane.session.close()
        with self._growing:
            self._lanes.discard(lane)
        self._free.put(None)

    def retire(self, deadline: float) -> bool:
        """Give no lanes any more, and wait until nobody signs; the sessions are left to whoever finalises the module.

        Args:
            deadline: Until when to wait, on the monotonic clock.

        Returns:
            Whether all lanes came back.
        """
        with self._growing:
            self._limit, self.closed = 0, True
        self._free.put(None)
        while any(lane.busy for lane in list(self._lanes)):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)  # a signature takes about as long, and the way of a lane stays free of locks
        return True

    def close(self) -> None:
        """Close every session."""
        with self._growing:
            self._limit, self.closed = 0, True
            for lane in self._lanes:
                with suppress(ckr.PKCS11Error):
                    lane.session.close()
            self._lanes.clear()
        self._free.put(None)

    def _grow(self) -> Lane | None:
        """Open a lane; None once the limit is reached."""
        with self._growing:
            if len(self._lanes) >= self._limit:
                return None
            try:
                with self._module.mutex:
                    lane = Lane(self._open_session())
            except ckr.SessionCount:
                if not self._lanes:
                    raise
                self._limit = len(self._lanes)
                return None
            self._lanes.add(lane)
            return lane
