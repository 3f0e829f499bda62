"""Several runs of one workflow on one name at the same time, on one machine and on several.

Each run but one is halted at some place, the others come past it, and then it goes on. A machine is a folder for
locks here: with one each, nothing but Kalshi and the store keep the runs apart.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.crash.worlds import ENROLL, NAME, ROTATE, names_of
from tests.support.killing import Ended, Killer, Moment
from tests.support.kills import unlike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.crash.worlds import World

    Runners = Callable[..., list[Killer]]

pytestmark = [pytest.mark.crash, pytest.mark.timeout(400)]

COMMANDS = [
    pytest.param(0, [*ENROLL, "--key-type", "ed25519"], id="enroll"),
    pytest.param(1, ROTATE, id="rotate"),
]
CLEAR = {"key_busy", "key_exists", "key_not_found", "key_ambiguous", "key", "aws_key_state"}


@pytest.fixture
def runners(tmp_path: Path) -> Iterator[Runners]:
    """Starts processes that run commands, all on one machine, or each on its own."""
    with ExitStack() as stack:

        def start(world: World, count: int, *, machines: int) -> list[Killer]:
            started = []
            for number in range(count):
                folder = tmp_path / f"machine-{number % machines}"
                folder.mkdir(exist_ok=True)
                started.append(stack.enter_context(world.start(XDG_RUNTIME_DIR=str(folder))))
            return started

        yield start


def at_once(world: World, runners: list[Killer], command: list[str], place: int) -> list[Ended]:
    """Halt all runs at the place, then let them go on together."""
    for runner in runners:
        runner.begin(command, Moment(place), world.environment, halt=True)
    halted = [runner for runner in runners if runner.halted()]
    for runner in halted:
        runner.go_on()
    return [runner.end() for runner in runners]


def overtaken(world: World, runners: list[Killer], command: list[str], place: int) -> list[Ended]:
    """Halt one run at the place while another one runs from beginning to end."""
    slow, fast = runners
    slow.begin(command, Moment(place), world.environment, halt=True)
    halted = slow.halted()
    first = fast.run(command, environment=world.environment)
    if halted:
        slow.go_on()
    return [first, slow.end()]


def stage_of(ended: Ended) -> str:
    return str(json.loads(ended.output).get("rotation", {}).get("stage", "")) if ended.status == 0 else ""


def check_clear(ended: list[Ended]) -> None:
    """Every run has ended well, or says what stood in its way and what to do."""
    for run in ended:
        if run.status != 0:
            error = json.loads(run.error)["error"]
            assert run.status in {5, 6, 7, 8}, run
            assert error["message"], run
            assert "Traceback" not in run.error, run


def come_to_an_end(world: World, runner: Killer, command: list[str]) -> None:
    """Run the command again until it says that it is done, and look at what is there."""
    for _ in range(6):
        ended = runner.run(command, environment=world.environment)
        if ended.code == "key_exists" or (ended.status == 0 and stage_of(ended) in {"", "done"}):
            break
    else:
        raise AssertionError(f"it doesn't come to an end: {ended}")
    halves, litter, works = world.look()
    there = f"at Kalshi {world.live()}, in the store {halves}, besides {litter}"
    assert len(world.live()) == 1, there
    assert names_of(halves) == [NAME], there
    assert works == world.live(), there
    assert litter == [], there


def problem_of(world: World, runner: Killer, command: list[str], ended: list[Ended]) -> str:
    """Return what is wrong after these runs, also when the command has run again; empty if nothing is."""
    try:
        check_clear(ended)
        come_to_an_end(world, runner, command)
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("stage", "command"), COMMANDS)
def test_on_one_machine_one_wins(
    stage: int, command: list[str], make_world: Callable[..., World], runners: Runners
) -> None:
    world = make_world(stage)
    processes = runners(world, 3, machines=1)
    places = runners(world, 1, machines=1)[0]
    world.restore("ed25519")
    for place in range(1, len(places.run(command, environment=world.environment).places), 4):
        world.restore("ed25519")
        ended = at_once(world, processes, command, place)
        assert sorted(run.status for run in ended) == [0, 5, 5], f"halted at {place}: {ended}"
        assert {run.code for run in ended if run.status} <= {"key_busy", "key_exists"}, f"halted at {place}: {ended}"
        if command is not ROTATE:
            come_to_an_end(world, processes[0], command)
            continue
        (done,) = (run for run in ended if run.status == 0)
        assert stage_of(done) == "grace"
        halves, litter, works = world.look()
        assert (names_of(halves), litter) == ([NAME, f"{NAME}+retired"], [])
        assert works == world.live()
        assert len(works) == 2


@pytest.mark.parametrize("meet", [at_once, overtaken])
@pytest.mark.parametrize(("stage", "command"), COMMANDS)
def test_on_two_machines_nothing_is_doubled(
    stage: int,
    command: list[str],
    meet: Callable[..., list[Ended]],
    make_world: Callable[..., World],
    runners: Runners,
) -> None:
    world = make_world(stage)
    processes = runners(world, 2, machines=2)
    world.restore("ed25519")
    wrong = []
    whole = processes[0].run(command, environment=world.environment)
    for place in unlike(whole.places, "before"):  # what was read by then is acted upon, whatever the others have done
        for _ in range(3):
            world.restore("ed25519")
            ended = meet(world, processes, command, place)
            problem = problem_of(world, processes[0], command, ended)
            if not (problem and world.muddled()):
                break
        if problem:
            wrong.append(f"halted at {place}: {problem}; the runs: {ended}")
    assert not wrong, "\n\n".join(wrong)
