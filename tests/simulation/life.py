"""One life of a key: what operators do and what befalls them, then the run to the end, and what must be there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from hsm_keys.errors import HsmKeysError
from hsm_keys.stores.key_names import RETIRED
from tests.simulation import commands
from tests.simulation.doubles import STAGE
from tests.simulation.effects import Killed, Process
from tests.simulation.judge import Judge, short
from tests.simulation.kalshi import Connect, Kalshi
from tests.simulation.kms import Kms
from tests.simulation.rest import MANY, SETTLED_S, UNDECIDED, Rest
from tests.simulation.script import NAME, OTHER_NAME, Script, Step
from tests.simulation.seen import SEEN
from tests.simulation.token import Token
from tests.simulation.vault import Vault
from tests.simulation.world import Turns, Violated, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.stores.base import KeyStore
    from tests.simulation.commands import Told
    from tests.simulation.seen import State


Place: TypeAlias = "tuple[str, str]"
"""Where a command was killed: the command and its store, and before or after what."""


class Store(Protocol):
    """A store, seen from outside."""

    on_destroyed: list[Any]

    def open(self) -> KeyStore:
        """Open it, as a new process does."""

    def publics(self) -> set[bytes]:
        """Return the public halves of which it keeps the private one."""

    def labels(self) -> dict[str, bytes]:
        """Return label and public half of each."""

    def litter(self) -> list[str]:
        """Return what shouldn't be there."""

    def state(self) -> Any:
        """Return what commands can see of it."""

    def handles(self) -> tuple[int, ...]:
        """Return the numbers by which commands hold its objects, where they do, and the last that was given."""

    def snapshot(self) -> Any:
        """Return what it holds."""

    def restore(self, snapshot: Any) -> None:
        """Bring back what it held."""


@dataclass
class Ended:
    """How a command ended.

    Args:
        status: The exit code; -9 for one that was killed.
        code: The error's code.
        told: What it told.
        message: The error.
    """

    status: int
    code: str = ""
    told: Told | None = None
    message: str = ""


@dataclass
class Lived:
    """What came of a life.

    Args:
        violation: What must not be; empty if nothing.
        story: Who did what.
        kills: Where commands were killed, and which was the last step that had begun by then.
        faults: How many faults hit.
    """

    violation: str = ""
    story: list[str] = field(default_factory=list)
    kills: list[tuple[Place, int]] = field(default_factory=list)
    faults: int = 0


class _Bootstrap:
    """The account's first key."""

    name = "bootstrap"

    def __init__(self, kalshi: Kalshi) -> None:
        self._pair = kalshi.world.pair()
        self.api_key_id = kalshi.add("first", self._pair.public).api_key_id

    def sign(self, message: bytes, /) -> bytes:
        return self._pair.sign(message)


class Life:
    """Lives a script.

    Args:
        script: The script.
        telling: Whether the story is kept.
    """

    def __init__(self, script: Script, *, telling: bool = False) -> None:
        self.script = script
        self.world = World(telling=telling)
        self.kalshis = {
            name: Kalshi(self.world, name, unique_names=script.unique, unique_keys=script.unique)
            for name in ("prod", "demo")
        }
        self.store: Store = {"token": Token, "kms": Kms, "vault": Vault}[script.store](self.world)
        self.judge = Judge(script, self.store, self.kalshis)
        self._bootstraps = {name: _Bootstrap(kalshi) for name, kalshi in self.kalshis.items()}
        self.ended: list[tuple[Step, Ended]] = []
        self.theirs: set[str] = set()
        self._hits = 0
        self._begun = 0
        """The last of the steps that were begun."""
        self._under_way = 0
        """How many commands run, or wait for others' turns."""
        self._kills: list[tuple[Place, int]] = []

    def live(self) -> Lived:
        """Live it to the end, and judge it."""
        STAGE.begin(self.world)
        violation = ""
        try:
            self._begin()
            self._happen()
            Rest(self).come()
        except Violated as wrong:
            violation = str(wrong)
        finally:
            self.world.process = None
        return Lived(violation, self.world.story, self._kills, self._hits)

    @property
    def is_shared(self) -> bool:
        """Whether a command is under way."""
        return self._under_way > 0

    # Before anything goes wrong.

    def _begin(self) -> None:
        """Run the first commands, with nothing wrong; what they lead to is kept for the next life that begins so."""
        script = self.script
        place = (script.store, script.begin, script.bootstrap, script.unique, script.bystander, script.scopes)
        kept = SEEN.beginnings.get((*place, script.subaccount))
        if kept is None:
            self._begin_anew()
            kept = SEEN.beginnings[*place, script.subaccount] = self._snapshot()
        store, kalshis, pairs, uniques, now, theirs = kept
        self.world.pairs_taken, self.world.uniques_taken, self.world.clock.now = pairs, uniques, now
        self.store.restore(store)
        for name, kalshi in self.kalshis.items():
            kalshi.restore(kalshis[name])
            kalshi.lag_s = script.lag_s
        self.world.story.clear()
        self.theirs = theirs
        self.judge.leave_alone(theirs, None)
        if script.begin not in {(), ("mint",)}:
            self.judge.proved[NAME] = self.kalshis["prod"]

    def _snapshot(self) -> Any:
        kalshis = {name: kalshi.snapshot() for name, kalshi in self.kalshis.items()}
        world = self.world
        return self.store.snapshot(), kalshis, world.pairs_taken, world.uniques_taken, world.clock.now, self.theirs

    def _begin_anew(self) -> None:
        script = self.script
        theirs = {bootstrap.api_key_id for bootstrap in self._bootstraps.values()}
        if script.bystander:
            pair = self.world.pair()
            theirs.add(self.kalshis["prod"].add(OTHER_NAME + "x", pair.public).api_key_id)
            theirs.add(self.kalshis["demo"].add(NAME, pair.public).api_key_id)
        self.theirs = theirs
        for number, command in enumerate(script.begin):
            ended = self._run(Step(0, command), bootstrap=script.bootstrap or number == 0)
            if ended.told is None:
                raise Violated(f"{command}, with nothing wrong, ended with {ended.message}")
        if not script.bootstrap:
            for name, bootstrap in self._bootstraps.items():
                self.kalshis[name].end(bootstrap.api_key_id, 0.0)
        self.world.clock.pass_(SETTLED_S)

    def again(self, step: Step) -> Ended:
        ended = Ended(-9)
        for _ in range(MANY):
            self.world.clock.pass_(60.0)
            ended = self._run(step)
            if ended.status not in {*UNDECIDED, -9} and ended.code != "key_busy":
                break
        return ended

    # What happens.

    def _happen(self) -> None:
        steps = self.script.steps
        operators = sorted({step.operator for step in steps})
        if len(operators) < 2:
            self._operate(list(enumerate(steps)))
            return

        def life_of(operator: int) -> Callable[[], None]:
            mine = [(number, step) for number, step in enumerate(steps) if step.operator == operator]
            return lambda: self._operate(mine)

        Turns(self.world, [life_of(operator) for operator in operators]).run()

    def _operate(self, steps: list[tuple[int, Step]]) -> None:
        for number, step in steps:
            self.world.clock.pass_(step.pause_s)
            self._begun = max(self._begun, number)
            snapshot = self.store.snapshot() if self.script.yesterday == number else None
            self.ended.append((step, self._run(step)))
            if snapshot is not None:
                self.judge.moved = True
                self.store.restore(snapshot)
                self.world.tell("the store comes back with what it held before")

    def _alone(self) -> bool:
        return len({step.operator for step in self.script.steps}) < 2

    def _run(self, step: Step, *, bootstrap: bool | None = None) -> Ended:
        """Run a command, to its end or until it is killed."""
        if step.command.startswith("page"):
            self._delete_by_hand(step, older=step.command == "page-old")
            return Ended(0)
        if step.command == "adopt":
            ended = self._process(step, "mint", bootstrap=bootstrap)
            if ended.status == -9:
                return ended
            if ended.told is not None:
                self._register_by_hand(step, ended.told.public)
        return self._process(step, step.command, bootstrap=bootstrap)

    def _process(self, step: Step, command: str, *, bootstrap: bool | None = None) -> Ended:
        world, script = self.world, self.script
        machine = f"machine {step.operator % script.machines}"
        skew = script.skew_s if step.operator else 0.0
        process = world.process = Process(
            f"operator {step.operator}",
            machine,
            f"{command} on {script.store}",
            step.faults,
            environment=step.environment,
            skew_s=skew,
            luck=script.name.seed % 2 if script.lag_s else 0,
        )
        world.tell(f"$ {command} {step.name}" + (f" --env {step.environment}" if step.environment != "prod" else ""))
        kalshi = self.kalshis[step.environment]
        with_bootstrap = script.bootstrap if bootstrap is None else bootstrap
        session = commands.Session(
            self.store.open,
            Connect(kalshi),
            self._bootstraps[step.environment] if with_bootstrap else None,
            process.said.append,
            list(script.scopes) if script.scopes else None,
            script.subaccount,
        )
        if command.startswith("revoke"):
            self.judge.released(step.name, kalshi)
        state = SEEN.state(self, process, command, step, bootstrap=with_bootstrap)
        self._under_way += 1
        ended = SEEN.recall(self, process, state) or self._carried_out(command, step, session, process, state)
        self._under_way -= 1
        world.process = None
        self._hits += process.hit
        if ended.told is None and command.startswith("revoke"):
            self.judge.not_revoked(step.name, kalshi)
        if ended.told is not None:
            world.process = process
            world.tell(f"ends well: {ended.told.stage} {short(ended.told.api_key_id or '-')}")
            world.process = None
            self.judge.told(ended.told, step.name, kalshi, alone=self._alone() and step.environment == "prod")
        elif ended.status == -9:
            self._check_name(step.name)
        else:
            self.judge.refused(ended, step, kalshi, process.made, alone=self._alone())
            self._check_name(step.name)
        return ended

    def _carried_out(
        self, command: str, step: Step, session: commands.Session, process: Process, state: State | None
    ) -> Ended:
        """Run a command, and return how it ended."""
        world = self.world
        begun = world.clock.now
        try:
            told = self._carry_out(command, step, session)
            told.notes = [line for line in process.said if line.startswith("note: ")]
            ended = Ended(0, told=told)
        except Killed:
            ended = Ended(-9)
            if process.killed_at:
                self._kills.append(((process.what, process.killed_at), self._begun))
        except HsmKeysError as error:
            ended = Ended(error.exit_code, error.code, message=error.message)
            world.tell(f"ends with {error.exit_code}: {error.message[:150]}")
        except Exception as error:
            raise Violated(f"{command} raised {type(error).__name__}: {error}") from error
        SEEN.remember(self, process, state, ended, begun)
        return ended

    def _carry_out(self, command: str, step: Step, session: commands.Session) -> Told:
        name = step.name
        run: dict[str, Callable[[], Told]] = {
            "enroll": lambda: commands.enroll(session, name),
            "mint": lambda: commands.mint(session, name),
            "adopt": lambda: commands.adopt(session, name, self._handed(step)),
            "generate": lambda: commands.generate(session, name),
            "rotate": lambda: commands.rotate(session, name),
            "finish": lambda: commands.rotate(session, name, finish=True),
            "abort": lambda: commands.rotate(session, name, abort=True),
            "revoke": lambda: commands.revoke(session, name, destroy=False),
            "revoke-destroy": lambda: commands.revoke(session, name, destroy=True),
            "fix": lambda: commands.reconcile(session, fixing=True),
        }
        return run[command]()

    def _register_by_hand(self, step: Step, public: bytes) -> None:
        """Do what a person does on Kalshi's account page, with the PEM that was shown."""
        kalshi = self.kalshis[step.environment]
        if public in self.store.publics() and not any(other.living(public) for other in self.kalshis.values()):
            listing = kalshi.add(step.name, public, self.script.scopes, self.script.subaccount)
            self.judge.registered_by_hand(listing.api_key_id, self.world.clock.now)
            self.world.clock.pass_(60.0)

    def _delete_by_hand(self, step: Step, *, older: bool) -> None:
        """Do what a person does on Kalshi's account page: delete one of two API keys of a name.

        Whoever does that while a command runs gets what it asks for.
        """
        labels, kalshi = self.store.labels(), self.kalshis[step.environment]
        retired = labels.get(step.name + RETIRED)
        marked = [label for label in labels if label.startswith(step.name + "+")]
        if self._under_way or retired is None or len(marked) > 1 or not kalshi.living(retired):
            return
        for key in kalshi.living(retired if older else labels.get(step.name, b"")):
            kalshi.end(key.api_key_id, self.world.clock.now + (kalshi.lag_s if older else 0.0))
            self.judge.ended_by_hand.add(key.api_key_id)
            self.world.tell(f"a person deletes API key {short(key.api_key_id)}")

    def _handed(self, step: Step) -> str:
        public = self.store.labels().get(step.name)
        found = self.kalshis[step.environment].living(public) if public else []
        return found[0].listing.api_key_id if found else "00000000-0000-4000-8000-000000000000"

    def _check_name(self, name: str) -> None:
        """Check that whoever uses a name that was proved still finds a key that works, though a command failed."""
        kalshi = self.judge.proved.get(name)
        if kalshi is None or self.judge.moved:
            return
        try:
            key = self.store.open().key(name)
        except HsmKeysError as error:
            raise Violated(f"{name!r} can't be used: {error.message}") from None
        living = {each.listing.api_key_id for each in kalshi.living()}
        if key.api_key_id not in living | self.judge.ended_by_hand and self._alone():
            raise Violated(f"{name!r} leads to API key {key.api_key_id}, which doesn't live")
