"""Coroutines that are begun at once: a turn of the event loop costs as much as judging a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["begin", "in_task"]


def begin(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """Do what a coroutine has to do before it waits; return the task of the rest, None if it had nothing to wait for.

    Until then it is in no task, and ``asyncio.timeout`` and its like can't be used; see ``in_task``. Only for callbacks
    of the event loop: what is begun in a task would take it for its own.

    Args:
        work: The coroutine, which raises nothing.
        loop: The loop that runs.
    """
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return loop.create_task(_rest(work, awaited))


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
