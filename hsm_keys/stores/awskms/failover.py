"""Which Region is asked first: the preferred one, unless it failed and hasn't answered since."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RegionOrder"]

_PROBE_AFTER_S: Final = 5.0


class RegionOrder:
    """The Regions of a store, in the order in which they are worth asking now.

    A Region that failed goes to the end, for every thread and every signature after it. When ``probe_after_s``
    have passed, one thread asks it something harmless, off the signing path; only when it answers does it get
    its place back.

    Args:
        regions: In the order of preference.
        clock: Gives seconds that never go back.
        probe_after_s: Seconds from a failure to the next probe.
    """

    def __init__(
        self,
        regions: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        probe_after_s: float = _PROBE_AFTER_S,
    ) -> None:
        self._preferred: Final = tuple(regions)
        self._clock = clock
        self._probe_after_s = probe_after_s
        self._probe_at: dict[str, float] = {}
        self._probing: set[str] = set()
        self._lock = threading.Lock()
        self.current: tuple[str, ...] = self._preferred
        """The order now; read without a lock, replaced as a whole."""

    @property
    def disturbed(self) -> bool:
        """Whether a Region is out of its place."""
        return bool(self._probe_at)

    def failed(self, region: str) -> None:
        """Put a Region to the end; those that failed keep their preference among themselves."""
        with self._lock:
            self._probe_at[region] = self._clock() + self._probe_after_s
            self._probing.discard(region)
            self._reorder()

    def answered(self, region: str) -> None:
        """Give a Region its place back."""
        with self._lock:
            self._probe_at.pop(region, None)
            self._probing.discard(region)
            self._reorder()

    def to_probe(self) -> str | None:
        """Return a Region that is due for a probe, to one caller only; report back how it went."""
        with self._lock:
            now = self._clock()
            for region, due in self._probe_at.items():
                if due <= now and region not in self._probing:
                    self._probing.add(region)
                    return region
        return None

    def _reorder(self) -> None:
        self.current = tuple(sorted(self._preferred, key=self._probe_at.__contains__))
