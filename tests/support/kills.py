"""How often the crash tests kill a workflow at random, besides once after every effect.

``HSM_KEYS_TEST_KILLS=1000`` is how many kills each workflow takes on each store; of 100 and more, every place is hit
under every fault too. ``HSM_KEYS_TEST_SEED`` repeats the random ones of a run that failed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE: Final = "HSM_KEYS_TEST_KILLS"
AT_RANDOM: Final = int(os.environ.get(VARIABLE, "0"))
THOROUGH: Final = AT_RANDOM >= 100
SEED: Final = os.environ.get("HSM_KEYS_TEST_SEED") or os.urandom(4).hex()


def unlike(places: Sequence[str], side: str = "after") -> list[int]:
    """Return the numbers of the places that are unlike each other; of all places if the run is thorough.

    A kill after one effect leaves what a kill before the next one leaves: nothing has changed in between.

    Args:
        places: What a whole run went through.
        side: Which of the two stands for both, ``after`` an effect or ``before`` one.
    """
    edge = 1 if side == "after" else len(places)
    return [number for number, place in enumerate(places, 1) if THOROUGH or number == edge or place.startswith(side)]
