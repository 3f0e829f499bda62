"""The end of a rotation as a model: ``finish`` and ``abort`` on two machines, killed at any step; searched to the end.

A state is where the two keys are, which API keys live, and how far each machine has come. Renaming is one step that
fails where the key isn't called any more what it was seen as, as in Vault; a name is handed over in two.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME: Final = ""
NEXT, RETIRED, FINISHING, ABORTING, GONE = "+next", "+retired", "+finishing", "+aborting", "gone"
COMMANDS: Final = ("finish", "abort")
RUNS: Final = 2
"""How often each machine begins a command."""

Labels: TypeAlias = "tuple[str, str]"
"""Those of the old and of the new key."""

OLD, NEW = 0, 1


class Step(NamedTuple):
    """A step of a way.

    Args:
        machine: Which machine takes it.
        what: What it does, or the command that it begins.
        begins: Whether it begins a command.
        kills: Whether it is killed before it.
    """

    machine: int
    what: str
    begins: bool = False
    kills: bool = False

    def __str__(self) -> str:
        before = "$ " if self.begins else "killed before " if self.kills else ""
        return f"{self.machine}: {before}{self.what}"


Way: TypeAlias = "list[tuple[Step, State]]"


class Machine(NamedTuple):
    """A machine.

    Args:
        at: The next step of the command that it runs; empty between commands.
        command: That command.
        seen: What the keys were called when it looked.
        runs: How many commands it may still begin.
    """

    at: str = ""
    command: str = ""
    seen: Labels = ("", "")
    runs: int = RUNS


class State(NamedTuple):
    """A state.

    Args:
        labels: What the keys are called.
        lives: Whether the API key of each lives.
        machines: Both machines.
    """

    labels: Labels
    lives: tuple[bool, bool]
    machines: tuple[Machine, Machine] = (Machine(), Machine())

    def called(self, key: int, label: str) -> State:
        labels = (label, self.labels[NEW]) if key == OLD else (self.labels[OLD], label)
        return self._replace(labels=labels)

    def dead(self, key: int) -> State:
        return self._replace(lives=(False, self.lives[NEW]) if key == OLD else (self.lives[OLD], False))

    def by_name(self) -> int | None:
        """Return the key that the name leads to; while it is handed over, the one that gets it."""
        if NAME in self.labels:
            return self.labels.index(NAME)
        if self.labels in {(RETIRED, ABORTING), (RETIRED, GONE)}:
            return OLD
        if self.labels == (GONE, ABORTING):
            return NEW
        return NEW if self.labels[OLD] in {RETIRED, FINISHING} and self.labels[NEW] in {NEXT, ABORTING} else None


BEGINNINGS: Final = (State((RETIRED, NAME), (True, True)), State((NAME, NEXT), (True, True)))


class Rules:
    """What the commands do, step by step; the planted faults of the model's own test change one of them."""

    condemns = True
    """Whether a key loses its name before its API key is deleted, and the other one is looked at then."""
    conditional = True
    """Whether a key is renamed only if it is still called what it was seen as."""
    keeps_marks = True
    """Whether the mark of a key that is to end stays where a machine gives way: another one may rely on it."""

    def step(self, state: State, machine: Machine) -> tuple[State, str, Labels]:
        """Return what one step of a machine leads to, its next step, and what it has seen."""
        if machine.at == "look":
            if state.labels in {(GONE, ABORTING), (RETIRED, GONE)}:  # what was to get its name from it has ended
                state = state.called(OLD if state.labels[NEW] == GONE else NEW, NAME)
            return state, self._first(machine.command, state.labels), state.labels
        ending, keeping = (OLD, NEW) if machine.command == "finish" else (NEW, OLD)
        after, at = getattr(self, f"_{machine.at}")(state, machine.seen, ending, keeping)
        seen = after.labels if machine.at == "take" and at in {"prove", "condemn"} else machine.seen
        return after, at, seen

    @staticmethod
    def _first(command: str, labels: Labels) -> str:
        old, new = labels
        if GONE in labels:
            return ""
        if command == "finish":
            return "" if new == ABORTING and old != FINISHING else "prove"
        return "" if old == FINISHING else "prove"

    def _renamed(self, state: State, key: int, seen: str, label: str) -> State | None:
        now = state.labels[key]
        if now == GONE or label == state.labels[1 - key] or (self.conditional and now not in {seen, label}):
            return None
        return state.called(key, label)

    def _give(self, state: State, seen: Labels, ending: int, keeping: int) -> tuple[State, str]:
        """Begin to give the name to the key that keeps it: the other one loses it."""
        mark = (FINISHING if seen[OLD] == FINISHING else RETIRED) if ending == OLD else ABORTING
        after = self._renamed(state, ending, seen[ending], mark)
        return (state, "") if after is None else (after, "take")

    def _take(self, state: State, seen: Labels, ending: int, keeping: int) -> tuple[State, str]:
        after = self._renamed(state, keeping, seen[keeping], NAME)
        if after is not None:
            return after, "prove" if ending == OLD else "condemn"
        return (state, "give_back") if seen[ending] == NAME else (state, "")

    def _give_back(self, state: State, seen: Labels, ending: int, keeping: int) -> tuple[State, str]:
        after = self._renamed(state, ending, RETIRED if ending == OLD else ABORTING, NAME)
        return after or state, ""

    def _prove(self, state: State, seen: Labels, ending: int, keeping: int) -> tuple[State, str]:
        if not state.lives[keeping]:
            return state, ""
        if seen[keeping] != NAME:
            return state, "give"
        return state, "condemn" if self.condemns else "delete"

    def _condemn(self, state: State, seen: Labels, ending: int, keeping: int) -> tuple[State, str]:
        mark = FINISHING if ending == OLD else ABORTING
        if state.labels[ending] == mark:
            return state, "check"
        if self.conditional and state.labels[ending] != (RETIRED if ending == OLD else NEXT):
            return state, ""
        return state.called(ending, mark), "check"

    def _check(self, state: State, seen: Labels, ending: int, keeping: int) -> tuple[State, str]:
        if state.labels[ending] == GONE:
            return state, ""
        if state.labels[keeping] == NAME:
            return state, "delete"
        return state, "" if self.keeps_marks else "spare"

    def _spare(self, state: State, seen: Labels, ending: int, keeping: int) -> tuple[State, str]:
        mark, before = (FINISHING, RETIRED) if ending == OLD else (ABORTING, NEXT)
        if seen[ending] == mark:
            return state, ""
        return self._renamed(state, ending, mark, before) or state, ""

    def _delete(self, state: State, seen: Labels, ending: int, keeping: int) -> tuple[State, str]:
        return (state, "") if state.labels[ending] == GONE else (state.dead(ending), "destroy")

    def _destroy(self, state: State, seen: Labels, ending: int, keeping: int) -> tuple[State, str]:
        return state.called(ending, GONE), ""


Reached: TypeAlias = "dict[State, tuple[State, Step] | None]"
"""What comes before each state."""


def following(rules: Rules, state: State) -> Iterator[tuple[Step, State]]:
    """Give what can come next: a machine begins, takes its next step, or is killed."""
    for number, machine in enumerate(state.machines):

        def put(after: State, changed: Machine, number: int = number) -> State:
            one, other = after.machines
            return after._replace(machines=(changed, other) if number == 0 else (one, changed))

        if not machine.at:
            if machine.runs:
                for command in COMMANDS:
                    begun = Machine("look", command, runs=machine.runs - 1)
                    yield Step(number, command, begins=True), put(state, begun)
            continue
        after, at, seen = rules.step(state, machine)
        yield Step(number, machine.at), put(after, machine._replace(at=at, seen=seen))
        yield Step(number, machine.at, kills=True), put(state, machine._replace(at=""))


def wrong(rules: Rules, state: State) -> str:
    """Return what must not be in a state; empty if nothing."""
    key = state.by_name()
    if key is None:
        return "the name leads nowhere"
    if not state.lives[key]:
        return "the name leads to a key whose API key is dead"
    if any(lives and label == GONE for lives, label in zip(state.lives, state.labels, strict=True)):
        return "a private half was destroyed whose API key lives"
    if all(not machine.at for machine in state.machines) and not _comes_to_rest(rules, state):
        return "it doesn't come to an end"
    return ""


def _comes_to_rest(rules: Rules, state: State) -> bool:
    """Tell whether what reconcile says, with nobody else at work, leaves one key that lives and has the name."""
    back = state.labels[NEW] == ABORTING and state.labels[OLD] != FINISHING
    back |= state.labels[NEW] == NEXT and not state.lives[NEW]
    for command in ("abort" if back else "finish",):
        machine = Machine("look", command)
        while machine.at:
            state, at, seen = rules.step(state, machine)
            machine = machine._replace(at=at, seen=seen)
    key = state.by_name()
    return GONE in state.labels and key is not None and state.lives[key]


def search(rules: Rules, runs: int = RUNS) -> tuple[Reached, list[str]]:
    """Look at every state that can be reached; return what comes before each, and the shortest way to a wrong one."""
    machine = Machine(runs=runs)
    beginnings = [state._replace(machines=(machine, machine)) for state in BEGINNINGS]
    before: Reached = dict.fromkeys(beginnings)
    queue = deque(beginnings)
    while queue:
        state = queue.popleft()
        problem = wrong(rules, state)
        if problem:
            return before, [*(str(step) for step, _ in way_to(state, before)), problem]
        for what, after in following(rules, state):
            if after not in before:
                before[after] = state, what
                queue.append(after)
    return before, []


def way_to(state: State, before: Reached) -> Way:
    """Return the steps to a state, each with what it leads to."""
    way: Way = []
    last = before[state]
    while last is not None:
        earlier, step = last
        way.append((step, state))
        state, last = earlier, before[earlier]
    return way[::-1]
