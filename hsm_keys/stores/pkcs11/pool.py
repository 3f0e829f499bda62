"""Signing sessions: as many as threads sign at once, each with its own handle of each key.

A session does one operation at a time (PKCS#11 v2.40, section 5.1), so a thread that signs has one to
itself. They are opened without a PIN: the login is the process's.
"""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import exceptions as ckr

from hsm_keys.errors import StoreUnavailableError
from hsm_keys.stores.pkcs11.patience import PATIENCE_S, PatientLock, inside, wait_if_ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.stores.pkcs11.module import Module

__all__ = ["PoolClosedError", "PoolMember", "SessionPool"]

_POLL_S: Final = 0.001
_CLOSING_S: Final = 2.0
_MAX_MEMBERS: Final = 32
"""More than the cores of most machines and fewer than the sessions of most tokens."""

_NO_MORE: Final = (ckr.SessionCount, ckr.DeviceMemory, ckr.HostMemory)
"""What modules answer when they can't open a further session."""


@dataclass(slots=True, eq=False)
class PoolMember:
    """A session, and the handles of the keys that have signed in it: looking one up is slow.

    Args:
        session: python-pkcs11's session.
        guard: Held around each signature.
        handles: What signs, for each key.
        busy: Whether a thread is in it.
    """

    session: Any
    guard: AbstractContextManager[object]
    handles: dict[object, Any] = field(default_factory=dict)
    busy: bool = False


class PoolClosedError(StoreUnavailableError):
    """The pool gives no sessions any more: its store was closed, or the module is being brought back."""


class SessionPool:
    """Hands a session to each thread that signs, and opens a further one while the token allows it.

    Args:
        module: The token's module.
        open_session: Opens a session without a PIN.
        managing: The session that holds the login: it signs, too, where the token allows no other one.
    """

    def __init__(self, module: Module, open_session: Callable[[], Any], managing: Any) -> None:
        self._module = module
        self._open_session = open_session
        self._managing = managing
        # None in the queue allows to open a session in place of a broken one.
        self._free: SimpleQueue[PoolMember | None] = SimpleQueue()
        self._growing = PatientLock()
        self._limit = _MAX_MEMBERS if module.parallel else 1
        self._members: set[PoolMember] = set()
        self._state = threading.Lock()  # of the three below
        self.closed = False
        self.halted = False
        self._going_on = threading.Event()
        module.pools.add(self)

    def take(self) -> PoolMember:
        """Return a session that nobody else uses; blocks while the token has no more sessions.

        Raises:
            PoolClosedError: If the pool is closed.
            StoreUnavailableError: If none came free for a long time.
        """
        try:
            member = self._free.get_nowait()
        except Empty:
            member = self._grow()
        while not self.closed:
            if member is None:
                member = self._grow() or self._next()
                continue
            member.busy = True  # before `halted` is read, because `halt` and `is_idle` use the opposite order
            if not self.halted:
                inside.sessions += 1
                return member
            member.busy = False
            if not self._going_on.wait(PATIENCE_S):
                self._free.put(member)
                raise self._stuck()
        if member is not None:
            self._free.put(member)
        self._free.put(None)  # wakes the next one that waits
        wait_if_ending()
        raise PoolClosedError("the store is closed", hint="open it again to sign")

    def put(self, member: PoolMember) -> None:
        """Give a session back."""
        inside.sessions -= 1
        member.busy = False
        self._free.put(member)

    def discard(self, member: PoolMember) -> None:
        """Close a session that broke."""
        with suppress(ckr.PKCS11Error, StoreUnavailableError):
            self._close_session(member)
        self._members.discard(member)  # only now: until then a thread is inside the module
        inside.sessions -= 1
        self._free.put(None)

    def forget(self) -> None:
        """Let every key be looked up again before it signs: a login that was lost made handles worthless."""
        for member in list(self._members):
            member.handles.clear()

    def halt(self, *, for_good: bool) -> None:
        """Give no sessions any more, until ``resume`` if not for good."""
        with self._state:
            self.halted = True
            self._going_on.clear()
            if for_good:
                self.closed = True
                self._going_on.set()
        if for_good:
            self._free.put(None)

    def is_idle(self, deadline: float) -> bool:
        """Wait until nobody signs, or until the deadline on the monotonic clock; return whether nobody does."""
        while any(member.busy for member in list(self._members)):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)  # a signature takes about as long, and so a session needs no lock
        return True

    def resume(self) -> None:
        """Give sessions again, unless they ended for good."""
        with self._state:
            self.halted = self.closed
            self._going_on.set()

    def close(self) -> None:
        """Wait for signatures under way, and close every session; what doesn't return is left as it is.

        Raises:
            StoreUnavailableError: If the module is in another call that doesn't return.
        """
        self.halt(for_good=True)
        if not self.is_idle(time.monotonic() + _CLOSING_S):
            return
        with self._module.mutex:  # not _growing: whoever has that may wait for the mutex, or for the program's end
            for member in self._members:
                with suppress(ckr.PKCS11Error):
                    self._close_session(member)
            self._members.clear()
            self._module.pools.discard(self)

    def _close_session(self, member: PoolMember) -> None:
        if member.session is not self._managing:
            with member.guard:
                member.session.close()

    def _next(self) -> PoolMember | None:
        try:
            return self._free.get(timeout=PATIENCE_S)
        except Empty:
            raise self._stuck() from None

    def _stuck(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the token has returned no signature for {PATIENCE_S:.0f} s, while other threads wait",
            hint="check the token and its daemon; restart this program if they never do",
        )

    def _grow(self) -> PoolMember | None:
        """Open a session; None once the limit is reached."""
        with self._growing:
            if self.closed or len(self._members) >= self._limit:
                return None
            try:
                with self._module.mutex:
                    if self.closed:
                        return None
                    member = PoolMember(self._open_session(), self._module.signing)
                    self._members.add(member)
            except _NO_MORE as error:
                if not self._members and not isinstance(error, ckr.SessionCount):
                    raise
                self._limit = max(1, len(self._members))
                if self._members:
                    return None
                member = PoolMember(self._managing, self._module.mutex)
                self._members.add(member)
            return member
