"""The time for caps: it advances with the machine's uptime, even if its clock is set."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hsm_keys.signing.presign_pool import elapsed_ns

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CapClock", "ClockReading"]

_MS: Final = 1_000_000
"""Nanoseconds."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class ClockReading(NamedTuple):
    """What the clocks say at one moment.

    Attributes:
        cap_ms: The time that counts for caps.
        wall_ms: The wall clock: Unix milliseconds, right or wrong.
        elapsed_ms: Milliseconds on a clock that nobody sets, which begins with each boot; it counts suspend on Linux.
        boot_id: Which boot that is; empty where it isn't known, as on macOS.
    """

    cap_ms: int
    wall_ms: int
    elapsed_ms: int
    boot_id: str

    def later(self, cap_ms: int, wall_ms: int) -> ClockReading:
        """Return what the clocks said later in the same boot."""
        return ClockReading(cap_ms, wall_ms, self.elapsed_ms + cap_ms - self.cap_ms, self.boot_id)


class CapClock:
    """The time that counts for caps, in milliseconds: the wall clock's when it was begun, and steady from then on.

    Args:
        wall_ns: Gives Unix time in nanoseconds, by a clock that may be set while this runs.
        elapsed_ns: Gives nanoseconds on one that isn't.
        boot_id: Which boot the latter counts from; asked of the system if it isn't given.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        elapsed_ns: Callable[[], int] = elapsed_ns,
        boot_id: str | None = None,
    ) -> None:
        self._wall_ns = wall_ns
        self._elapsed_ns = elapsed_ns
        self._boot_id = _boot_id() if boot_id is None else boot_id
        self._ahead_ms = self.wall_ms() - self._elapsed_ms()

    def now_ms(self) -> int:
        """Return the time."""
        return self._elapsed_ns() // _MS + self._ahead_ms

    def wall_ms(self) -> int:
        """Return what the wall clock says; Unix milliseconds."""
        return self._wall_ns() // _MS

    def reading(self) -> ClockReading:
        """Return what the clocks say now."""
        elapsed_ms = self._elapsed_ms()
        return ClockReading(elapsed_ms + self._ahead_ms, self.wall_ms(), elapsed_ms, self._boot_id)

    def go_on_from(self, before: ClockReading, last_ms: int) -> None:
        """Go on from where an earlier process was: over a reboot by the wall clock, as there is no other one.

        Args:
            before: What the clocks said then.
            last_ms: The last time that it noted; this one doesn't begin before it.
        """
        elapsed_ms = self._elapsed_ms()
        is_same_boot = before.boot_id == self._boot_id != ""
        passed_ms = elapsed_ms - before.elapsed_ms if is_same_boot else self.wall_ms() - before.wall_ms
        self._ahead_ms = max(last_ms, before.cap_ms + passed_ms) - elapsed_ms

    def wall_at(self, cap_ms: int) -> int:
        """Return what the wall clock says at such a time, as it is set now; Unix milliseconds."""
        return self.wall_ms() + cap_ms - self.now_ms()

    def _elapsed_ms(self) -> int:
        return self._elapsed_ns() // _MS


@cache
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
