"""The run to the end: nothing goes wrong any more, what was interrupted is run again, and reconcile has its way."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from hsm_keys.stores.key_names import SUCCESSOR
from tests.simulation.judge import called, short
from tests.simulation.script import Step
from tests.simulation.world import Violated

if TYPE_CHECKING:
    from hsm_keys.inspecting.findings import Finding
    from tests.simulation.kalshi import Kalshi
    from tests.simulation.life import Life

MANY: Final = 12
"""More than enough runs to come to an end once nothing goes wrong any more."""

SETTLED_S: Final = 120.0
UNDECIDED: Final = frozenset({6, 7, 8})
"""Exit codes after which the same command is run again: Kalshi, the network or KMS stood in the way."""

_UNKNOWN: Final = 7
"""The exit code of what isn't known, and must be sooner or later."""

_ON_PURPOSE: Final = frozenset({"not-adopted", "same-name-at-kalshi", "two-environments"})
_NOBODY_TO_ASK_WITH: Final = frozenset({"key_not_registered", "kalshi_unauthorized", "key"})


class Rest:
    """Brings a life to rest, and looks whether all is as it should be.

    Args:
        life: The life.
    """

    def __init__(self, life: Life) -> None:
        self._life = life
        self._orphaned = False
        """Whether nobody is left who could ask Kalshi."""
        self._put_off: list[Step] = []
        """What is to be run again once a further API key of its pair is revoked."""

    def come(self) -> None:
        """Run to the end what was interrupted, do what reconcile says, and look at what is there then."""
        self._settle()
        self._check_end()

    def _settle(self) -> None:
        self._life.world.clock.pass_(SETTLED_S)
        for step, ended in list(self._life.ended):
            if ended.status in {*UNDECIDED, -9} or ended.code == "key_busy":
                self._run_to_the_end(Step(0, step.command, step.name, step.environment))
        script = self._life.script
        environments = sorted({"prod", *(step.environment for step in script.steps)})
        if self._are_settled(environments):
            for step in self._put_off:
                self._life.again(step)
            if not self._put_off or self._are_settled(environments):
                return
        codes = [f"{each.code}: {each.message}" for name in environments for each in self._findings(name)]
        if self._life.judge.moved and self._life.script.unique:
            return  # Kalshi still has the name, and the pair is gone: only a person can end that
        if codes:
            raise Violated(f"it doesn't come to an end: {codes}")

    def _are_settled(self, environments: list[str]) -> bool:
        return all([self._is_settled(environment) for environment in environments])  # noqa: C419 - each is run

    def _is_settled(self, environment: str) -> bool:
        """Do what reconcile says about an environment, until it finds nothing."""
        for _ in range(MANY):
            findings = self._findings(environment)
            if not findings:
                return True
            self._follow(findings, environment)
        return False

    def _run_to_the_end(self, step: Step) -> None:
        """Run a command until it is done, or says why it can't be."""
        last = self._life.again(step)
        if "is registered twice at Kalshi" in last.message:
            self._put_off.append(step)
        unmarked = (
            step.command.startswith("revoke") and last.code == "end_not_proved" and self._leaves_no_mark(step.name)
        )
        if last.status == _UNKNOWN and not (unmarked or self._life.judge.moved):
            raise Violated(f"{step.command}, run again and again, ends with {last.code}: {last.message}")

    def _leaves_no_mark(self, name: str) -> bool:
        """Tell whether a key can have been deleted, with no key left to ask Kalshi with and no mark that it was.

        Nothing marks a key that deletes itself without --destroy, nor one that another key has deleted, which was then
        revoked itself before the interrupted run was repeated; or lost its API key id, as two machines enrolled it.
        """
        script = self._life.script
        both = len({step.name for step in script.steps if step.command == "revoke-destroy"}) > 1
        enrolling = {step.operator for step in script.steps if step.command == "enroll" and step.name != name}
        return not script.bootstrap and (both or "revoke" in script.commands or len(enrolling) > 1)

    def _findings(self, environment: str) -> list[Finding]:
        """Return what reconcile finds, without what is so on purpose."""
        ended = self._life.again(Step(0, "fix", environment=environment))
        if ended.told is None:
            if ended.code in _NOBODY_TO_ASK_WITH:
                self._orphaned = True
                return []
            raise Violated(f"reconcile ends with {ended.code}: {ended.message}")
        script = self._life.script
        # By somebody else: a key of ours that isn't registered there can't be, and one that is can be rotated.
        taken = environment == "demo" and script.unique and script.bystander
        accepted = self._life.theirs
        return [
            finding
            for finding in ended.told.findings
            if not (finding.code == "elsewhere" and finding.api_key_id in accepted)
            and finding.code not in _ON_PURPOSE
            and not (finding.code in {"refused", "cannot-sign"} and self._life.judge.moved)
            and not (taken and not finding.code.startswith("rotation"))
        ]

    def _follow(self, findings: list[Finding], environment: str) -> None:
        """Do what reconcile says about the first thing that it found."""
        finding = next((each for each in findings if each.command), findings[0])
        if finding.code == "registered-twice" and self._life.script.is_plain and not self._life.judge.by_hand:
            raise Violated(f"nothing was sent twice, and {finding.message}")
        if finding.code == "rotation-orphan" and finding.command is None:
            self._destroy_orphan(finding.name, environment)
            return
        if finding.command is None or " show " in finding.command:
            raise Violated(f"reconcile knows no way on: {finding.code}: {finding.message}")
        words = shlex.split(finding.command)[1:]
        words = words[: words.index("--store")] if "--store" in words else words
        self._life.world.tell(f"reconcile says {finding.code}: {' '.join(words)}")
        step = _step_of(words, environment)
        made_unseen = self._life.script.repeats("generate")  # by Kalshi, and reconcile can only show it
        by_hand = finding.api_key_id in self._life.judge.by_hand  # by a person, for a pair that was destroyed elsewhere
        shown = made_unseen or by_hand or self._life.judge.is_unknown(str(finding.api_key_id))
        if finding.code == "elsewhere" and not (self._life.judge.moved or shown):
            raise Violated(f"nobody has the private half of API key {short(str(finding.api_key_id))}, and it lives")
        last = self._life.again(step)
        settled = {"end_not_proved", "key_exists"} | ({"kalshi_bad_request"} if self._life.judge.moved else set())
        if last.told is None and last.code not in settled:  # then looking again must do
            raise Violated(f"reconcile says {' '.join(words)}, which ends with {last.code}: {last.message}")

    def _destroy_orphan(self, name: str, environment: str) -> None:
        """Do what a person does with a half that may live elsewhere: look in each environment, and destroy it there."""
        public = self._life.store.labels().get(name)
        for other, kalshi in self._life.kalshis.items():
            if any(key.public == public for key in kalshi.living()):
                environment = other
        self._life.again(Step(0, "revoke-destroy", name, environment))

    def _check_end(self) -> None:
        store, judge = self._life.store, self._life.judge
        if self._orphaned:
            return
        for name in {step.name for step in self._life.script.steps} if store.litter() else ():
            self._life.again(Step(0, "enroll", name))  # whatever works on a name next tidies up
        litter = [each for each in store.litter() if not self._waits_for_rotation(each)]
        if self._life.script.repeats("generate") or judge.moved:
            # What no entry names: nothing signs with it. It came late, after the store had come back with what it held
            # before; or it is imported, and its API key is shown.
            litter = [each for each in litter if not each.endswith("without a record")]
        if judge.moved:  # what had been deleted when the store came back, though not yet all of it
            litter = [each for each in litter if not each.endswith(("without a key", "without a public object"))]
        if litter:
            raise Violated(f"left behind: {'; '.join(litter)}")
        if judge.moved:
            return
        marked = [label for label in store.labels() if "+" in label and "+kept-" not in label]
        if marked:
            raise Violated(f"left behind: {', '.join(marked)}")
        self._check_no_orphans()
        for name, kalshi in judge.proved.items():
            self._check_name(name, kalshi)

    def _waits_for_rotation(self, what: str) -> bool:
        """Tell whether a rotation may have begun to make it after somebody else had revoked the name."""
        steps = self._life.script.steps
        revokers = {step.operator for step in steps if step.command.startswith("revoke")}
        rotators = {step.operator for step in steps if step.command == "rotate"}
        late = any(revokers - {rotator} for rotator in rotators)
        half = what.startswith("a public object") and what.endswith(SUCCESSOR)
        return late and (half or (what.startswith("a key without an alias") and f"{SUCCESSOR}'" in what))

    def _check_no_orphans(self) -> None:
        publics = self._life.store.publics()
        known = self._life.theirs | self._life.judge.by_hand
        for kalshi in self._life.kalshis.values():
            for key in kalshi.living():
                api_key_id = key.listing.api_key_id
                if api_key_id not in known and key.public not in publics:
                    raise Violated(f"nobody has the private half of API key {short(api_key_id)}, and it lives")

    def _check_name(self, name: str, kalshi: Kalshi) -> None:
        """Check that a name that was proved has one API key that lives, and is bound to it."""
        store = self._life.store
        living = [key for key in kalshi.living() if called(key, name)]
        living = [key for key in living if key.listing.api_key_id not in self._life.theirs]
        if len(living) != 1 or store.labels().get(name) != living[0].public:
            ids = ", ".join(short(key.listing.api_key_id) for key in living)
            raise Violated(f"{name!r} should have one API key that lives, and has {ids or 'none'}")
        bound = store.open().key(name).api_key_id
        if bound != living[0].listing.api_key_id:
            raise Violated(f"{name!r} is bound to {bound}, and is {living[0].listing.api_key_id}")


def _step_of(words: list[str], environment: str) -> Step:
    """Return the step that a command of reconcile's stands for."""
    command, name = words[0], words[2] if words[0] == "enroll" else words[1]
    if command == "rotate":
        command = "finish" if "--finish" in words else "abort" if "--abort" in words else "rotate"
    elif command == "revoke":
        command = "revoke-destroy" if "--destroy" in words else "revoke"
    return Step(0, command, name, environment)
