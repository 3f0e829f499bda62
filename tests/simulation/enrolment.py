"""Enrolment as a model: ``enroll`` on two machines, killed at any step, with requests lost; searched to the end.

A state is how far the pair and its API keys have come, and each machine. A request without an answer was carried out,
never arrived, or is under way: then it is carried out before whoever waits for it has waited long enough.

The rules are those of the code. Where an answer is lost, or a machine that was killed runs again while the other one
stands between its list and its deletion, they don't keep a bound API key alive: the model's test names both ways.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from tests.simulation.model import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS: Final = 1
"""How often each machine begins the command."""

UNDER_WAY, LIVES, DEAD = "under way", "lives", "dead"
NONE, MINTED, MARKED = "no pair", "minted", "marked"
ANSWERS: Final = ("post", "post, answer lost", "post, request lost", "post, late")
POSTS: Final = 2
"""How many requests are sent at most; a machine that would send one more stops."""


class Machine(NamedTuple):
    """A machine.

    Args:
        at: The next step of the command that it runs; empty between commands.
        new: Whether it made the pair.
        before: The API keys that lived when it listed them.
        own: Which API key is the one of this run; -1 while there is none.
        runs: How many commands it may still begin.
    """

    at: str = ""
    new: bool = False
    before: tuple[int, ...] = ()
    own: int = -1
    runs: int = RUNS


class State(NamedTuple):
    """A state.

    Args:
        pair: ``no pair``, ``minted`` or ``marked``.
        bound: Which API key it is bound to; -1 for none.
        sent: What became of each request to register it.
        plain: Whether nothing was killed after it had sent a request, and no answer was lost.
        machines: Both machines.
    """

    pair: str = NONE
    bound: int = -1
    sent: tuple[str, ...] = ()
    plain: bool = True
    machines: tuple[Machine, Machine] = (Machine(), Machine())

    def living(self) -> tuple[int, ...]:
        return tuple(number for number, each in enumerate(self.sent) if each == LIVES)

    def carried_out(self) -> State:
        return self._replace(sent=tuple(LIVES if each == UNDER_WAY else each for each in self.sent))

    def dead(self, number: int) -> State:
        return self._replace(sent=(*self.sent[:number], DEAD, *self.sent[number + 1 :]))


Reached: TypeAlias = "dict[State, tuple[State, Step] | None]"
"""What comes before each state."""


class Rules:
    """What the command does, step by step; the planted faults of the model's own test change one of them."""

    yields = True
    """Whether a machine that finds another one's API key beside its own deletes its own."""
    answers: tuple[str, ...] = ("post", "post, request lost")
    """What may become of a request."""
    waits = True
    """Whether a machine that finds no API key of a pair that it picked up waits, and looks again."""

    def steps(self, state: State, machine: Machine) -> Iterator[tuple[str, State, Machine]]:
        """Give what one step of a machine can lead to."""
        for what in self.answers if machine.at == "post" else (machine.at,):
            after, changed = getattr(self, f"_{machine.at.replace(' ', '_')}")(state, machine, what)
            yield what, after, changed

    def _look(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        at = "mint" if state.bound < 0 else ""
        return state, machine._replace(at=at, before=state.living() if at else (), own=-1)

    def _mint(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        if state.bound >= 0:
            return state, machine._replace(at="")
        new = state.pair == NONE
        after = state._replace(pair=MINTED) if new else state
        return after, machine._replace(at="register", new=new)

    def _register(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        if state.bound >= 0:
            return state, machine._replace(at="")
        return state, machine._replace(at="mark" if machine.new else "search")

    def _search(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        found = state.living()
        if found:
            return state, machine._replace(at="bind", own=found[0])
        return state, machine._replace(at="search again" if self.waits else "mark")

    def _search_again(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        after = state.carried_out()
        found = after.living()
        return after, machine._replace(at="bind" if found else "mark", own=found[0] if found else -1)

    def _mark(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        if state.bound >= 0:
            return state, machine._replace(at="")
        return state._replace(pair=MARKED), machine._replace(at="post")

    def _post(self, state: State, machine: Machine, what: str) -> tuple[State, Machine]:
        if len(state.sent) == POSTS:
            return state, machine._replace(at="")
        became = {"post, request lost": DEAD, "post, late": UNDER_WAY}.get(what, LIVES)
        after = state._replace(sent=(*state.sent, became), plain=state.plain and what == "post")
        if what == "post":
            return after, machine._replace(at="yield", own=len(state.sent))
        return after, machine._replace(at="look again")

    def _look_again(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        found = [number for number in state.living() if number not in machine.before]
        return state, machine._replace(at="yield" if found else "", own=found[0] if found else -1)

    def _yield(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        others = [number for number in state.living() if number not in {*machine.before, machine.own}]
        return state, machine._replace(at="delete" if others and self.yields else "bind")

    def _delete(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        return state.dead(machine.own), machine._replace(at="")

    def _bind(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        return state._replace(bound=machine.own), machine._replace(at="prove")

    def _prove(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        return state, machine._replace(at="")


_SENT: Final = frozenset({"yield", "delete", "look again"})
"""Where a machine has an API key of its own that it hasn't bound."""


def following(rules: Rules, state: State) -> Iterator[tuple[Step, State]]:
    """Give what can come next: a machine begins, takes its next step, or is killed; a late request is carried out."""
    if UNDER_WAY in state.sent:
        yield Step(-1, "carried out"), state.carried_out()
    for number, machine in enumerate(state.machines):

        def put(after: State, changed: Machine, number: int = number) -> State:
            changed = changed if changed.at else Machine(runs=changed.runs)
            one, other = after.machines
            return after._replace(machines=(changed, other) if number == 0 else (one, changed))

        if not machine.at:
            if machine.runs:
                yield Step(number, "enroll", begins=True), put(state, Machine("look", runs=machine.runs - 1))
            continue
        for what, after, changed in rules.steps(state, machine):
            yield Step(number, what), put(after, changed)
        lost = state._replace(plain=state.plain and machine.at not in _SENT)
        yield Step(number, machine.at, kills=True), put(lost, machine._replace(at=""))


def wrong(rules: Rules, state: State) -> str:
    """Return what must not be in a state; empty if nothing."""
    if any(machine.at for machine in state.machines) or UNDER_WAY in state.sent:
        return ""
    if state.bound >= 0 and state.sent[state.bound] != LIVES:
        return "the pair is bound to an API key that is dead"
    if state.plain and len(state.living()) > 1:
        return "the pair has two API keys, and nothing was lost"
    if len(state.sent) < POSTS and not _comes_to_rest(rules, state):
        return "it doesn't come to an end"
    return ""


def _comes_to_rest(rules: Rules, state: State) -> bool:
    """Tell whether the command, with nobody else at work and nothing lost, leaves a key that is bound and lives."""
    machine = Machine("look")
    while machine.at:
        _, state, machine = next(rules.steps(state, machine))
    return state.bound in state.living()


def search(rules: Rules, runs: int = RUNS) -> tuple[Reached, list[str]]:
    """Look at every state that can be reached; return what comes before each, and the shortest way to a wrong one."""
    beginning = State(machines=(Machine(runs=runs), Machine(runs=runs)))
    before: Reached = {beginning: None}
    queue = deque([beginning])
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


def way_to(state: State, before: Reached) -> list[tuple[Step, State]]:
    """Return the steps to a state, each with what it leads to."""
    way = []
    last = before[state]
    while last is not None:
        earlier, step = last
        way.append((step, state))
        state, last = earlier, before[earlier]
    return way[::-1]
