"""Coroutines that are begun at once: a turn of the event loop costs as much as judging a request."""

from __future__ import annotations

import asyncio
from types import coroutine
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


@coroutine
def _rest(work: Coroutine[Any, Any, None], awaited: object) -> Generator[Any, Any, None]:
    """Go on with a coroutine that waits for something."""
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
