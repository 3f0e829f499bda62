"""Fault switches: what goes wrong, for which requests, how many times."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hsm_keys.errors import UsageError
from hsm_keys.kalshi.operations import WEBSOCKETS
from hsm_keys.sandbox.routes import SERVED
from hsm_keys.values import describe, shown_word

__all__ = ["EVERY", "Fault", "FaultKind", "Faults", "Plan", "parse_fault"]

EVERY: Final = "*"
"""Stands for every request in the place of an endpoint."""

_MAX_LATENCY_MS: Final = 600_000
_STATUSES: Final = range(400, 600)
_FORM: Final = "ENDPOINT:WHAT or ENDPOINT:WHAT:TIMES, for example 'POST /api_keys:drop-after:1'"


class FaultKind(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"
    """The work waits for so many milliseconds; the signature was judged before that."""
    STATUS = "status"
    """The request is refused with this status, and no work is done."""
    DROP_BEFORE = "drop-before"
    """The connection ends before the work is done."""
    DROP_AFTER = "drop-after"
    """The work is done, then the connection ends without an answer."""
    TRUNCATE = "truncate"
    """The work is done, and the connection ends half way through the answer's body."""


_ALLOWED_VALUES: Final = {FaultKind.LATENCY: range(1, _MAX_LATENCY_MS + 1), FaultKind.STATUS: _STATUSES}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Args:
        endpoint: Method and path template below ``/trade-api/v2``, as ``DELETE /api_keys/{api_key}``, or ``*``.
        kind: What goes wrong.
        value: Milliseconds for ``latency``, the HTTP status (400 to 599) for ``status``, else None.
        times: How many requests it hits; None for all until it is cleared.

    ``str()`` gives the form that ``parse_fault`` reads.

    Raises:
        UsageError: If there is no such endpoint, or value or times are out of range.
    """

    endpoint: str
    kind: FaultKind
    value: int | None = None
    times: int | None = None

    def __post_init__(self) -> None:
        names = [operation.name for operation in SERVED]
        if self.endpoint not in (EVERY, *names):
            raise UsageError(
                f"{describe(self.endpoint)} is no endpoint of the sandbox",
                hint=f"it has {', '.join(names)}, and {EVERY} for every request",
            )
        handshakes = {handshake.name for handshake in WEBSOCKETS}
        if self.endpoint in handshakes and self.kind in {FaultKind.DROP_AFTER, FaultKind.TRUNCATE}:
            raise UsageError(f"a WebSocket handshake has no answer that {self.kind} could cut")
        allowed = _ALLOWED_VALUES.get(self.kind)
        if allowed is None and self.value is not None:
            raise UsageError(f"the fault {self.kind} takes no value")
        if allowed is not None and self.value not in allowed:
            raise UsageError(f"the fault {self.kind} takes a value from {allowed[0]} to {allowed[-1]}")
        if self.times is not None and self.times < 1:
            raise UsageError("a fault happens at least once", hint="leave TIMES out for a fault that stays")

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value}"
        times = "" if self.times is None else f":{self.times}"
        return f"{self.endpoint}:{self.kind}{value}{times}"


def parse_fault(spec: str) -> Fault:
    """Read ``ENDPOINT:WHAT[:TIMES]``.

    ``WHAT`` is ``latency=MILLISECONDS``, ``status=CODE``, ``drop-before``, ``drop-after`` or ``truncate``.

    Raises:
        UsageError: If the text isn't of that form, or names something that doesn't exist.
    """
    parts = spec.split(":")
    if len(parts) not in {2, 3}:
        raise UsageError(f"{describe(spec)} is not a fault", hint=f"write {_FORM}")
    word, equals, value = parts[1].partition("=")
    try:
        kind = FaultKind(word)
    except ValueError:
        raise UsageError(
            f"there is no fault {shown_word(word, FaultKind)}", hint=f"there are {', '.join(FaultKind)}"
        ) from None
    return Fault(
        endpoint=parts[0],
        kind=kind,
        value=_number(value, f"the value of {word}") if equals else None,
        times=_number(parts[2], "TIMES") if len(parts) == 3 else None,  # noqa: PLR2004 - the third of three parts
    )


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):  # noqa: PLR2004 - far beyond any use
        raise UsageError(f"{what} must be a whole number, not {describe(text)}", hint=f"write {_FORM}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to one request: how long it waits, and what goes wrong then."""

    latency_ms: int
    fault: Fault | None


class Faults:
    """The faults that are switched on; safe to change from any thread while requests are served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[tuple[Fault, int | None]] = []

    def add(self, fault: Fault) -> None:
        """Switch a fault on, behind those that are on."""
        with self._lock:
            self._active.append((fault, fault.times))

    def clear(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self._active.clear()

    @property
    def active(self) -> tuple[Fault, ...]:
        """The faults that are on, each with the times that remain."""
        with self._lock:
            return tuple(Fault(fault.endpoint, fault.kind, fault.value, left) for fault, left in self._active)

    def take(self, endpoint: str) -> Plan:
        """Use up what hits one request: the latencies together, and the oldest of the other faults.

        Args:
            endpoint: Method and path template; empty for a request that no endpoint takes.
        """
        latency_ms = 0
        chosen: Fault | None = None
        with self._lock:
            kept: list[tuple[Fault, int | None]] = []
            for fault, left in self._active:
                hits = fault.endpoint in {EVERY, endpoint} and (fault.kind is FaultKind.LATENCY or chosen is None)
                if hits and fault.kind is FaultKind.LATENCY:
                    latency_ms += fault.value or 0
                elif hits:
                    chosen = fault
                remaining = left - 1 if hits and left is not None else left
                if remaining != 0:
                    kept.append((fault, remaining))
            self._active = kept
        return Plan(latency_ms, chosen)
