"""Looks for planted faults: after how many lives each is found."""

from __future__ import annotations

import logging
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.simulation.aiming import aimed_at
from tests.simulation.doubles import doubles
from tests.simulation.life import Life
from tests.simulation.lives import answers
from tests.simulation.mutants import MUTANTS, Mutant, planted
from tests.simulation.seen import SEEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.simulation.script import Script

_ENDS: Final = ("finish", "abort", "revoke", "revoke-destroy")
_COMMANDS: Final = {
    "inspecting.proof_of_possession": ("enroll", "rotate", "fix"),
    "lifecycle.ending": _ENDS,
    "lifecycle.ending.end_api_key": ("generate", "revoke", "revoke-destroy"),
    "lifecycle.ending._End.delete": ("generate", "revoke", "revoke-destroy"),
    "lifecycle.enroll": ("enroll", "adopt"),
    "lifecycle.generate": ("generate",),
    "lifecycle.late_registration": ("enroll", "revoke-destroy"),
    "lifecycle.made_by_kalshi": ("generate",),
    "lifecycle.registering": ("enroll",),
    "lifecycle.contention": ("enroll", "revoke-destroy"),
    "lifecycle.registering.Registrar._bind": ("enroll", "revoke-destroy"),
    "lifecycle.repairing": ("enroll", "fix"),
    "lifecycle.revocation_plan": ("enroll", "revoke-destroy"),
    "lifecycle.revoke": ("enroll", "revoke", "revoke-destroy"),
    "lifecycle.revoke.Revoker._private_half": ("rotate", "revoke-destroy"),
    "lifecycle.rights": ("rotate",),
    "lifecycle.rotate": ("rotate", "finish", "abort"),
    "lifecycle.rotate.Rotator.abort": ("finish", "abort", "page-old"),
    "lifecycle.rotate.Rotator.finish": ("finish", "page"),
    "lifecycle.rotation_ends": ("rotate", "abort"),
    "lifecycle.rotation_ends.RotationEnds.end_old": ("finish",),
    "lifecycle.rotation_recovery": ("rotate", "abort"),
    "lifecycle.successor_rights": ("rotate",),
    "stores.pkcs11.store": ("finish", "abort"),
    "stores.vault.importing": ("generate",),
}
"""In which commands the code of a module runs, or that of one of its functions; and what leads there."""


class Hunt(NamedTuple):
    """What came of a hunt.

    Args:
        mutant: The planted fault.
        lives: How many lives were lived that are aimed at its commands.
        violation: What gave it away; empty if nothing did.
    """

    mutant: Mutant
    lives: int
    violation: str


def hunt(mutant: Mutant, lives: int) -> Hunt:
    """Live lives with a planted fault until it is found: until one goes wrong that goes right without it."""
    logging.getLogger("hsm_keys").addHandler(logging.NullHandler())
    begun = 0
    while True:
        found = _first_wrong(mutant, begun, lives)
        if not found.violation:
            return found
        with doubles():
            violation = Life(_script(mutant, found.lives - 1)).live().violation
        SEEN.clear()
        if not violation:
            return found
        begun = found.lives


def _first_wrong(mutant: Mutant, begun: int, lives: int) -> Hunt:
    SEEN.clear()
    try:
        with planted(mutant), doubles():
            for number in range(begun, lives):
                violation = Life(_script(mutant, number)).live().violation
                if violation:
                    return Hunt(mutant, number + 1, violation)
    finally:
        SEEN.clear()
    return Hunt(mutant, lives, "")


def _script(mutant: Mutant, number: int) -> Script:
    place = f"{mutant.module}.{mutant.place}"
    return aimed_at(_COMMANDS.get(place) or _COMMANDS[mutant.module], number)


def hunt_all(lives: int, workers: int, mutants: Sequence[Mutant] = MUTANTS) -> Iterator[Hunt]:
    """Hunt all of them, in processes of their own."""
    with get_context("spawn").Pool(workers) as pool:
        yield from answers(pool, partial(hunt, lives=lives), mutants)
