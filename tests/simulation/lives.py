"""Many lives, on all processors."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.simulation.doubles import doubles
from tests.simulation.life import Life
from tests.simulation.script import script_of

_BATCH = 500


def live(seeds: range) -> tuple[Counter[tuple[str, str]], int, list[tuple[int, str]]]:
    """Live the lives of some seeds; return where commands were killed, how many faults hit, and what went wrong."""
    kills: Counter[tuple[str, str]] = Counter()
    faults = 0
    wrong = []
    logging.getLogger("hsm_keys").addHandler(logging.NullHandler())  # what programs are told is no part of the story
    with doubles():
        for seed in seeds:
            lived = Life(script_of(seed)).live()
            kills.update(lived.kills)
            faults += lived.faults
            if lived.violation:
                wrong.append((seed, lived.violation))
    return kills, faults, wrong


@dataclass
class Tally:
    """What came of lives.

    Args:
        kills: Where commands were killed, and how often.
        faults: How many faults hit.
        wrong: Seeds, and what went wrong.
    """

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: int = 0
    wrong: list[tuple[int, str]] = field(default_factory=list)

    def add(self, kills: Counter[tuple[str, str]], faults: int, wrong: list[tuple[int, str]]) -> None:
        self.kills.update(kills)
        self.faults += faults
        self.wrong += wrong


def live_all(first: int, lives: int, workers: int) -> Tally:
    """Live many lives, in processes of their own."""
    tally = Tally()
    batches = [range(seed, min(seed + _BATCH, first + lives)) for seed in range(first, first + lives, _BATCH)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for result in pool.map(live, batches):
            tally.add(*result)
    return tally
