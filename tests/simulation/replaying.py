"""Ways of the model, walked by the workflows' own code: who takes which step, and where it is killed.

A machine is a thread that stops before each step of the model. After each step it is looked whether the code comes to
the step that the model says, and whether keys and API keys are as the model says.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from hsm_keys.errors import HsmKeysError
from hsm_keys.inspecting.proof_of_possession import prove_registration
from hsm_keys.lifecycle import rotate, rotation_ends, rotation_marks
from hsm_keys.lifecycle.ending import end_api_key
from hsm_keys.lifecycle.rotate import Rotator
from hsm_keys.lifecycle.rotation_ends import RotationEnds
from hsm_keys.lifecycle.rotation_recovery import RotationRecovery
from tests.simulation import commands
from tests.simulation.doubles import STAGE, doubles
from tests.simulation.effects import Killed, Process
from tests.simulation.kalshi import Connect
from tests.simulation.life import Life
from tests.simulation.model import GONE, NEXT, State, Step
from tests.simulation.script import NAME, Name, Script
from tests.simulation.token import TokenStore
from tests.simulation.world import Violated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.simulation.effects import Fault

_STUCK_S: Final = 60.0


class Machine(Process):
    """Runs a command on one machine, and stops before each step.

    Args:
        number: Which machine.
        run: The command.
    """

    def __init__(self, number: int, run: Callable[[], object]) -> None:
        super().__init__(f"operator {number}", f"machine {number}", "rotate", ())
        self.at = ""
        self._run = run
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._failure: BaseException | None = None
        threading.Thread(target=self._live, daemon=True).start()
        self.step()

    def step(self) -> None:
        """Let it take the step that it stands before, and come to the next one or to its end."""
        STAGE.world.process = self
        self._go.release()
        if not self._stopped.acquire(timeout=_STUCK_S):
            raise Violated("a machine doesn't come to its next step")
        STAGE.world.process = None
        if self._failure is not None:
            raise self._failure

    def lose(self, fault: Fault) -> None:
        """Let something go wrong with a later call."""
        self._faults = (fault,)

    def kill(self) -> None:
        """Kill it where it stands."""
        self.dead = True
        self.step()

    def stop_before(self, step: str) -> None:
        """Stop, seen from the command."""
        if self.at == step == "prove":  # an abort proves twice
            return
        self.at = step
        self._stopped.release()
        self._go.acquire()
        if self.dead:
            raise Killed

    def _live(self) -> None:
        self._go.acquire()
        try:
            self._run()
        except (HsmKeysError, Killed):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the way is walked
            self._failure = error
        self.at = ""
        self._stopped.release()


def stop_before(step: str) -> None:
    machine = STAGE.world.process
    if isinstance(machine, Machine) and not machine.dead:
        machine.stop_before(step)


class _Names:
    """The names of a store, given one after the other: a machine stops before each of a handover."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def rename(self, key: Any, name: str) -> Any:
        return self._store.rename(key, name)

    def keep_name(self, key: Any) -> None:
        self._store.keep_name(key)

    def hand_over(self, name: str, taker: Any, leaver: Any, mark: str) -> Any:
        steps = iter(("give", "take", "give_back"))
        rename = type(self._store).rename

        def stopping(store: Any, key: Any, label: str) -> Any:
            stop_before(next(steps))
            return rename(store, key, label)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._store, "rename", stopping.__get__(self._store), raising=False)
            return type(self._store).hand_over(self._store, name, taker, leaver, mark)


def stopping(step: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def first(*arguments: Any, **options: Any) -> Any:
        stop_before(step)
        return real(*arguments, **options)

    return first


@contextmanager
def stops() -> Iterator[None]:
    """Let machines stop before each step, for as long as ways are walked."""
    condemned, keys = Rotator._condemned, TokenStore.keys

    def condemn(self: Any, *arguments: Any, **options: Any) -> Any:
        stop_before("condemn")
        with pytest.MonkeyPatch.context() as patch:
            look = stopping("check", lambda: keys(self._store))
            patch.setattr(self._store, "keys", look, raising=False)
            return condemned(self, *arguments, **options)

    with doubles(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(RotationRecovery, "stage", stopping("look", RotationRecovery.stage))
        patch.setattr(Rotator, "_condemned", condemn)
        patch.setattr(RotationEnds, "destroy", stopping("destroy", RotationEnds.destroy))
        patch.setattr(rotate, "prove_registration", stopping("prove", prove_registration))
        patch.setattr(rotation_ends, "end_api_key", stopping("delete", end_api_key))
        names = type("Names", (), {"of": staticmethod(_Names)})
        for module in (rotate, rotation_marks):
            patch.setattr(module, "RenamesKeys", names)
        yield


class Walk:
    """Walks a way from one of the model's beginnings.

    Args:
        beginning: The beginning.
    """

    def __init__(self, beginning: State) -> None:
        unfinished = NEXT in beginning.labels
        self._life = Life(Script(Name(1), "token", ("enroll",) if unfinished else ("enroll", "rotate"), ()))
        STAGE.begin(self._life.world)
        self._life._begin()
        self._machines: dict[int, Machine] = {}
        if unfinished:
            self._begin(0, "")
            while self._machines[0].at != "give":
                self._machines[0].step()
            self._machines.pop(0).kill()
        labels = self._life.store.labels()
        self._publics = [labels[NAME + label] for label in beginning.labels]

    def state(self) -> tuple[tuple[str, ...], tuple[bool, ...]]:
        """Return what the keys are called, and whether the API key of each lives."""
        names = {public: label.removeprefix(NAME) for label, public in self._life.store.labels().items()}
        kalshi = self._life.kalshis["prod"]
        return (
            tuple(names.get(public, GONE) for public in self._publics),
            tuple(bool(kalshi.living(public)) for public in self._publics),
        )

    def walk(self, way: Sequence[tuple[Step, State]]) -> str:
        """Take the steps of a way; return where the code and the model part, empty if they don't."""
        for number, (step, after) in enumerate(way):
            machine = self._machines.get(step.machine)
            if step.begins:
                self._begin(step.machine, step.what)
            elif machine is None or machine.at != step.what:
                return f"step {number}, {step}: the code stands before {machine.at if machine else 'nothing'}"
            elif step.kills:
                machine.kill()
            else:
                machine.step()
            stands = self._machines[step.machine].at
            if (stands, self.state()) != (after.machines[step.machine].at, (after.labels, after.lives)):
                return f"step {number}, {step}: the code stands before {stands or 'nothing'}, and has {self.state()}"
        return ""

    def close(self) -> None:
        """Kill what is still under way."""
        for machine in self._machines.values():
            if machine.at:
                machine.kill()

    def _begin(self, number: int, command: str) -> None:
        kalshi = self._life.kalshis["prod"]
        session = commands.Session(
            self._life.store.open, Connect(kalshi), self._life._bootstraps["prod"], lambda _: None
        )
        self._machines[number] = Machine(
            number,
            lambda: commands.rotate(session, NAME, finish=command == "finish", abort=command == "abort"),
        )
