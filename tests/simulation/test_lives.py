"""Thousands of lives, in which nothing that must not be ever is.

``HSM_KEYS_TEST_LIVES=1000000`` has a million lived. A seed that goes wrong: ``python -m tests.simulation --seed N``.
"""

from __future__ import annotations

import os
import re
from collections import Counter

import pytest

from tests.simulation.doubles import doubles
from tests.simulation.effects import Fault, Kind
from tests.simulation.life import Life
from tests.simulation.lives import Tally, live, live_all
from tests.simulation.script import Name, Script, Step, script_of
from tests.simulation.seen import SEEN
from tests.simulation.shrinking import shrunk, told

LIVES = int(os.environ.get("HSM_KEYS_TEST_LIVES", "0"))
_USUAL = 3_000


@pytest.mark.crash
@pytest.mark.timeout(300 + LIVES)
def test_in_no_life_anything_is_so_that_must_never_be() -> None:
    """Few lives are lived in this process: others would first have to load all that lives need."""
    lives = LIVES or _USUAL
    hits = lives // 1000
    tally = live_all(0, lives, os.cpu_count() or 1, hits) if LIVES else live([Name(seed) for seed in range(lives)])
    print(f"{lives} lives, {tally.faults} faults, {tally.kills.total()} kills")  # noqa: T201 - for pytest -rP
    for (command, place), count in sorted(tally.kills.items()):
        print(f"{count:8}  {command}: {place}")  # noqa: T201
    for command, count in tally.least().items():
        print(f"{count:8}  {command}: the least")  # noqa: T201
    assert tally.wrong == []


def test_a_seed_is_the_same_life_each_time() -> None:
    with doubles():
        stories = [Life(script_of(seed), telling=True).live().story for seed in (3, 40, 77)]
        SEEN.clear()
        again = [Life(script_of(seed), telling=True).live().story for seed in (3, 40, 77)]
    assert all(stories)
    assert stories == again


def test_a_command_from_a_state_that_was_seen_before_ends_as_if_it_were_run() -> None:
    def end(seed: int, *, telling: bool) -> tuple[object, ...]:
        lived = Life(script_of(seed), telling=telling)
        done = lived.live()
        ended = [(each.status, each.code) for _, each in lived.ended]
        left = lived.store.snapshot(), *(kalshi.snapshot() for kalshi in lived.kalshis.values())
        return done.violation, done.kills, done.faults, ended, left

    with doubles():
        SEEN.clear()
        recalled = [end(seed % 12, telling=False) for seed in range(24)][12:]
        run = [end(seed, telling=True) for seed in range(12)]
    assert recalled == run


def test_a_command_beside_another_one_is_not_recalled_from_where_objects_had_other_numbers() -> None:
    """A command under way holds objects by their numbers."""

    def adopting(adopt: int, generate: int) -> Script:
        turns = [(Fault(Kind.TURN, at),) for at in (adopt, generate)]
        steps = Step(0, "adopt", faults=turns[0], pause_s=0.0), Step(1, "generate", faults=turns[1], pause_s=0.0)
        return Script(Name(1), "token", (), steps)

    with doubles():
        SEEN.clear()
        assert [Life(adopting(*at)).live().violation for at in ((1, 8), (2, 9))] == ["", ""]


def test_lives_are_aimed_at_where_few_were_killed() -> None:
    tally = live([Name(seed) for seed in range(20)])
    place, count = min(tally.kills.items(), key=lambda item: item[1])
    rare = Tally(kills=Counter({place: count}), examples=tally.examples)
    assert live([*rare.aims(count + 2)]).kills[place] >= 1


def test_a_killed_process_has_no_further_effect() -> None:
    """A kill runs no ``finally``, and no ``except BaseException``."""
    kill = Step(0, "enroll", faults=(Fault(Kind.KILL_AFTER, 1),))
    with doubles():
        lived = Life(Script(Name(1), "token", (), (kill,)), telling=True).live()
    after = lived.story[lived.story.index(next(line for line in lived.story if "killed after" in line)) + 1 :]
    assert "$ enroll" in after[0]
    assert not lived.violation


def test_operators_take_turns() -> None:
    slow = Step(0, "rotate", faults=(Fault(Kind.TURN, 2),))
    with doubles():
        lived = Life(Script(Name(1), "kms", ("enroll",), (slow, Step(1, "rotate"))), telling=True).live()
    who = re.findall(r"operator (\d)", " ".join(lived.story))
    assert who.index("1") < len(who) - 1 - who[::-1].index("0")
    assert not lived.violation


def test_what_goes_wrong_is_told_in_thirty_lines_and_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here revoke destroys before it deletes."""
    monkeypatch.setattr("hsm_keys.lifecycle.revoke.end_api_key", lambda *_, **__: [])
    faults = tuple(Fault(Kind.DELAY, number, seconds=1.0) for number in range(1, 9))
    script = Script(
        Name(1), "vault", ("enroll",), (Step(0, "revoke-destroy", faults=faults), Step(1, "fix")), lag_s=0.4
    )
    with doubles():
        small = shrunk(script)
        story = told(small)
    assert small.steps == (Step(0, "revoke-destroy"),)
    assert small.lag_s == 0.0
    assert len(story) <= 30
    assert "was destroyed, and that lives" in story[-1]
