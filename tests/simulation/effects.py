"""What can go wrong, and when: each call that leaves a process passes here.

A process that was killed stays dead: a kill runs no ``finally``, so whatever its handlers try afterwards is killed too,
before it has any effect.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SOURCE = random.Random(1)  # noqa: S311 - to be repeated
_JITTER = [_SOURCE.random() for _ in range(61)]


class Killed(BaseException):
    """A process was killed; nothing that workflows do may catch it."""


class Kind(StrEnum):
    """What goes wrong."""

    KILL_BEFORE = "killed before"
    KILL_AFTER = "killed after"
    UNREACHABLE = "not sent"
    LOSE_REQUEST = "request lost"
    LOSE_ANSWER = "answer lost"
    LATE = "carried out late, no answer"
    TWICE = "carried out twice"
    EARLY = "answered, and carried out late"
    DELAY = "slow"
    TURN = "another operator's turn"


KILLS = frozenset({Kind.KILL_BEFORE, Kind.KILL_AFTER})
LOSSES = frozenset({Kind.UNREACHABLE, Kind.LOSE_REQUEST, Kind.LOSE_ANSWER, Kind.LATE, Kind.TWICE})


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in a command.

    Args:
        kind: What.
        at: At which effect of the command, from 1.
        changes: Whether only effects that change something are counted.
        seconds: How late, or how slow.
    """

    kind: Kind
    at: int
    changes: bool = True
    seconds: float = 0.0

    def __str__(self) -> str:
        late = f" by {self.seconds:g} s" if self.seconds else ""
        return f"{self.kind}{late} at {'change' if self.changes else 'effect'} {self.at}"


@dataclass(frozen=True)
class Call:
    """A call that leaves the process.

    Args:
        label: What the story calls it.
        changes: Whether it changes something.
        lost: Gives the error of a call without an answer, told whether it was sent; None where none can be lost.
        twice: Whether it may be carried out twice.
        promise: What is answered where it is carried out later; None where that can't be.
    """

    label: str
    changes: bool = False
    lost: Callable[[bool], Exception] | None = None
    twice: bool = False
    promise: object = None


class Process:
    """One run of a command.

    Args:
        operator: Whose.
        machine: Where; locks are a machine's.
        what: The command, for the story and the tally.
        faults: What goes wrong.
        environment: Where it is pointed at.
        skew_s: How far its clock is off.
        luck: Which jitter it has.
    """

    def __init__(
        self,
        operator: str,
        machine: str,
        what: str,
        faults: tuple[Fault, ...],
        *,
        environment: str = "prod",
        skew_s: float = 0.0,
        luck: int = 0,
    ) -> None:
        self.operator = operator
        self.machine = machine
        self.what = what
        self.environment = environment
        self.skew_s = skew_s
        self.dead = False
        self.killed_at = ""
        self.hit = 0
        self.effects = self.changes = 0
        self.said: list[str] = []
        """Its lines for people."""
        self.listed_s = 0.0
        """When Kalshi listed the API keys to it last."""
        self.made: list[str] = []
        """The API keys of which Kalshi told it that they were made."""
        self.listed: set[str] = set()
        """The API keys that Kalshi has listed to it."""
        self._faults = faults
        self.luck = self._draws = luck

    def jitter(self) -> float:
        """Return the share of a pause that is left to chance."""
        self._draws += 1
        return _JITTER[self._draws % len(_JITTER)]

    def is_spared(self, effects: int, changes: int) -> bool:
        """Tell whether nothing goes wrong with it if it has so many effects, and so many of them change something."""
        return all(fault.at > (changes if fault.changes else effects) for fault in self._faults)

    def due(self, call: Call) -> list[Fault]:
        """Count the call, and return what goes wrong with it."""
        self.effects += 1
        self.changes += call.changes
        if not self._faults:
            return []
        return [
            fault
            for fault in self._faults
            if (fault.at == self.changes and call.changes if fault.changes else fault.at == self.effects)
        ]
