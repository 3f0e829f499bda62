"""Looks for planted faults: after how many lives each is found."""

from __future__ import annotations

import logging
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.simulation.doubles import doubles
from tests.simulation.life import Life
from tests.simulation.lives import answers
from tests.simulation.mutants import MUTANTS, Mutant, planted
from tests.simulation.script import script_of
from tests.simulation.seen import SEEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.script import Script

_COMMANDS: Final = {
    "lifecycle.rotate": {"rotate", "finish", "abort"},
    "lifecycle.successor_rights": {"rotate"},
    "lifecycle.rights": {"rotate"},
    "lifecycle.revoke": {"revoke", "revoke-destroy"},
    "lifecycle.generate": {"generate"},
    "lifecycle.made_by_kalshi": {"generate"},
    "lifecycle.enroll": {"enroll", "adopt"},
}
"""In which commands the code of a module runs; where it isn't said, in all."""


class Hunt(NamedTuple):
    """What came of a hunt.

    Args:
        mutant: The planted fault.
        lives: How many lives in which its code may run were lived.
        violation: What gave it away; empty if nothing did.
    """

    mutant: Mutant
    lives: int
    violation: str


def hunt(mutant: Mutant, lives: int) -> Hunt:
    """Live lives with a planted fault until it is found."""
    logging.getLogger("hsm_keys").addHandler(logging.NullHandler())
    SEEN.clear()
    try:
        with planted(mutant), doubles():
            for number, script in enumerate(islice(_concerned(mutant), lives), 1):
                violation = Life(script).live().violation
                if violation:
                    return Hunt(mutant, number, violation)
        return Hunt(mutant, lives, "")
    finally:
        SEEN.clear()


def hunt_all(lives: int, workers: int) -> Iterator[Hunt]:
    """Hunt all of them, in processes of their own."""
    with get_context("spawn").Pool(workers) as pool:
        yield from answers(pool, partial(hunt, lives=lives), MUTANTS)


def _concerned(mutant: Mutant) -> Iterator[Script]:
    commands = _COMMANDS.get(mutant.module)
    for script in map(script_of, count()):
        if commands is None or commands.intersection(script.commands):
            yield script
