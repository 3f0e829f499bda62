"""The workflows that are killed, and what must be there once each has come to its end."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hsm_keys.sandbox import parse_fault
from tests.crash.worlds import ENROLL, KEY_TYPES, NAME, ROTATE, names_of
from tests.support.killing import Ended, Killer, Moment
from tests.support.kills import unlike

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tests.crash.worlds import World

REQUEST: Final = ["request", "GET", "/portfolio/balance", "--name", NAME]
_RUNS: Final = 8
"""More than enough to come to the end: a fault hits once."""


@dataclass(frozen=True)
class Workflow:
    """A command that is killed, and run again until it has come to its end.

    Args:
        name: What the test calls it.
        command: The command line.
        end: What is there in the end: the ``new`` key alone, the ``old`` one alone, or ``none``.
        faults: What goes wrong at Kalshi meanwhile, one at a time.
        stage: How many of the commands ``enroll`` and ``rotate`` were run before.
        first: What is killed first, if it is another command.
        over: The errors' codes that the command ends with if there is nothing left to do.
        alone: The account has no bootstrap key.
    """

    name: str
    command: list[str]
    end: str
    faults: tuple[str, ...]
    stage: int = 0
    first: list[str] | None = None
    over: frozenset[str] = frozenset()
    alone: bool = False

    @property
    def rotates(self) -> bool:
        return "rotate" in self.command

    def commands(self, key_type: str) -> tuple[list[str], list[str]]:
        """Return the command that is killed first, and the one that is run again."""
        makes = self.command[0] in {"enroll", "generate", "migrate"}
        command = [*self.command, "--key-type", key_type] if makes else self.command
        return self.first or command, command


_POST: Final = ("POST /api_keys:drop-before:1", "POST /api_keys:drop-after:1")
_DELETE: Final = ("DELETE /api_keys/{api_key}:drop-before:1", "DELETE /api_keys/{api_key}:drop-after:1")
_GENERATE: Final = ("POST /api_keys/generate:drop-before:1", "POST /api_keys/generate:drop-after:1")
_ABORT: Final = [*ROTATE, "--abort"]
_NOT_UNDER_WAY: Final = frozenset({"key"})

WORKFLOWS: Final = (
    Workflow("enroll", ENROLL, "new", _POST, over=frozenset({"key_exists"})),
    Workflow("migrate", ["migrate", NAME, "--yes", "--output", "json"], "new", _POST),
    Workflow(
        "generate",
        ["generate", NAME, "--output", "json"],
        "new",
        (*_GENERATE, *_DELETE),
        over=frozenset({"key_exists"}),
    ),
    Workflow("rotate", ROTATE, "new", (*_POST, *_DELETE), stage=1),
    Workflow("rotate-alone", ROTATE, "new", (*_POST, *_DELETE), stage=1, alone=True),
    Workflow("finish", [*ROTATE, "--finish"], "new", _DELETE, stage=2, over=_NOT_UNDER_WAY),
    Workflow("abort", _ABORT, "old", _DELETE, stage=2, over=_NOT_UNDER_WAY),
    Workflow("abort-begun", _ABORT, "old", (*_POST, *_DELETE), stage=1, first=ROTATE, over=_NOT_UNDER_WAY),
    Workflow("abort-alone", _ABORT, "old", _DELETE, stage=1, first=ROTATE, over=_NOT_UNDER_WAY, alone=True),
    Workflow(
        "revoke",
        ["revoke", NAME, "--destroy", "--yes", "--output", "json"],
        "none",
        _DELETE,
        stage=1,
        over=frozenset({"key_not_found"}),
    ),
    Workflow(
        "revoke-alone",
        ["revoke", NAME, "--destroy", "--force", "--yes", "--output", "json"],
        "none",
        _DELETE,
        stage=1,
        over=frozenset({"key_not_registered"}),
        alone=True,
    ),
)


@dataclass(frozen=True)
class Case:
    """One way to be interrupted: a fault at Kalshi, and when the runs are killed, one after another."""

    fault: str
    key_type: str
    moments: tuple[Moment, ...]


@dataclass
class Tally:
    """What came of the cases.

    ``damaged`` are those in which the module itself was killed while it wrote a file, and can't read that any more: a
    case that was killed within an effect or at any moment, and a file that is empty.
    """

    hits: int = 0
    cases: int = 0
    faults: int = 0
    damaged: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Trial:
    """Interrupts one workflow in one world.

    Args:
        workflow: The workflow.
        world: The world.
        killer: Runs the commands.
    """

    def __init__(self, workflow: Workflow, world: World, killer: Killer) -> None:
        self._workflow = workflow
        self._world = world
        self._killer = killer
        self.tally = Tally()
        self._places = 1
        self._length_s = 0.0

    def every_place(self, faults: Sequence[str]) -> list[Case]:
        """Return a case for each place of a run that isn't killed, as ``unlike`` has them; an empty fault is none."""
        cases = []
        for fault in faults:
            self._begin(fault, KEY_TYPES[0])
            first, _ = self._workflow.commands(KEY_TYPES[0])
            begun = time.monotonic()
            ended = self._run(first)
            self._length_s = time.monotonic() - begun
            if not fault or self._fault_was_used():
                cases += [Case(fault, KEY_TYPES[0], (Moment(place),)) for place in unlike(ended.places)]
                self._places = max(self._places, len(ended.places))
        return cases

    def unkilled(self) -> list[Case]:
        """Return what goes on without a kill: each fault, and the other type of key."""
        return [*(Case(fault, KEY_TYPES[0], ()) for fault in self._workflow.faults), Case("", KEY_TYPES[1], ())]

    def random_case(self, source: random.Random) -> Case:
        """Return a case that is killed up to three times: at a place, in the middle of an effect, or any time."""

        def moment() -> Moment:
            kind = source.random()
            if kind < 0.4:
                return Moment(source.randint(1, self._places))
            if kind < 0.7:
                return Moment(source.randint(1, self._places), source.uniform(0, 0.003))
            return Moment(0, source.uniform(0, self._length_s))

        fault = source.choice(("", *self._workflow.faults))
        moments = tuple(moment() for _ in range(source.choice((1, 2, 3, 3))))
        return Case(fault, source.choices(KEY_TYPES, (7, 1))[0], moments)

    def judge(self, case: Case) -> None:
        """Play a case, and count what came of it."""
        self.tally.cases += 1
        try:
            self._play(case)
        except AssertionError as error:
            # Killed before or after an effect, the run was in no write of the module's: nothing excuses the store then.
            torn = self._world.damaged() if any(moment.late_s is not None for moment in case.moments) else []
            if torn:
                self.tally.damaged.append(f"{case}: {torn}")
            else:
                self.tally.wrong.append(f"{case}: {error}")
        self.tally.faults += bool(case.fault) and self._fault_was_used()

    def _play(self, case: Case) -> None:
        self._begin(case.fault, case.key_type)
        command, again = self._workflow.commands(case.key_type)
        for moment in case.moments:
            ended = self._run(command, moment)
            self.tally.hits += ended.killed
            if self._workflow.rotates:
                self._check_name_works(ended)
            if ended.killed or command is not again:
                command = again
            elif self._over(ended):
                break
        for _ in range(_RUNS):
            ended = self._run(again)
            if self._over(ended):
                break
        else:
            raise AssertionError(f"it doesn't come to an end: {ended}")
        self._check_end()

    def _begin(self, fault: str, key_type: str) -> None:
        self._world.restore(key_type)
        if fault:
            self._world.sandbox.faults.add(parse_fault(fault))

    def _fault_was_used(self) -> bool:
        return not self._world.sandbox.faults.active

    def _run(self, command: list[str], moment: Moment | None = None) -> Ended:
        return self._killer.run(command, moment, self._world.environment)

    def _over(self, ended: Ended) -> bool:
        """Tell whether the workflow has come to its end; a lost answer is the only reason not to."""
        if ended.status == 0:
            return self._workflow.command != ROTATE or json.loads(ended.output)["rotation"]["stage"] == "done"
        if ended.code in self._workflow.over:
            return True
        assert ended.killed or ended.status == 7, f"run again, it ended with {ended}"
        return False

    def _check_name_works(self, ended: Ended) -> None:
        """Whoever uses the name can sign, and the old key lives until the new one is proved."""
        world = self._world
        _, _, works = world.look()
        if world.old in world.live():
            assert world.old in works, f"the old key's private half is gone: {ended}"
        else:
            assert world.proved() - {world.old, world.sandbox.bootstrap_key_id}, f"the old key died too early: {ended}"
        asked = self._run(REQUEST)
        assert asked.status == 0, f"{NAME} doesn't sign after {ended}: {asked.error}"

    def _check_end(self) -> None:
        world = self._world
        halves, litter, works = world.look()
        live = world.live()
        there = f"at Kalshi {live}, in the store {halves}, besides {litter}"
        assert not litter, there
        if self._workflow.end == "none":
            assert not live, there
            assert not halves, there
            return
        assert len(live) == 1, there
        assert names_of(halves) == [NAME], there
        assert works == live, there
        assert (live == {world.old}) is (self._workflow.end == "old"), there


def described(workflow: Workflow, store: str, tally: Tally) -> str:
    """Return a line of a table."""
    right = tally.cases - len(tally.wrong) - len(tally.damaged)
    return (
        f"{workflow.name} | {store} | {tally.cases} cases | {tally.hits} kills hit | {tally.faults} faults hit | "
        f"{right} right | {len(tally.damaged)} damaged | {len(tally.wrong)} wrong"
    )


def first_of(wrong: Sequence[str]) -> str:
    return "\n\n".join(wrong[:5])
