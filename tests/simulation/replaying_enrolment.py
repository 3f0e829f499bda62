"""Ways of the model of an enrolment, walked by the code of ``enroll``; see ``replaying``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

import hsm_keys.lifecycle.enroll
import hsm_keys.lifecycle.late_registration
import hsm_keys.lifecycle.registering
from hsm_keys.errors import KeyNotFoundError
from hsm_keys.lifecycle.contention import Contention
from hsm_keys.lifecycle.registering import Registrar
from tests.simulation import commands
from tests.simulation.doubles import STAGE, doubles
from tests.simulation.effects import Fault, Kind
from tests.simulation.enrolment import MARKED, MINTED, NONE
from tests.simulation.kalshi import Client, Connect
from tests.simulation.life import Life
from tests.simulation.replaying import Machine, stop_before, stopping
from tests.simulation.script import NAME, Name, Script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.simulation.enrolment import State
    from tests.simulation.model import Step

_LOSSES: Final = {
    "post, answer lost": Kind.LOSE_ANSWER,
    "post, request lost": Kind.LOSE_REQUEST,
    "post, late": Kind.LATE,
}
_LATE_S: Final = 1.5


@contextmanager
def stops() -> Iterator[None]:
    """Let machines stop before each step, for as long as ways are walked."""
    enrolling: Any = hsm_keys.lifecycle.enroll
    late: Any = hsm_keys.lifecycle.late_registration
    registering: Any = hsm_keys.lifecycle.registering
    look = late.find_late_registration

    def search(*arguments: Any) -> Any:
        stop_before("search")
        return look(*arguments)

    write = Contention.begin

    def begin(self: Any, key: Any, claim: Any = None) -> Any:
        if claim is None:
            stop_before("mark")
        return write(self, key, claim)

    wait = Contention._outwait

    def outwait(self: Any, key: Any) -> None:
        if STAGE.world.process is not None and STAGE.world.process.at != "outwait others":  # type: ignore[attr-defined]
            stop_before("outwait")
        wait(self, key)

    def prepared(step: str, prepare: Any) -> Any:
        return lambda *arguments, **options: stopping(step, prepare(*arguments, **options))

    with doubles(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(enrolling, "new_key_fields", stopping("look", enrolling.new_key_fields))
        patch.setattr(enrolling, "_mint", stopping("mint", enrolling._mint))
        patch.setattr(Registrar, "register", stopping("register", Registrar.register))
        patch.setattr(registering, "find_late_registration", search)
        patch.setattr(late, "settle", stopping("search again", late.settle))
        patch.setattr(Contention, "outwait_leaving", stopping("read", Contention.outwait_leaving))
        patch.setattr(Contention, "_outwait", outwait)
        patch.setattr(Contention, "begin", begin)
        patch.setattr(Client, "prepare_create", prepared("post", Client.prepare_create))
        patch.setattr(Registrar, "_new_registrations", stopping("look again", Registrar._new_registrations))
        patch.setattr(Contention, "take", stopping("take", Contention.take))
        patch.setattr(Contention, "_is_alone", stopping("make sure", Contention._is_alone))
        patch.setattr(Contention, "_wait_for_others", stopping("outwait others", Contention._wait_for_others))
        patch.setattr(Registrar, "_yield_to_others", stopping("yield", Registrar._yield_to_others))
        patch.setattr(Contention, "give_way", stopping("give way", Contention.give_way))
        patch.setattr(Contention, "_say_so", stopping("say so", Contention._say_so))
        patch.setattr(Contention, "_may_delete", stopping("check", Contention._may_delete))
        patch.setattr(Client, "prepare_delete", prepared("delete", Client.prepare_delete))
        patch.setattr(Registrar, "_bind", stopping("bind", Registrar._bind))
        patch.setattr(registering, "prove_registration", stopping("prove", registering.prove_registration))
        yield


class Walk:
    """Walks a way from nothing."""

    def __init__(self) -> None:
        self._life = Life(Script(Name(1), "token", (), ()))
        STAGE.begin(self._life.world)
        self._life._begin()
        self._machines: dict[int, Machine] = {}

    def walk(self, way: Sequence[tuple[Step, State]]) -> str:
        """Take the steps of a way; return where the code and the model part, empty if they don't."""
        for number, (step, after) in enumerate(way):
            machine = self._machines.get(step.machine)
            if step.machine < 0:
                self._life.world.clock.pass_(_LATE_S)
                continue
            if step.begins:
                self._begin(step.machine)
            elif machine is None or machine.at != step.what.partition(",")[0]:
                return f"step {number}, {step}: the code stands before {machine.at if machine else 'nothing'}"
            elif step.kills:
                machine.kill()
            else:
                if step.what in _LOSSES:
                    machine.lose(Fault(_LOSSES[step.what], machine.changes + 1, seconds=_LATE_S))
                machine.step()
            stands = self._machines[step.machine].at
            if (stands, self.state()) != (after.machines[step.machine].at, _seen(after)):
                return f"step {number}, {step}: the code stands before {stands or 'nothing'}, and has {self.state()}"
        return ""

    def state(self) -> tuple[str, int]:
        """Return how far the pair has come, and how many API keys of it live."""
        try:
            key = self._life.store.open().key(NAME)
        except KeyNotFoundError:
            return NONE, 0
        public = self._life.store.labels()[NAME]
        living = {each.api_key_id for each in self._life.kalshis["prod"].living(public)}
        if key.api_key_id is not None:
            return f"bound to one that {'lives' if key.api_key_id in living else 'is dead'}", len(living)
        return MARKED if key.registering else MINTED, len(living)

    def close(self) -> None:
        """Kill what is still under way."""
        for machine in self._machines.values():
            if machine.at:
                machine.kill()

    def _begin(self, number: int) -> None:
        bootstrap = self._life._bootstraps["prod"]
        connect = Connect(self._life.kalshis["prod"])
        session = commands.Session(self._life.store.open, connect, bootstrap, lambda _: None)
        self._machines[number] = Machine(number, lambda: commands.enroll(session, NAME))


def _seen(state: State) -> tuple[str, int]:
    """Return what ``Walk.state`` should return."""
    living = state.living()
    if state.bound >= 0:
        return f"bound to one that {'lives' if state.bound in living else 'is dead'}", len(living)
    return state.pair, len(living)
