"""How often the crash tests kill a workflow.

Unless something else is said, after every sixth effect, and by every sixth fault at Kalshi; each run takes another
sixth. The simulator has been at all of them by then. ``HSM_KEYS_TEST_KILLS=1000`` is how many kills each workflow
takes at random on each store; it is killed after every effect too then, and, of 100 and more, at every place under
every fault. ``HSM_KEYS_TEST_SEED`` repeats what a run that failed chose.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

_T = TypeVar("_T")

VARIABLE: Final = "HSM_KEYS_TEST_KILLS"
AT_RANDOM: Final = int(os.environ.get(VARIABLE, "0"))
THOROUGH: Final = AT_RANDOM >= 100
_SHARE: Final = 6
SEED: Final = os.environ.get("HSM_KEYS_TEST_SEED") or os.urandom(4).hex()


def unlike(places: Sequence[str], side: str = "after") -> list[int]:
    """Return the numbers of places that are unlike each other: a share of them, or all places if the run is thorough.

    A kill after one effect leaves what a kill before the next one leaves: nothing has changed in between.

    Args:
        places: What a whole run went through.
        side: Which of the two stands for both, ``after`` an effect or ``before`` one.
    """
    if THOROUGH:
        return [*range(1, len(places) + 1)]
    edge = 1 if side == "after" else len(places)
    numbers = [number for number, place in enumerate(places, 1) if number == edge or place.startswith(side)]
    return few(numbers)


def few(cases: Sequence[_T]) -> list[_T]:
    """Return a share of cases, in their order, of which each run takes another one; all if the run is thorough."""
    if AT_RANDOM:
        return [*cases]
    first = random.Random(SEED).randrange(_SHARE)  # noqa: S311 - to be repeated
    return [*cases[first % max(1, len(cases)) :: _SHARE]]
