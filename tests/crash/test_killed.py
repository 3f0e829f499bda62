"""Each workflow, killed after its effects: run again, it comes to its one end.

Where ``tests.support.kills`` says so, it is killed at random moments too.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.crash.workflows import WORKFLOWS, Trial, Workflow, described, first_of
from tests.support.kills import AT_RANDOM, SEED, THOROUGH, few

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.worlds import World

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300 + 8 * AT_RANDOM)]


@pytest.fixture(params=WORKFLOWS, ids=[workflow.name for workflow in WORKFLOWS])
def workflow(request: pytest.FixtureRequest) -> Workflow:
    chosen: Workflow = request.param
    return chosen


def test_killed_anywhere_it_comes_to_the_same_end(
    workflow: Workflow, store: str, make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(workflow.stage, alone=workflow.alone)
    if workflow.alone:
        monkeypatch.delenv("KALSHI_KEY_ID")
        monkeypatch.delenv("KALSHI_PRIVATE_KEY")
    source = random.Random(f"{SEED} {workflow.name} {store}")  # noqa: S311 - to be repeated
    with world.start() as killer:
        trial = Trial(workflow, world, killer)
        places = trial.every_place(["", *workflow.faults] if THOROUGH else [""])
        assert places
        for case in (*places, *few(trial.unkilled())):
            trial.judge(case)
        while trial.tally.hits < AT_RANDOM:
            trial.judge(trial.random_case(source))
    print(described(workflow, store, trial.tally))  # noqa: T201 - with pytest -rP it makes a table
    print(*trial.tally.damaged, sep="\n")  # noqa: T201
    assert not trial.tally.wrong, f"seed {SEED}: {len(trial.tally.wrong)} wrong\n\n{first_of(trial.tally.wrong)}"
