"""Connections of clients: how many there may be, and how they end."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hsm_keys.proxy.client_connections import ClientConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.client_connections import AnswerRequest, RefuseRequest

__all__ = ["ACCEPTED_AT_ONCE", "ClientServer", "raise_file_limit"]

_MOST_FILES: Final = 65_536
ACCEPTED_AT_ONCE: Final = 32
"""Connections that the event loop accepts in one round."""

_UNCOUNTED: Final = 4 * ACCEPTED_AT_ONCE  # until a connection is counted and another one is closed, rounds go by
_FEWEST: Final = 16
_KEPT_FREE: Final = 64
"""Files for the store, the audit trail and the control socket."""


def raise_file_limit() -> int:
    """Let this process have as many files open as it may, 65,536 at most; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS has a lower one besides
        return soft
    return wanted


class ClientServer:
    """Serves clients, and keeps room for the control socket: clients that hold connections can't prevent a freeze.

    Beyond its share of the files that may be open, half of them being for Kalshi's side, a connection is closed for the
    new one: of the client that has most, the one that has been idle for longest. So nobody shuts out the others. A
    request of which the head isn't whole is idle as well.

    Args:
        answer: Answers requests.
        refuse: Answers what isn't a request, or couldn't be answered.
        client_of: Tells whose a new connection is; empty if only its requests will tell.
        files: How many files may be open.

    Attributes:
        is_stopping: Whether each connection is closed behind the answer that it waits for.
    """

    def __init__(
        self, answer: AnswerRequest, refuse: RefuseRequest, client_of: Callable[[asyncio.Transport], str], *, files: int
    ) -> None:
        self.is_stopping = False
        self._answer = answer
        self._refuse = refuse
        self._client_of = client_of
        self._most = max(_FEWEST, (files - _UNCOUNTED - _KEPT_FREE) // 2)
        # Of each client, the connection that has been idle for longest first.
        self._idle: defaultdict[str, dict[ClientConnection, asyncio.Transport]] = defaultdict(dict)
        self._clients: dict[ClientConnection, str] = {}
        self._counts: Counter[str] = Counter()
        self._all_closed = asyncio.Event()

    def __call__(self) -> ClientConnection:
        """Return what looks after a new connection."""
        return ClientConnection(self, self._answer, self._refuse)

    def opened(self, connection: ClientConnection, transport: asyncio.Transport) -> None:
        """Count a connection, and close another one if there are too many."""
        client = self._client_of(transport)
        self._count(connection, client)
        self._idle[client][connection] = transport
        if len(self._clients) > self._most:
            self._close_one()

    def lost(self, connection: ClientConnection) -> None:
        """Count it no longer."""
        self._count(connection, None)
        if not self._clients:
            self._all_closed.set()

    def busy(self, connection: ClientConnection) -> None:
        """Note that it has a request to be answered."""
        self._idle[self._clients.get(connection, "")].pop(connection, None)

    def idle(self, connection: ClientConnection, client: str, transport: asyncio.Transport) -> None:
        """Note that its request was answered, and whose it was."""
        if connection in self._clients:
            if self._clients[connection] != client:
                self._count(connection, client)
            self._idle[client][connection] = transport

    async def stop(self, seconds: float) -> None:
        """Close all connections; what is under way is finished first, if it takes no longer than these seconds."""
        self.is_stopping = True
        for connection in list(self._clients):
            connection.close_soon()
        if self._clients:
            self._all_closed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), seconds)
        for connection in list(self._clients):
            connection.abort()

    def _count(self, connection: ClientConnection, client: str | None) -> None:
        """Count a connection as this client's, and no longer as another one's; None for nobody's."""
        former = self._clients.pop(connection, None)
        if former is not None:
            self._idle[former].pop(connection, None)
            self._counts[former] -= 1
        if client is not None:
            self._clients[connection] = client
            self._counts[client] += 1

    def _close_one(self) -> None:
        for client, _ in self._counts.most_common():
            idle = self._idle[client]
            if idle:
                idle.pop(next(iter(idle))).abort()
                return
