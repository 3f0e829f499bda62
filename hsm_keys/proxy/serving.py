"""Connections of clients: how many there may be, and what is answered to what isn't HTTP."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    Refusal = Callable[[web.BaseRequest, int, BaseException | None], web.StreamResponse]

__all__ = ["ACCEPTED_AT_ONCE", "ClientServer", "raise_file_limit"]

_SETTINGS: Final[dict[str, Any]] = {"access_log": None, "keepalive_timeout": 3600.0, "auto_decompress": False}
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

    Beyond its share of the files that may be open, half of them being for Kalshi's side, the connection that has been
    idle for longest is closed for the new one. A request that has begun and isn't whole is idle as well.

    Args:
        answer: Answers requests.
        refuse: Answers what isn't a request, or couldn't be answered.
        files: How many files may be open.
    """

    def __init__(self, answer: Handler, refuse: Refusal, *, files: int) -> None:
        super().__init__(self._answer_busily)
        self._answer = answer
        self._most = max(_FEWEST, (files - _UNCOUNTED - _KEPT_FREE) // 2)
        self._idle: dict[web.RequestHandler, asyncio.Transport] = {}  # the one that has been idle for longest first
        self._busy: set[web.RequestHandler] = set()
        self._refuse = refuse

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count it, and close another one if there are too many."""
        super().connection_made(handler, transport)
        self._idle[handler] = transport
        if len(self._idle) + len(self._busy) > self._most:
            self._idle.pop(next(iter(self._idle))).abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Count it no longer."""
        super().connection_lost(handler, exc)
        self._idle.pop(handler, None)
        self._busy.discard(handler)

    async def _answer_busily(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = request.protocol
        if self._idle.pop(handler, None) is not None:
            self._busy.add(handler)
        try:
            answer = await self._answer(request)
            if "Upgrade" in request.headers:  # to h2c, say: the library may have put aside what came behind it
                answer.force_close()
            return answer
        finally:
            if handler in self._busy:
                self._busy.discard(handler)
                if request.transport is not None:
                    self._idle[handler] = request.transport

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
