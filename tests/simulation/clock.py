"""Time that passes only where somebody waits, and what is to happen at some later time."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START_S = 1_800_000_000.0


class Clock:
    """The time of a life, in seconds."""

    def __init__(self) -> None:
        self.now = START_S
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is to happen later."""
        return not self._later

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Have something done in so many seconds."""
        self._count += 1
        heapq.heappush(self._later, (self.now + seconds, self._count, act))

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._later and self._later[0][0] <= end:
            self.now, _, act = heapq.heappop(self._later)
            act()
        self.now = end


class Attempt:
    """Stands for one of stamina's attempts."""

    def __init__(self, num: int, on: Any, *, last: Callable[[], bool]) -> None:
        self.num = num
        self.failed = False
        self._on = on
        self._last = last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        self.failed = isinstance(error, self._on) and not self._last()
        return self.failed


def attempts(
    clock: Clock,
    jitter: Callable[[], float],
    wait: Callable[[float], None],
    *,
    on: Any,
    attempts: int | None = 10,
    timeout: float | None = 45.0,
    wait_initial: float = 0.1,
    wait_max: float = 5.0,
) -> Iterator[Attempt]:
    """Stand in for ``stamina.retry_context``: the same waits, on the clock of a life."""
    begun = clock.now
    number = 0
    while True:
        number += 1
        pause = min(wait_max, wait_initial * 2 ** (number - 1) + jitter())

        def is_last(number: int = number, pause: float = pause) -> bool:
            spent = attempts is not None and number >= attempts
            return spent or (timeout is not None and clock.now - begun + pause >= timeout)

        attempt = Attempt(number, on, last=is_last)
        yield attempt
        if not attempt.failed:
            return
        wait(pause)
