"""The model's ways, walked by the workflows' own code: both come to the same, step by step."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from tests.simulation import enrolment, replaying_enrolment
from tests.simulation.model import Rules, search, way_to
from tests.simulation.replaying import Walk, stops
from tests.simulation.test_model import LosesAnswers

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


def test_enroll_does_what_the_model_says() -> None:
    """Also what it should not do, where an answer is lost: it deletes what the other machine has bound."""
    reached, _ = enrolment.search(enrolment.Rules())
    states = random.Random(1).sample(list(reached), min(_WALKS, len(reached)))  # noqa: S311 - to be repeated
    ways = [enrolment.way_to(state, reached) for state in states]
    reached, _ = enrolment.search(LosesAnswers())
    ways.append(enrolment.way_to(next(state for state in reached if enrolment.wrong(LosesAnswers(), state)), reached))
    with replaying_enrolment.stops():
        for way in ways:
            walk = replaying_enrolment.Walk()
            parted = walk.walk(way)
            walk.close()
            assert not parted, "; ".join(str(step) for step, _ in way) + f": {parted}"
        assert walk.state()[0] == "bound to one that is dead"
