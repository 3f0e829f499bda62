"""How much the stateful tests try: little in CI, and as many examples as ``HSM_KEYS_TEST_EXAMPLES`` says."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["model_settings"]


def model_settings(usual: int, steps: int) -> settings:
    """Return the settings of a state machine.

    Args:
        usual: How many examples it tries, unless the variable says another number.
        steps: How many steps an example has at most.
    """
    return settings(
        max_examples=int(os.environ.get("HSM_KEYS_TEST_EXAMPLES", usual)),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
