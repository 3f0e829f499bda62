"""What was seen before: a command that nothing befalls ends, from the same state, as it did then.

Half of all commands are such: those that are run to the end, and those whose faults lie behind their last effect. So
they are run once for each state, and looked up after that; a state is known by the hash of all that a command can see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.simulation.doubles import STAGE

if TYPE_CHECKING:
    from tests.simulation.effects import Process
    from tests.simulation.life import Ended, Life
    from tests.simulation.script import Step

_MOST: Final = 60_000
"""How many outcomes are kept, some 2 KB each."""


class Outcome(NamedTuple):
    """How a command ended, and what it left.

    Args:
        ended: How it ended.
        effects: How many effects it had.
        changes: How many of them change something.
        seconds: How long it took.
        parts: The store and Kalshi's environments.
        taken: How many pairs and unique bytes it took.
    """

    ended: Ended
    effects: int
    changes: int
    seconds: float
    parts: tuple[Any, ...]
    taken: tuple[int, int]


class State(NamedTuple):
    """What stands for a command and all that it can see.

    Args:
        visible: For what it can see.
        taken: How many pairs and unique bytes have been taken: which ones it would get.
    """

    visible: int
    taken: tuple[int, int]


def _parts(life: Life) -> tuple[Any, ...]:
    return (life.store, *life.kalshis.values())


class Seen:
    """The outcomes of commands, for all lives of this process."""

    def __init__(self) -> None:
        self._outcomes: dict[int | State, Outcome] = {}
        """By what is visible, for a command that takes neither pairs nor unique bytes; else by the whole state."""
        self.beginnings: dict[Any, Any] = {}
        """What the first commands of a life lead to, by all that it depends on."""

    def clear(self) -> None:
        """Forget all: the workflows aren't the same any more."""
        self._outcomes.clear()
        self.beginnings.clear()

    def state(self, life: Life, process: Process, command: str, step: Step, *, bootstrap: bool) -> State | None:
        """Return what stands for a command and all that it can see; None if something is to happen while it runs."""
        world, script, judge = life.world, life.script, life.judge
        if world.telling or not world.clock.idle:
            return None
        visible = hash(
            (
                (command, step.name, step.environment, bootstrap, process.skew_s, process.luck),
                (script.store, script.scopes, script.subaccount, script.unique),
                (process.machine, *sorted(STAGE.holders)) if STAGE.holders else (),
                (judge.moved, frozenset(judge.proved), frozenset(judge.by_hand), len(life.theirs)),
                life.store.state(),
                life.store.handles() if life.is_shared else (),
                *((kalshi.lag_s, kalshi.snapshot()) for kalshi in life.kalshis.values()),
            )
        )
        return State(visible, (world.pairs_taken, world.uniques_taken))

    def recall(self, life: Life, process: Process, state: State | None) -> Ended | None:
        """Let a command have ended as it did before; return how, or None if it has to be run."""
        if state is None:
            return None
        outcome = self._outcomes.get(state.visible) or self._outcomes.get(state)
        if outcome is None or not process.is_spared(outcome.effects, outcome.changes):
            return None
        world = life.world
        world.clock.pass_(outcome.seconds)
        for part, snapshot in zip(_parts(life), outcome.parts, strict=True):
            part.restore(snapshot)
        world.pairs_taken += outcome.taken[0]
        world.uniques_taken += outcome.taken[1]
        return outcome.ended

    def remember(self, life: Life, process: Process, state: State | None, ended: Ended, begun: float) -> None:
        """Keep how a command ended that nothing befell."""
        if state is None or process.hit:
            return
        world = life.world
        if len(self._outcomes) >= _MOST:
            self._outcomes.clear()
        taken = world.pairs_taken - state.taken[0], world.uniques_taken - state.taken[1]
        self._outcomes[state if any(taken) else state.visible] = Outcome(
            ended,
            process.effects,
            process.changes,
            world.clock.now - begun,
            tuple(part.snapshot() for part in _parts(life)),
            taken,
        )


SEEN: Final = Seen()
