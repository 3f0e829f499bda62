"""Coroutines that are begun at once, and need no task: a turn of the event loop costs as much as judging a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hsm_keys.proxy.prompt_future import PromptFuture

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["Begun", "begin", "in_task"]


def begin(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> Begun | None:
    """Let a coroutine do what it does before it waits, and return what goes on with it; None if it has ended.

    It goes on at once when a ``PromptFuture`` arrives, and in a task when it waits for anything else. Until then it is
    in no task, and ``asyncio.timeout`` and its like can't be used; see ``in_task``. Only for callbacks of the event
    loop: what is begun in a task would take it for its own.

    Args:
        work: The coroutine. It raises nothing but a cancellation.
        loop: The loop that runs.
    """
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return Begun(work, loop, awaited)


class Begun:
    """Goes on with a coroutine that waits; see ``begin``."""

    __slots__ = ("_loop", "_task", "_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, awaited: object) -> None:
        self._work = work
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._waits_for: PromptFuture | None = None
        self._wait_for(awaited)

    def cancel(self) -> asyncio.Task[None] | None:
        """Cancel what it waits for, and return its task, if it has one: there it is to be uncancelled."""
        if self._task is not None:
            self._task.cancel()
        elif self._waits_for is not None:
            self._waits_for.cancel()
        return self._task

    def _wait_for(self, awaited: object) -> None:
        if isinstance(awaited, PromptFuture):
            awaited.hear(self._go_on)
            self._waits_for = awaited
        else:
            self._task = self._loop.create_task(_rest(self._work, awaited))

    def _go_on(self, arrived: PromptFuture) -> None:
        self._waits_for = None
        try:
            awaited = _sent(self._work, arrived)
        except (StopIteration, asyncio.CancelledError):
            return
        self._wait_for(awaited)


def _sent(work: Coroutine[Any, Any, None], arrived: PromptFuture) -> object:
    """Let a coroutine go on, and return what it waits for next."""
    try:
        arrived.result()
    except BaseException as error:  # noqa: BLE001 - it is raised there
        return work.throw(error)
    return work.send(None)


async def in_task() -> None:
    """Go on within a task: before what needs one."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)


async def _rest(work: Coroutine[Any, Any, None], awaited: object) -> None:
    await _Rest(work, awaited)


class _Rest:
    """What is left of a coroutine that waits for something: to be awaited in its place."""

    __slots__ = ("_awaited", "_work")

    def __init__(self, work: Coroutine[Any, Any, None], awaited: object) -> None:
        self._work = work
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        work, awaited = self._work, self._awaited
        try:
            while True:
                try:
                    sent = yield awaited
                except BaseException as error:  # noqa: BLE001 - a task is cancelled in this way
                    awaited = work.throw(error)
                else:
                    awaited = work.send(sent)
        except StopIteration:
            return
