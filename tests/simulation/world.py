"""One life's surroundings: whose turn it is, what goes wrong next, and what the story tells."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from tests.simulation.clock import Clock
from tests.simulation.effects import LOSSES, Call, Fault, Killed, Kind, Process
from tests.simulation.pairs import Pair, pairs

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_EFFECT_S = 0.01
_STUCK_S = 60.0
_SECOND_COPY_S = 0.3


class Violated(BaseException):
    """Something is so that must never be; the workflows can't catch it."""


class World:
    """What all parts of a life share.

    Args:
        telling: Whether the story is kept.
    """

    def __init__(self, *, telling: bool = False) -> None:
        self.clock = Clock()
        self.process: Process | None = None
        self.story: list[str] = []
        self.turn: Callable[[], None] = lambda: None
        self.telling = telling
        self.pairs_taken = 0
        self.uniques_taken = 0
        self.repeating = False
        """Whether the network carries out a request again."""

    def pair(self) -> Pair:
        """Return a pair that nobody has had yet."""
        self.pairs_taken += 1
        return pairs()[self.pairs_taken]

    def unique_bytes(self, length: int) -> bytes:
        """Return bytes that nobody has had yet, as a source of chance gives them."""
        self.uniques_taken += 1
        return hashlib.blake2b(b"%d" % self.uniques_taken, digest_size=length).digest()

    def tell(self, sentence: str) -> None:
        if self.telling:
            who = self.process.operator if self.process else "-"
            self.story.append(f"{self.clock.now % 1000:7.2f}  {who}: {sentence}")

    def effect(self, call: Call, act: Callable[[], _T]) -> _T:
        """Carry out a call that leaves the process, and let go wrong with it what is due."""
        process = self.process
        if process is None:  # whoever judges the life looks at it from outside
            return act()
        if process.dead:
            raise Killed
        self.clock.pass_(_EFFECT_S)
        due = process.due(call)
        if not due:
            if call.changes:
                self.tell(call.label)
            return act()
        return self._faulty(process, call, act, due)

    def _faulty(self, process: Process, call: Call, act: Callable[[], _T], due: list[Fault]) -> _T:
        kinds = {fault.kind: fault for fault in due}
        process.hit += 1
        if Kind.DELAY in kinds:
            self.clock.pass_(kinds[Kind.DELAY].seconds)
        if Kind.TURN in kinds:
            self.tell(f"waits before {call.label}")
            self.turn()
            self.process = process
        if Kind.KILL_BEFORE in kinds:
            self._kill(process, Kind.KILL_BEFORE, call)
        if Kind.EARLY in kinds and call.promise is not None:
            self.tell(f"{call.label}: {kinds[Kind.EARLY]}")
            self._later(kinds[Kind.EARLY].seconds, act)
            return cast("_T", call.promise)
        loss = next((fault for fault in due if fault.kind in LOSSES), None)
        if loss is not None and call.lost is not None:
            return self._lost(call, act, loss)
        self.tell(call.label)
        done = act()
        if Kind.KILL_AFTER in kinds:
            self._kill(process, Kind.KILL_AFTER, call)
        return done

    def _kill(self, process: Process, kind: Kind, call: Call) -> None:
        process.dead = True
        process.killed_at = f"{kind} {call.label.partition(' of ')[0]}"
        self.tell(f"{kind} {call.label}")
        raise Killed

    def _lost(self, call: Call, act: Callable[[], _T], fault: Fault) -> _T:
        assert call.lost is not None
        self.tell(f"{call.label}: {fault}")
        if fault.kind is Kind.TWICE:
            if not (call.changes and call.twice):
                return act()
            done = act()
            self._later(_SECOND_COPY_S, act, again=True)
            return done
        if fault.kind is Kind.LOSE_ANSWER:
            _quietly(act)
        elif fault.kind is Kind.LATE and call.changes:
            self._later(fault.seconds, act)
        raise call.lost(fault.kind is not Kind.UNREACHABLE)

    def _later(self, seconds: float, act: Callable[[], object], *, again: bool = False) -> None:
        """Have a call carried out later, or again: it is still its sender's then, whoever runs."""
        sender = self.process

        def carry_out() -> None:
            running, self.process, self.repeating = self.process, sender, again
            _quietly(act)
            self.process, self.repeating = running, False

        self.clock.later(seconds, carry_out)

    def wait(self, seconds: float) -> None:
        """Stand in for ``time.sleep``."""
        if self.process is not None and self.process.dead:
            raise Killed
        self.clock.pass_(seconds)


def _quietly(act: Callable[[], Any]) -> None:
    """Carry out what nobody hears the answer of."""
    try:
        act()
    except Violated:
        raise
    except Exception:  # noqa: BLE001 - a refusal that nobody hears
        return


def _closed() -> threading.Lock:
    """Return a gate: whoever comes to it waits until somebody else opens it."""
    gate = threading.Lock()
    gate.acquire()
    return gate


class _Helper:
    """A thread that does one thing after the other: to start one takes longer than most commands."""

    idle: ClassVar[list[_Helper]] = []

    def __init__(self) -> None:
        self._gate = _closed()
        self._work: Callable[[], None] = lambda: None
        threading.Thread(target=self._live, daemon=True).start()

    @classmethod
    def do(cls, work: Callable[[], None]) -> None:
        helper = cls.idle.pop() if cls.idle else cls()
        helper._work = work
        helper._gate.release()

    def _live(self) -> None:
        while True:
            self._gate.acquire()
            self._work()
            self.idle.append(self)


class Turns:
    """Lets one operator go on at a time: each but the first has a thread, and one of them has the turn.

    Args:
        world: Where they work.
        lives: What each of them does.
    """

    def __init__(self, world: World, lives: list[Callable[[], None]]) -> None:
        self._world = world
        self._gates = [_closed() for _ in lives]
        self._left = set(range(len(lives)))
        self._now = 0
        self._over = _closed()
        self._failure: BaseException | None = None
        self._lives = lives

    def run(self) -> None:
        """Let all come to their end; what one of them raises is raised."""
        self._world.turn = self._hand_on
        for number, life in enumerate(self._lives[1:], 1):
            _Helper.do(partial(self._run, number, life))
        self._gates[0].release()
        self._run(0, self._lives[0])
        if not self._over.acquire(timeout=_STUCK_S):
            raise Violated("the operators wait for each other")
        self._world.turn = lambda: None
        if self._failure is not None:
            raise self._failure

    def _run(self, number: int, life: Callable[[], None]) -> None:
        self._gates[number].acquire()
        try:
            if self._failure is None:
                life()
        except BaseException as error:  # noqa: BLE001 - raised again where the life is judged
            self._failure = self._failure or error
        self._left.discard(number)
        if self._left:
            self._now = min(self._left)
            self._gates[self._now].release()
        else:
            self._over.release()

    def _hand_on(self) -> None:
        mine = self._now
        others = [number for number in sorted(self._left) if number != mine]
        if not others:
            return
        self._now = next((number for number in others if number > mine), others[0])
        self._gates[self._now].release()
        if not self._gates[mine].acquire(timeout=_STUCK_S):
            raise Violated("the operators wait for each other")
        if self._failure is not None:
            raise Killed
