"""Lives in which much goes wrong where a planted fault is: its commands first, on two machines, one close upon another.

A life of ``script`` reaches a given line seldom, and rarer still with the one fault that shows what the line is for.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tests.simulation.effects import Fault, Kind
from tests.simulation.script import AFTER, LATER, NAME, Name, Step, script_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.simulation.script import Script

_MOST: Final = {True: 10, False: 45}
"""Up to which change, and up to which effect, something goes wrong."""

_KINDS: Final = (
    *(Kind.KILL_BEFORE, Kind.KILL_AFTER, Kind.KILL_AFTER),
    *(Kind.LATE, Kind.TWICE, Kind.EARLY, Kind.LOSE_ANSWER, Kind.LOSE_REQUEST),
)


def aimed_at(commands: Collection[str], seed: int) -> Script:
    """Make a life that begins with one of the commands, wherever a life can begin with it."""
    source = random.Random(f"aimed at {sorted(commands)}, {seed}")  # noqa: S311 - to be repeated
    begins = [begin for begin, follow in AFTER.items() if set(follow).intersection(commands)]
    begin = source.choice(begins or [*AFTER])
    wanted = [command for command in AFTER[begin] if command in commands] or [*AFTER[begin]]
    operators = source.choice((1, 2))
    count = source.choice((2, 2, 3))
    steps = tuple(
        Step(
            number % operators,
            source.choice(wanted if number == 0 else (*commands, *AFTER[begin], *LATER)),
            NAME,
            "demo" if source.random() < 0.1 else "prod",
            tuple(_fault(source, operators) for _ in range(source.choice((0, 1, 1, 1, 2)))),
            source.choice((0.0, 0.0, 5.0)),
        )
        for number in range(count)
    )
    plain = script_of(seed)
    bootstrap = plain.bootstrap or begin in {(), ("mint",)}
    return replace(
        plain,
        name=Name(seed),
        begin=begin,
        steps=steps,
        bootstrap=bootstrap,
        lag_s=source.choice((0.0, 0.4, 1.5)),
        skew_s=0.0,
        bystander=False,
        yesterday=-1,
    )


def _fault(source: random.Random, operators: int) -> Fault:
    changes = source.random() < 0.6
    at = source.randint(1, _MOST[changes])
    if operators > 1 and source.random() < 0.6:
        return Fault(Kind.TURN, at, changes)
    kind = source.choice(_KINDS)
    return Fault(kind, at, changes, source.choice((0.5, 1.5)) if kind in {Kind.LATE, Kind.EARLY, Kind.TWICE} else 0.0)
