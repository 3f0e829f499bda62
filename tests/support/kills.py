"""How often the crash tests kill a workflow at random, besides once at every place.

``HSM_KEYS_TEST_KILLS=1000`` is how many kills each workflow takes on each store; of 100 and more, every place is hit
under every fault too. ``HSM_KEYS_TEST_SEED`` repeats the random ones of a run that failed.
"""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "HSM_KEYS_TEST_KILLS"
AT_RANDOM: Final = int(os.environ.get(VARIABLE, "0"))
THOROUGH: Final = AT_RANDOM >= 100
SEED: Final = os.environ.get("HSM_KEYS_TEST_SEED") or os.urandom(4).hex()
