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

_MOST: Final = {True: 8, False: 40}
"""Up to which change, and up to which effect, something goes wrong."""

_AFTER: Final = {
    **AFTER,
    (): (*AFTER[()], "revoke"),
    ("enroll", "rotate"): (*AFTER["enroll", "rotate"], "page-old"),
}

_WRONG_PLACE: Final = 0.2
"""How often a command is pointed at the other environment."""

_BYSTANDER: Final = 0.1
"""How often somebody else has an API key of that name."""

_CHANGES: Final = 0.7
"""How often something goes wrong at a change."""

_KINDS: Final = (
    *(Kind.KILL_BEFORE, Kind.KILL_AFTER, Kind.KILL_AFTER, Kind.KILL_AFTER),
    *(Kind.LATE, Kind.TWICE, Kind.EARLY, Kind.LOSE_ANSWER, Kind.LOSE_REQUEST),
)


def aimed_at(commands: Collection[str], seed: int) -> Script:
    """Make a life that begins with one of the commands, wherever a life can begin with it.

    In half of those with two operators, they do nothing but wait for each other.
    """
    source = random.Random(f"aimed at {sorted(commands)}, {seed}")  # noqa: S311 - to be repeated
    begin = source.choice([begin for begin, follow in _AFTER.items() if set(follow).intersection(commands)])
    first = [command for command in _AFTER[begin] if command in commands]
    later = [*commands] * 6 + [*_AFTER[begin], *LATER]
    operators = source.choice((1, 2))
    kinds = (Kind.TURN,) if operators == 2 and source.choice((True, False)) else _KINDS
    steps = tuple(
        Step(
            number % operators,
            source.choice(first if number == 0 else later),
            NAME,
            "demo" if kinds is _KINDS and source.random() < _WRONG_PLACE else "prod",
            tuple(_fault(source, kinds) for _ in range(source.choice((0, 1, 1, 1, 2)))),
            source.choice((0.0, 0.0, 5.0)),
        )
        for number in range(source.choice((2, 2, 3)))
    )
    plain = script_of(seed)
    elsewhere = begin == () and steps[0].command == "revoke"  # there is nothing to revoke but what Kalshi alone has
    if elsewhere:
        steps = (replace(steps[0], environment="demo"), *steps[1:])
    return replace(
        plain,
        name=Name(seed),
        begin=begin,
        steps=steps,
        bootstrap=plain.bootstrap or begin in {(), ("mint",)},
        lag_s=source.choice((0.0, 0.4, 1.5)) if kinds is _KINDS else 0.0,
        skew_s=0.0,
        bystander=elsewhere or source.random() < _BYSTANDER,
        yesterday=-1,
    )


def _fault(source: random.Random, kinds: tuple[Kind, ...]) -> Fault:
    changes = source.random() < _CHANGES
    kind = source.choice(kinds)
    seconds = source.choice((0.5, 1.5)) if kind in {Kind.LATE, Kind.EARLY, Kind.TWICE} else 0.0
    return Fault(kind, source.randint(1, _MOST[changes]), changes, seconds)
