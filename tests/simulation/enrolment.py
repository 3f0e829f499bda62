"""Enrolment as a model: ``enroll`` on two machines, killed at any step, with requests lost; searched to the end.

A state is how far the pair and its API keys have come, and each machine. A request without an answer was carried out,
never arrived, or is under way: then it is carried out before whoever waits for it has waited long enough.

The rules are those of the code. The planted faults of the model's own test show what each of them is for.
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
POSTS: Final = 4
"""How many requests are sent at most; a machine that would send one more stops."""


_SIGNED: Final = frozenset({"say so", "check", "delete"})
"""Where a machine has signed a deletion that it hasn't sent."""


class Machine(NamedTuple):
    """A machine.

    Args:
        at: The next step of the command that it runs; empty between commands.
        then: What follows once it has read the mark.
        new: Whether it made the pair.
        before: The API keys that lived when it listed them.
        own: Which API key is the one of this run; -1 while there is none.
        late: Whether Kalshi doesn't take any more what it has signed.
        runs: How many commands it may still begin.
    """

    at: str = ""
    then: str = ""
    new: bool = False
    before: tuple[int, ...] = ()
    own: int = -1
    late: bool = False
    runs: int = RUNS


class State(NamedTuple):
    """A state.

    Args:
        pair: ``no pair``, ``minted`` or ``marked``.
        taking: Which API key the mark says is about to be bound; -1 for none.
        yielding: Which one it says is to be deleted; -1 for none.
        bound: Which API key it is bound to; -1 for none.
        sent: What became of each request to register it.
        listed: Those that were carried out, in that order.
        plain: Whether nothing was killed after it had sent a request, no answer was lost, and no run waited for others:
            one that does names the API keys that are left.
        machines: Both machines.
    """

    pair: str = NONE
    taking: int = -1
    yielding: int = -1
    bound: int = -1
    sent: tuple[str, ...] = ()
    listed: tuple[int, ...] = ()
    plain: bool = True
    machines: tuple[Machine, Machine] = (Machine(), Machine())

    def living(self) -> tuple[int, ...]:
        return tuple(number for number in self.listed if self.sent[number] == LIVES)

    def carried_out(self) -> State:
        sent = tuple(LIVES if each == UNDER_WAY else each for each in self.sent)
        late = tuple(number for number, each in enumerate(self.sent) if each == UNDER_WAY)
        return self._replace(sent=sent, listed=self.listed + late)

    def dead(self, number: int) -> State:
        return self._replace(sent=(*self.sent[:number], DEAD, *self.sent[number + 1 :]))

    def outwaited(self) -> State:
        """Return it once Kalshi takes nothing any more that was signed by now."""
        one, other = (each._replace(late=each.late or each.at in _SIGNED) for each in self.machines)
        return self.carried_out()._replace(machines=(one, other), plain=False)


Reached: TypeAlias = "dict[State, tuple[State, Step] | None]"
"""What comes before each state."""


class Rules:
    """What the command does, step by step; the planted faults of the model's own test change one of them."""

    answers: tuple[str, ...] = ANSWERS
    """What may become of a request."""
    posts = POSTS
    """How many requests are sent at most; a machine that would send one more stops."""
    yields = True
    """Whether a machine that finds another one's API key beside its own deletes its own."""
    waits = True
    """Whether a machine that finds no API key of a pair that it picked up waits, and looks again."""
    claims = True
    """Whether a machine writes the mark before it takes an API key that it finds."""
    outwaits = True
    """Whether it waits where it finds several, or the mark says that somebody gives way."""
    checks = True
    """Whether a machine reads the mark before it deletes its API key."""
    believes = False
    """Whether a machine without an answer deletes what it takes for its own."""

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
        if machine.new:
            return state, machine._replace(at="mark", then="post")
        return state, machine._replace(at="read", then="search")

    def _read(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        if state.yielding < 0:
            return state, machine._replace(at=machine.then)
        return state, machine._replace(at="outwait" if self.outwaits else machine.then)

    def _outwait(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        return state.outwaited(), machine._replace(at=machine.then)

    def _mark(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        if state.bound >= 0:
            return state, machine._replace(at="")
        return state._replace(pair=MARKED, taking=-1, yielding=-1), machine._replace(at="post")

    def _search(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        return state, self._found(state, machine, "search again" if self.waits else "mark")

    def _search_again(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        after = state.carried_out()
        return after, self._found(after, machine, "mark")

    def _found(self, state: State, machine: Machine, otherwise: str) -> Machine:
        found = state.living()
        if found:
            return machine._replace(at="take" if self.claims else "bind", own=found[0])
        return machine._replace(at=otherwise)

    def _take(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        if state.bound >= 0:
            return state, machine._replace(at="")
        return state._replace(pair=MARKED, taking=machine.own, yielding=-1), machine._replace(at="make sure")

    def _make_sure(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        found = state.living()
        alone = found == (machine.own,)
        return state, machine._replace(at="bind" if alone or not self.outwaits else "outwait others")

    def _outwait_others(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        after = state.outwaited()
        sure = machine.own in after.living() and after.taking == machine.own and after.bound < 0
        return after, machine._replace(at="bind" if sure else "")

    def _post(self, state: State, machine: Machine, what: str) -> tuple[State, Machine]:
        if len(state.sent) == self.posts:
            return state, machine._replace(at="")
        became = {"post, request lost": DEAD, "post, late": UNDER_WAY}.get(what, LIVES)
        listed = (*state.listed, len(state.sent)) if became == LIVES else state.listed
        after = state._replace(sent=(*state.sent, became), listed=listed, plain=state.plain and what == "post")
        if what == "post":
            return after, machine._replace(at="yield", own=len(state.sent))
        if self.believes:
            return after, machine._replace(at="look again")
        return after, machine._replace(at="read", then="look again")

    def _look_again(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        found = [number for number in state.living() if number not in machine.before]
        if self.believes:
            return state, machine._replace(at="yield" if found else "", own=found[0] if found else -1)
        if len(found) != 1:
            return state, machine._replace(at="")
        return state, machine._replace(at="take", own=found[0])

    def _others(self, state: State, machine: Machine) -> list[int]:
        return [number for number in state.living() if number not in {*machine.before, machine.own}]

    def _yield(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        if not (self._others(state, machine) and self.yields):
            return state, machine._replace(at="bind")
        return state, machine._replace(at="give way" if self.checks else "delete")

    def _give_way(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        first = state.bound < 0 and state.yielding < 0 and state.taking != machine.own
        return state, machine._replace(at="say so" if first else "check")

    def _say_so(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        after = state if state.bound >= 0 else state._replace(pair=MARKED, taking=-1, yielding=machine.own)
        return after, machine._replace(at="check")

    def _check(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        deletes = state.yielding == machine.own if state.bound < 0 else state.bound != machine.own
        return state, machine._replace(at="delete" if deletes else "")

    def _delete(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        return state if machine.late else state.dead(machine.own), machine._replace(at="", late=False)

    def _bind(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        return state._replace(bound=machine.own, taking=-1, yielding=-1), machine._replace(at="prove")

    def _prove(self, state: State, machine: Machine, _: str) -> tuple[State, Machine]:
        return state, machine._replace(at="")


_SENT: Final = frozenset({"yield", "give way", "say so", "check", "delete", "look again"})
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
        sent = machine.at in _SENT or (machine.own >= 0 and (machine.runs > 0 or machine.then != ""))
        lost = state._replace(plain=state.plain and not sent)
        yield Step(number, machine.at, kills=True), put(lost, machine._replace(at=""))


def wrong(rules: Rules, state: State) -> str:
    """Return what must not be in a state; empty if nothing."""
    if any(machine.at for machine in state.machines) or UNDER_WAY in state.sent:
        return ""
    if state.bound >= 0 and state.sent[state.bound] != LIVES:
        return "the pair is bound to an API key that is dead"
    if state.plain and len(state.living()) > 1:
        return "the pair has two API keys, and nothing was lost"
    if len(state.sent) < rules.posts and not _comes_to_rest(rules, state):
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
