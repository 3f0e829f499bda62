"""Many lives, on all processors: those of the first seeds, then those that are killed where few were."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final, TypeVar

from tests.simulation.doubles import doubles
from tests.simulation.life import Life, Place
from tests.simulation.script import Name, script_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.pool import Pool

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_BATCH: Final = 500
_EXAMPLES: Final = 40
_ROUNDS: Final = 10
_PATIENCE_S: Final = 600.0
"""How long one batch may take; else a process of ours was killed, or hangs."""
_GARBAGE: Final = 100_000
"""After how many new objects Python looks for circles; a life leaves few, and looking for them took a tenth of it."""


@dataclass
class Tally:
    """What came of lives.

    Args:
        lives: How many there were.
        faults: How many faults hit.
        kills: Where commands were killed, and how often.
        examples: Some lives and steps in which a command was killed there.
        wrong: Lives, and what went wrong in them.
    """

    lives: int = 0
    faults: int = 0
    kills: Counter[Place] = field(default_factory=Counter)
    examples: dict[Place, list[Name]] = field(default_factory=dict)
    wrong: list[tuple[Name, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.lives += other.lives
        self.faults += other.faults
        self.kills.update(other.kills)
        self.wrong += other.wrong
        for place, names in other.examples.items():
            known = self.examples.setdefault(place, [])
            known += names[: _EXAMPLES - len(known)]

    def least(self) -> dict[str, int]:
        """Return, for each command and store, how often commands were killed at the place where they were least."""
        found: dict[str, int] = {}
        for (command, _), count in self.kills.items():
            found[command] = min(count, found.get(command, count))
        return dict(sorted(found.items()))

    def aims(self, hits: int) -> Iterator[Name]:
        """Give lives in which commands are killed where they were killed less often than that."""
        for place, count in sorted(self.kills.items()):
            missing = max(0, hits - count)
            for number, example in enumerate(islice(cycle(self.examples[place]), missing), count):
                yield example.going_on(number)


def live(names: Sequence[Name]) -> Tally:
    """Live some lives."""
    tally = Tally(len(names))
    logging.getLogger("hsm_keys").addHandler(logging.NullHandler())  # what programs are told is no part of the story
    with doubles(), _little_garbage():
        for name in names:
            lived = Life(script_of(*name)).live()
            tally.faults += lived.faults
            for place, step in lived.kills:
                tally.kills[place] += 1
                examples = tally.examples.setdefault(place, [])
                example = name.up_to(step)
                if len(examples) < _EXAMPLES and example is not None:
                    examples.append(example)
            if lived.violation:
                tally.wrong.append((name, lived.violation))
    return tally


@contextmanager
def _little_garbage() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(_GARBAGE)
    yield
    gc.set_threshold(*before)


def live_all(first: int, lives: int, workers: int, hits: int = 0) -> Tally:
    """Live many lives, in processes of their own.

    Args:
        first: The first seed.
        lives: How many seeds.
        workers: How many processes.
        hits: How often a command is to be killed at each place where one was killed at all.

    Raises:
        multiprocessing.TimeoutError: If a process doesn't answer; all of them are ended then.
    """
    tally = Tally()
    names = [Name(seed) for seed in range(first, first + lives)]
    with get_context("spawn").Pool(workers, gc.freeze) as pool:
        for _ in range(_ROUNDS):
            batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
            for lived in answers(pool, live, batches):
                tally.add(lived)
            names = list(tally.aims(hits))
    return tally


def answers(pool: Pool, work: Callable[[_In], _Out], given: Iterable[_In]) -> Iterator[_Out]:
    """Give what processes answer, in order; none of them is waited for without end."""
    coming = pool.imap(work, given)
    while True:
        try:
            yield coming.next(_PATIENCE_S)
        except StopIteration:
            return
