"""What happens in a life: made from a seed, and small enough to be cut down to what matters."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.effects import Fault, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

STORES = ("token", "kms", "vault")
NAME = "prod"
OTHER_NAME = "bot"

_MOST_CHANGES = 14
_PAUSES_S = (0.0, 5.0, 60.0)
_MOST_EFFECTS = 70
_RIGHTS = (
    (("read", "write"), None),
    (("read", "write"), None),
    (("read",), None),
    (("read", "write::trade"), None),
    (("read", "write::trade"), 3),
    (None, None),
)


class Name(NamedTuple):
    """Names a life.

    Args:
        seed: Its seed.
        step: Up to which step it is that seed's; -1 for all of it.
        number: Which one of the lives that go on otherwise after that.
        later: Up to which later step it is that life; -1 for all of it.
        again: Which one of the lives that go on otherwise after that one.
    """

    seed: int
    step: int = -1
    number: int = 0
    later: int = -1
    again: int = 0

    def up_to(self, step: int) -> Name | None:
        """Return the name of those lives that are the same up to a step; None if there is none."""
        if self.step in {-1, step}:
            return Name(self.seed, step)
        return self._replace(later=step, again=0) if self.later in {-1, step} and step > self.step else None

    def going_on(self, number: int) -> Name:
        """Return the name of the life that goes on in another way after the step up to which it is given."""
        return self._replace(number=number) if self.later < 0 else self._replace(again=number)

    @classmethod
    def parse(cls, text: str) -> Name:
        return cls(*map(int, text.split(":")))

    def __str__(self) -> str:
        parts = self[:1] if self.step < 0 else self[:3] if self.later < 0 else self
        return ":".join(map(str, parts))


@dataclass(frozen=True)
class Step:
    """A command that an operator runs.

    Args:
        operator: Which one, from 0.
        command: What; ``page`` is what a person does on Kalshi's account page: delete the API key that has the name,
            while another one of the name lives; ``page-old`` that it deletes the other one instead.
        name: The key's name.
        environment: Where it is pointed at.
        faults: What goes wrong.
        pause_s: How long the operator waits before.
    """

    operator: int
    command: str
    name: str = NAME
    environment: str = "prod"
    faults: tuple[Fault, ...] = ()
    pause_s: float = 5.0

    def __str__(self) -> str:
        faults = f" [{'; '.join(map(str, self.faults))}]" if self.faults else ""
        return f"operator {self.operator}: {self.command} {self.name} in {self.environment}{faults}"


@dataclass(frozen=True)
class Script:
    """A life.

    Args:
        name: What it was made from.
        store: Which kind.
        begin: The commands that are run before anything goes wrong.
        steps: What operators do.
        bootstrap: Whether there is a bootstrap key.
        machines: How many machines the operators have.
        lag_s: How long Kalshi takes until a change is known everywhere.
        skew_s: How far the clock of the second operator is off.
        unique: Whether Kalshi takes a name and a public half only once.
        scopes: What the keys may do; None for Kalshi's default.
        subaccount: To what they are restricted.
        bystander: Whether somebody else has an API key of the same name, and a key of another program is in the store.
        yesterday: After which step the store comes back with what it held before it; -1 for never.
    """

    name: Name
    store: str
    begin: tuple[str, ...]
    steps: tuple[Step, ...]
    bootstrap: bool = True
    machines: int = 2
    lag_s: float = 0.0
    skew_s: float = 0.0
    unique: bool = False
    scopes: tuple[str, ...] | None = ("read", "write")
    subaccount: int | None = None
    bystander: bool = False
    yesterday: int = -1

    @property
    def commands(self) -> list[str]:
        """All commands, also those before anything goes wrong."""
        return [*self.begin, *(step.command for step in self.steps)]

    def repeats(self, *commands: str) -> bool:
        """Tell whether the network carries something out behind the back of one of the commands; of any, if none is
        given."""
        steps = [step for step in self.steps if not commands or step.command in commands]
        return any(fault.kind in {Kind.LATE, Kind.TWICE} for step in steps for fault in step.faults)

    @property
    def is_plain(self) -> bool:
        """Whether operators do nothing but wait for each other, and Kalshi knows all at once."""
        kinds = {fault.kind for step in self.steps for fault in step.faults}
        return kinds <= {Kind.TURN, Kind.DELAY} and not self.lag_s and self.yesterday < 0

    def __str__(self) -> str:
        words = [self.store, "with a bootstrap key" if self.bootstrap else "without a bootstrap key"]
        words += [f"{self.machines} machines", f"scopes {self.scopes}"]
        words += [f"subaccount {self.subaccount}"] if self.subaccount is not None else []
        words += [f"Kalshi lags by {self.lag_s:g} s"] if self.lag_s else []
        words += [f"operator 1's clock is off by {self.skew_s:g} s"] if self.skew_s else []
        words += ["names and public halves are unique"] if self.unique else []
        words += ["others have a key of that name"] if self.bystander else []
        words += [f"yesterday's store after step {self.yesterday}"] if self.yesterday >= 0 else []
        return "; ".join([*words, f"before: {', '.join(self.begin) or 'nothing'}"])


AFTER = {
    (): ("enroll", "enroll", "generate", "adopt"),
    ("mint",): ("enroll", "enroll", "enroll", "adopt", "revoke-destroy", "fix"),
    ("enroll",): ("rotate", "rotate", "abort", "finish", "revoke", "revoke-destroy", "fix"),
    ("enroll", "rotate"): ("finish", "finish", "abort", "abort", "rotate", "revoke-destroy", "fix", "page"),
    ("generate",): ("rotate", "revoke-destroy", "generate", "fix"),
}
LATER = (
    "enroll",
    "rotate",
    "rotate",
    "finish",
    "abort",
    "revoke",
    "revoke-destroy",
    "fix",
    "generate",
    "adopt",
    "page",
)
_BEGINNINGS = (
    (),
    (),
    ("mint",),
    ("enroll",),
    ("enroll",),
    ("enroll",),
    ("enroll", "rotate"),
    ("enroll", "rotate"),
    ("generate",),
)


def _fault(source: random.Random, *, alone: bool) -> Fault:
    draw = source.random()
    changes = source.random() < 0.75
    at = source.randint(1, _MOST_CHANGES if changes else _MOST_EFFECTS)
    if draw < 0.45 or (draw > 0.8 and alone):
        kind = source.choice((Kind.KILL_BEFORE, Kind.KILL_AFTER))
        return Fault(kind, at, changes)
    if draw < 0.75:
        kind = source.choice((Kind.UNREACHABLE, Kind.LOSE_REQUEST, Kind.LOSE_ANSWER, Kind.LOSE_ANSWER, Kind.LATE))
        return Fault(kind, at, changes, source.choice((0.1, 0.5, 1.5)) if kind is Kind.LATE else 0.0)
    if draw < 0.8:
        kind = source.choice((Kind.DELAY, Kind.TWICE, Kind.EARLY))
        return Fault(kind, at, changes, source.choice((0.5, 1.5)) if kind is Kind.EARLY else 4.0)
    return Fault(Kind.TURN, at, changes)


def script_of(seed: int, step: int = -1, number: int = 0, later: int = -1, again: int = 0) -> Script:
    """Make the life of a seed, or one that is the same up to a step, and goes on otherwise; see ``Name``."""
    script = _script_of(seed)
    if step >= 0:
        script = _otherwise(script, step, f"life {seed} after {step}, {number}")
    if later >= 0:
        script = _otherwise(script, later, f"life {seed} after {step}, {number} and {later}, {again}")
    return replace(script, name=Name(seed, step, number, later, again))


def _otherwise(script: Script, step: int, chance: str) -> Script:
    source = random.Random(chance)  # noqa: S311 - to be repeated
    operators = 1 + max(each.operator for each in script.steps)
    later = [
        Step(
            source.randrange(operators),
            source.choice(LATER),
            faults=_faults(source, operators),
            pause_s=source.choice(_PAUSES_S),
        )
        for _ in range(source.choice((0, 1, 1, 2)))
    ]
    return replace(
        script,
        steps=(*script.steps[: step + 1], *later),
        yesterday=script.yesterday if script.yesterday <= step else -1,
    )


def _faults(source: random.Random, operators: int) -> tuple[Fault, ...]:
    return tuple(_fault(source, alone=operators == 1) for _ in range(source.choice((0, 1, 1, 1, 2, 3))))


def _script_of(seed: int) -> Script:
    source = random.Random(f"life {seed}")  # noqa: S311 - to be repeated
    begin = source.choice(_BEGINNINGS)
    operators = 1 if source.random() < 0.6 else 2
    count = operators + (source.random() < 0.5) + (source.random() < 0.2)
    steps = []
    for number in range(count):
        first = number < operators
        command = source.choice(AFTER[begin] if first else LATER)
        other = operators == 2 and source.random() < 0.15
        faults = _faults(source, operators)
        wrong_place = source.random() < 0.04
        steps.append(
            Step(
                number % operators,
                command,
                OTHER_NAME if other else NAME,
                "demo" if wrong_place else "prod",
                faults,
                source.choice(_PAUSES_S) if number >= operators else 0.0,
            )
        )
    bootstrap = source.random() < 0.75
    scopes, subaccount = source.choice(_RIGHTS) if bootstrap else (("read", "write"), None)
    store = source.choice(STORES)
    return Script(
        Name(seed),
        store,
        begin if bootstrap or begin not in {(), ("mint",)} else ("enroll",),
        tuple(steps),
        bootstrap=bootstrap,
        machines=source.choice((1, 2)),
        lag_s=source.choice((0.0, 0.0, 0.0, 0.4, 1.5)),
        skew_s=source.choice((0.0,) * 9 + (60.0,)) if operators == 2 else 0.0,
        unique=source.random() < 0.2,
        scopes=scopes,
        subaccount=subaccount,
        bystander=source.random() < 0.2,
        yesterday=source.randrange(count) if store != "kms" and source.random() < 0.04 else -1,  # KMS keeps no backups
    )


def smaller(script: Script) -> Iterator[Script]:
    """Give the lives that have one thing less."""
    for index, step in enumerate(script.steps):
        yield replace(script, steps=script.steps[:index] + script.steps[index + 1 :])
        for number in range(len(step.faults)):
            kept = replace(step, faults=step.faults[:number] + step.faults[number + 1 :])
            yield replace(script, steps=(*script.steps[:index], kept, *script.steps[index + 1 :]))
        if step.environment != "prod":
            kept = replace(step, environment="prod")
            yield replace(script, steps=(*script.steps[:index], kept, *script.steps[index + 1 :]))
    plain: dict[str, object] = {
        "lag_s": 0.0,
        "skew_s": 0.0,
        "unique": False,
        "bystander": False,
        "yesterday": -1,
        "subaccount": None,
        "scopes": ("read", "write"),
        "bootstrap": True,
        "machines": 1,
    }
    for name, value in plain.items():
        if getattr(script, name) != value:
            yield replace(script, **{name: value})  # type: ignore[arg-type]
