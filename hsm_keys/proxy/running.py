"""Requests that were allowed and aren't answered yet: how many a client has, and when they are ended early."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.proxy.access import Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hsm_keys.proxy.access import Caller
    from hsm_keys.proxy.client_requests import ClientRequest


__all__ = ["MOST_AT_ONCE", "Running", "RunningRequests", "Stop", "StoppedError"]

MOST_AT_ONCE: Final = 256
"""Requests that one client may have under way."""


class Stop:
    """Why requests are stopped.

    Args:
        status: The HTTP status of the answer to a request that wasn't sent.
        code: A stable word.
        message: What the client is told.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status: Final = status
        self.code: Final = code
        self.message: Final = message


class StoppedError(Exception):
    """The request was stopped before it was signed.

    Args:
        stop: Why.
    """

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.message)
        self.stop: Final = stop


class Running:
    """A request under way; ``with`` around what may be stopped, which raises ``StoppedError`` then.

    Args:
        caller: Whose it is.
        request: What was asked; None if a task asks.
    """

    def __init__(self, caller: Caller, request: ClientRequest | None = None) -> None:
        self.caller: Final = caller
        self.stopped: Stop | None = None
        self._request = request
        self._task: asyncio.Task[Any] | None = None
        self._cancelled: asyncio.Task[Any] | None = None
        self._is_cancelled = False
        self._end: Callable[[], None] | None = None

    def stop(self, stop: Stop) -> None:
        """End it as soon as may be; before it has been judged there is nothing to end."""
        if self.stopped is None and self._end is not None:
            self.stopped = stop
            self._end()

    def end_by(self, end: Callable[[], None]) -> None:
        """End it by this function from now on, and not by a cancellation."""
        self._end = end
        if self.stopped is not None:
            end()

    def check(self) -> None:
        """Raise ``StoppedError`` if it was stopped."""
        if self.stopped is not None:
            raise StoppedError(self.stopped)

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._end = self._cancel

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cancelled, self._cancelled = self._cancelled, None
        self._end = self._task = None  # they hold the task, which holds this
        by_others = cancelled is not None and cancelled.uncancel()
        if self._is_cancelled and not by_others and kind is asyncio.CancelledError:
            self.check()

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._task is not None:
            self._cancelled = self._task
            self._task.cancel()
        elif self._request is not None and self._request.begun is not None:
            self._cancelled = self._request.begun.cancel()


class _Counted:
    """Counts a request for as long as it is entered."""

    __slots__ = ("_all", "_counts", "_running")

    def __init__(self, running: Running, all_running: set[Running], counts: dict[str, int]) -> None:
        self._running = running
        self._all = all_running
        self._counts = counts

    def __enter__(self) -> Running:
        client = self._running.caller.client
        self._counts[client] = self._counts.get(client, 0) + 1
        self._all.add(self._running)
        return self._running

    def __exit__(self, *_raised: object) -> None:
        client = self._running.caller.client
        self._all.discard(self._running)
        self._counts[client] -= 1
        if not self._counts[client]:
            del self._counts[client]


class RunningRequests:
    """All of a proxy's requests that are under way.

    Attributes:
        hear: Called with a client's name at each sign of life.
    """

    def __init__(self) -> None:
        self.hear: Callable[[str], None] = lambda _client: None
        self._all: set[Running] = set()
        self._counts: dict[str, int] = {}

    def counted(self, caller: Caller, request: ClientRequest | None = None) -> _Counted:
        """Return what counts a request of a client while it is under way: ``with``, as the request.

        Args:
            caller: Whose it is.
            request: What was asked; None if a task asks.

        Raises:
            Refused: If the client has too many.
        """
        self.hear(caller.client)
        if self._counts.get(caller.client, 0) >= MOST_AT_ONCE:
            raise Refused(429, "busy", f"the client has {MOST_AT_ONCE} requests under way")
        return _Counted(Running(caller, request), self._all, self._counts)

    @property
    def are_one(self) -> bool:
        """Whether there is one request alone."""
        return len(self._all) == 1

    def stop(self, stop: Stop, *, of: Callable[[Caller], bool] = lambda _caller: True) -> None:
        """Stop the requests of those for whom a function says so, their WebSockets too."""
        for running in list(self._all):
            if of(running.caller):
                running.stop(stop)
