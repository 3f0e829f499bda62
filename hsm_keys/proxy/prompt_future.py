"""A future whose waiter goes on at once: each turn of the event loop costs as much as judging a request."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

__all__ = ["PromptFuture"]


class PromptFuture(asyncio.Future[None]):
    """A future that one task awaits, and that lets it go on within ``arrive``; a plain one has it wait for a turn."""

    _goes_on: tuple[Callable[[Any], object], Context] | None = None

    def add_done_callback(self, call: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        """Note what lets the task go on; one that comes too late goes on in the loop's next turn."""
        if self.done():
            self.get_loop().call_soon(call, self, context=context)
        else:
            self._goes_on = call, context or copy_context()

    def hear(self, call: Callable[[PromptFuture], object]) -> None:
        """Have this called when it has arrived, where no task waits for it."""
        self._asyncio_future_blocking = False
        self.add_done_callback(call)

    def arrive(self) -> None:
        """Let the task go on; return when it waits for something else, or has ended.

        Only for callbacks of the event loop, such as a protocol's: one task can't go on within another one.
        """
        if not self.done():
            self.set_result(None)
            self._go_on()

    def fail(self, error: BaseException) -> None:
        """Have this raised in the task, in the loop's next turn."""
        if not self.done():
            self.set_exception(error)
            self.get_loop().call_soon(self._go_on)

    def cancel(self, msg: object = None) -> bool:
        """Have the task cancelled in the loop's next turn, and return whether it still waited."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self.get_loop().call_soon(self._go_on)
        return is_cancelled

    def _go_on(self) -> None:
        waits, self._goes_on = self._goes_on, None  # it holds the task, which holds this
        if waits is not None:
            call, context = waits
            context.run(call, self)
