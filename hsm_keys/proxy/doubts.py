"""Suspicious parts of a trail with a correct chain: unsigned lines where a proxy would have signed.

Whoever can write to the folder can continue a chain, or begin one, but can't sign it; a proxy that starts later would
sign the lines that it finds. So there may be no more unsigned lines in a row than a proxy makes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.proxy.audit import CHECKPOINT_LINES, CHECKPOINT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    Place = tuple[str, int]
    """A file's name and a line's number."""

__all__ = ["Doubts"]

_MOST_LINES: Final = 2 * CHECKPOINT_LINES
"""Unsigned lines that a proxy can make: it asks for a signature after half of them, and writes on until it has it."""

_LONGEST: Final = timedelta(seconds=2 * CHECKPOINT_S)
"""What may lie between the first and the last of them, in one run."""

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_FORM: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_NEVER: Final = "~"  # after every digit


class Doubts:
    """Follows the lines of a trail, and which of them are signed.

    Args:
        find: Takes a finding: where, and what is wrong.
        wants_signature: Find a trail that has just begun, and isn't signed at all.
        allow_unsigned_tail: Find nothing in unsigned lines at the end, not even that.
    """

    def __init__(self, find: Callable[[Place, str], None], *, wants_signature: bool, allow_unsigned_tail: bool) -> None:
        self._find = find
        self._wants_signature = wants_signature
        self._allow_unsigned_tail = allow_unsigned_tail
        self._seq = 0
        self._time = ""
        self._signed = 0
        self._begin_at_next = True
        self._deadline = _NEVER
        self._late: tuple[Place, str] | None = None
        self._close: tuple[Place, int] | None = None

    def read(self, record: dict[str, Any], place: Place) -> None:
        """Follow a line; ``signed`` comes later, if it is a good checkpoint."""
        self._seq = record["seq"]
        self._follow_time(record["time"], place, opens=record["kind"] == "open")
        if self._late is None and (self._seq - self._signed > _MOST_LINES or self._time > self._deadline):
            unsigned = f"lines {self._signed + 1} to {self._seq} of the trail aren't signed, and more follow"
            self._late = place, f"{unsigned}: a proxy signs every minute and every 10,000 lines, if its store can"
        if record["kind"] not in {"open", "checkpoint"}:  # those of a key that was rotated follow a close
            self._doubt_close()
        if record["kind"] == "close":
            self._close = place, self._seq

    def pass_over(self) -> None:
        """Pass over a line that can't be read, which is a finding already: it may have been what signs a close."""
        self._close = None

    def signed(self, of: int) -> None:
        """Follow a valid checkpoint: the current line, which covers all lines up to ``of``."""
        if self._late is not None:
            self._find(*self._late)
        if self._close is not None and of == self._close[1]:
            self._close = None
        self._doubt_close()
        self._signed = of
        self._late = None
        self._begin_at_next = self._seq == of + 1
        self._deadline = _NEVER if self._begin_at_next else _later(self._time)

    def end(self, place: Place) -> None:
        """Come to the end of the trail."""
        self._doubt_close()
        if self._allow_unsigned_tail:
            return
        if self._signed:
            if self._late is not None:
                self._find(*self._late)
        elif self._wants_signature or self._seq > CHECKPOINT_LINES or self._time > self._deadline:
            self._find(place, "no line is signed; --allow-unsigned-tail is for a trail that a proxy has just begun")

    def _follow_time(self, time: str, place: Place, *, opens: bool) -> None:
        if not _TIME.fullmatch(time):
            self._find(place, "the line's time isn't one")
            return
        if time < self._time:
            self._find(place, f"time runs backwards: the line before is of {self._time}")
        self._time = time
        if self._begin_at_next or opens:  # a proxy that was killed leaves unsigned lines, and a pause before the next
            self._begin_at_next = False
            self._deadline = _later(time)

    def _doubt_close(self) -> None:
        if self._close is not None:
            self._find(self._close[0], "the close isn't signed: a proxy signs it, if its store can")
        self._close = None


def _later(time: str) -> str:
    """Return the time by which a line of that time is signed."""
    try:
        return (datetime.strptime(time, _FORM).replace(tzinfo=UTC) + _LONGEST).strftime(_FORM)
    except (ValueError, OverflowError):  # the 31st of February
        return time
