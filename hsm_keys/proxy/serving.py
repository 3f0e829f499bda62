"""Connections of clients: how many there may be, and what is answered to what isn't HTTP."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    Refusal = Callable[[web.BaseRequest, int, BaseException | None], web.StreamResponse]

__all__ = ["ACCEPTED_AT_ONCE", "CLIENT", "ClientServer", "raise_file_limit"]

_SETTINGS: Final[dict[str, Any]] = {"access_log": None, "keepalive_timeout": 3600.0, "auto_decompress": False}
CLIENT: Final = web.RequestKey("client", str)
"""Whose a request is, once that is known."""

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


class ClientServer(web.Server):
    """Serves clients, and keeps room for the control socket: whoever holds connections can't keep a freeze away.

    Beyond its share of the files that may be open, half of them being for Kalshi's side, a connection is closed for the
    new one: of the client that has most, the one that has been idle for longest. So nobody shuts out the others. A
    request that has begun and isn't whole is idle as well.

    Args:
        answer: Answers requests.
        refuse: Answers what isn't a request, or couldn't be answered.
        client_of: Tells whose a new connection is; empty if only its requests will tell.
        files: How many files may be open.
    """

    def __init__(
        self, answer: Handler, refuse: Refusal, client_of: Callable[[asyncio.Transport], str], *, files: int
    ) -> None:
        super().__init__(self._answer_busily)
        self._answer = answer
        self._most = max(_FEWEST, (files - _UNCOUNTED - _KEPT_FREE) // 2)
        # Of each client, the connection that has been idle for longest first.
        self._idle: defaultdict[str, dict[web.RequestHandler, asyncio.Transport]] = defaultdict(dict)
        self._clients: dict[web.RequestHandler, str] = {}
        self._counts: Counter[str] = Counter()
        self._client_of = client_of
        self._refuse = refuse

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count it, and close another one if there are too many."""
        super().connection_made(handler, transport)
        client = self._client_of(transport)
        self._count(handler, client)
        self._idle[client][handler] = transport
        if len(self._clients) > self._most:
            self._close_one()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Count it no longer."""
        super().connection_lost(handler, exc)
        self._count(handler, None)

    def _count(self, handler: web.RequestHandler, client: str | None) -> None:
        """Count a connection as this client's, and no longer as another one's; None for nobody's."""
        former = self._clients.pop(handler, None)
        if former is not None:
            self._idle[former].pop(handler, None)
            self._counts[former] -= 1
        if client is not None:
            self._clients[handler] = client
            self._counts[client] += 1

    def _close_one(self) -> None:
        for client, _ in self._counts.most_common():
            idle = self._idle[client]
            if idle:
                idle.pop(next(iter(idle))).abort()
                return

    async def _answer_busily(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = request.protocol
        self._idle[self._clients.get(handler, "")].pop(handler, None)
        try:
            answer = await self._answer(request)
            if "Upgrade" in request.headers:  # to h2c, say: the library may have put aside what came behind it
                answer.force_close()
            return answer
        finally:
            if handler in self._clients and request.transport is not None:
                client = request.get(CLIENT, "")
                self._count(handler, client)
                self._idle[client][handler] = request.transport

    def __call__(self) -> web.RequestHandler:
        """Return what looks after a new connection."""
        return _Connection(self, self._refuse)


class _Connection(web.RequestHandler):
    """A client's connection. What can't be parsed is neither logged nor sent back: it may hold a token."""

    def __init__(self, manager: web.Server, refuse: Refusal) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **_SETTINGS)
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - the library's words quote the request
    ) -> web.StreamResponse:
        """Answer what couldn't be parsed, or what raised an error."""
        answer = self._refuse(request, status, exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun already")
        answer.force_close()
        return answer
