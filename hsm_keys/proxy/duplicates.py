"""Which orders were sent lately, by client_order_id and by content, so that none is sent twice by mistake."""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING, Final

from hsm_keys.proxy.accounts import CapDenial
from hsm_keys.proxy.caps import LONGEST_DUPLICATE_S

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hsm_keys.proxy.accounts import Demand
    from hsm_keys.proxy.cap_clock import CapClock
    from hsm_keys.proxy.exposures import Key

__all__ = ["Duplicates"]

_REMEMBERED_MS: Final = LONGEST_DUPLICATE_S * 1000


class Duplicates:
    """Orders that went out in the last ten minutes, and in up to ten more."""

    __slots__ = ("_began_ms", "_older", "_recent")

    def __init__(self) -> None:
        # Clients, and when each sent such an order the last time (Unix milliseconds); the latest comes first. Two
        # generations of them, so that none has to be looked for to be dropped.
        self._recent: dict[Key, tuple[tuple[str, int], ...]] = {}
        self._older: dict[Key, tuple[tuple[str, int], ...]] = {}
        self._began_ms = 0

    def against(
        self, client: str, own_ms: int | None, all_ms: int | None, demand: Demand, clock: CapClock
    ) -> CapDenial | None:
        """Return why orders may not go out yet; None if they may.

        Args:
            client: Whose they are.
            own_ms: Milliseconds in which an order of this client doesn't go out twice; None for no such rule.
            all_ms: The same of an order of any client.
            demand: What they ask for.
            clock: Gives the time; it is asked where such an order went out.
        """
        if own_ms is None and all_ms is None:
            return None
        if (repeated := demand.repeated) is not None:
            return _denial(repeated, max(own_ms or 0, all_ms or 0))
        if self._recent.keys().isdisjoint(demand.keys) and self._older.keys().isdisjoint(demand.keys):
            return None
        now_ms = clock.now_ms()
        waits: list[tuple[float, Key]] = []
        for key in demand.keys:
            if sent := self._sent(key):
                own = max((at_ms for whose, at_ms in sent if whose == client), default=-inf) + (own_ms or 0)
                waits.append((max(own, sent[0][1] + (all_ms or 0)) - now_ms, key))
        wait_ms, key = max(waits, key=lambda wait: wait[0], default=(0, ""))
        return _denial(key, wait_ms) if wait_ms > 0 else None

    def note(self, client: str, keys: Collection[Key], now_ms: int) -> None:
        """Remember orders that go out now."""
        if now_ms - self._began_ms > _REMEMBERED_MS:
            self._older, self._recent, self._began_ms = self._recent, {}, now_ms
        entry = ((client, now_ms),)
        for key in keys:
            sent = self._sent(key)
            self._recent[key] = (*entry, *(one for one in sent if one[0] != client)) if sent else entry

    def forget(self, client: str, keys: Collection[Key], at_ms: int) -> None:
        """Forget an order that this client sent at that time: it was never made."""
        for key in keys:
            sent = self._sent(key)
            if (client, at_ms) in sent:
                self._recent[key] = tuple(one for one in sent if one != (client, at_ms))

    def items(self) -> Iterator[tuple[str, Key, int]]:
        """Yield whose, what and when; Unix milliseconds."""
        for key, sent in (self._older | self._recent).items():
            for client, at_ms in sent:
                yield client, key, at_ms

    def _sent(self, key: Key) -> tuple[tuple[str, int], ...]:
        sent = self._recent.get(key)  # empty if the latest sending turned out never to have happened
        return self._older.get(key, ()) if sent is None else sent


def _denial(key: Key, wait_ms: float) -> CapDenial:
    seconds = ceil(wait_ms / 1000)
    what = "that client_order_id" if isinstance(key, str) else "that order"
    return CapDenial("duplicate_seconds", f"{what} went out already; again in {seconds} s", seconds)
