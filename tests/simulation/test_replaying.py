"""The model's ways, walked by the workflows' own code: both come to the same, step by step."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.simulation import enrolment, replaying_enrolment
from tests.simulation.model import Rules, search, way_to
from tests.simulation.replaying import Walk, stops

if TYPE_CHECKING:
    from tests.simulation.model import Reached, State

_USUAL = 40
_WALKS = int(os.environ.get("HSM_KEYS_TEST_LIVES", "0")) or _USUAL


def _beginning(state: State, reached: Reached) -> State:
    while (before := reached[state]) is not None:
        state = before[0]
    return state


def test_the_code_does_what_the_model_says() -> None:
    reached, _ = search(Rules())
    states = list(reached)
    with stops():
        for state in random.Random(1).sample(states, min(_WALKS, len(states))):  # noqa: S311 - to be repeated
            way = way_to(state, reached)
            walk = Walk(_beginning(state, reached))
            parted = walk.walk(way)
            walk.close()
            assert not parted, "; ".join(str(step) for step, _ in way)


@pytest.mark.parametrize("runs", [1, 2])
def test_enroll_does_what_the_model_says(runs: int) -> None:
    reached, _ = enrolment.search(enrolment.Rules(), runs=runs)
    states = random.Random(1).sample(list(reached), min(_WALKS, len(reached)))  # noqa: S311 - to be repeated
    with replaying_enrolment.stops():
        for state in states:
            way = enrolment.way_to(state, reached)
            walk = replaying_enrolment.Walk()
            parted = walk.walk(way)
            walk.close()
            assert not parted, "; ".join(str(step) for step, _ in way) + f": {parted}"
