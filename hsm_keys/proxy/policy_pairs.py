"""Compares two policies on a client's requests, and finds the first requests on which they differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy_steps import ORDERS
from hsm_keys.proxy.whatif import SupposedRequest, verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from hsm_keys.proxy.caps import Caps
    from hsm_keys.proxy.judge import Verdict
    from hsm_keys.proxy.policy import ClientPolicy, Policy
    from hsm_keys.proxy.policy_steps import Filling, Step

__all__ = ["Caller", "Comparison", "Difference", "Pair", "Turns", "is_joined_otherwise"]

_MOST_OF_FILLING: Final = 2000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        says: The client's name, or a user of the Unix socket.
        clients: Whom that is in the old and in the new policy.
    """

    says: str
    clients: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """A request on which the two policies differ.

    Attributes:
        asked: Who asks for what; the client is a name, or a user of the Unix socket.
        at: When.
        before: How many such ones were asked before it, of which both said the same.
        others: Who had asked for as much as they might before that.
        old: What the old policy says.
        new: What the new one says.
    """

    asked: SupposedRequest
    at: datetime
    before: int
    others: tuple[str, ...]
    old: Verdict
    new: Verdict


@dataclass(slots=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        tried: How many requests were tried.
        differences: One that only the old policy allows, and one that only the new one does, as far as there are such.
    """

    tried: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing more to look for."""
        return len({difference.new.allowed for difference in self.differences}) == 2  # noqa: PLR2004 - both ways

    def add(self, difference: Difference) -> None:
        """Keep the first one of each way."""
        if all(known.new.allowed != difference.new.allowed for known in self.differences):
            self.differences.append(difference)


def is_joined_otherwise(couple: Sequence[Caller]) -> bool:
    """Tell whether two of them are one client by one of the policies alone, and share its limits there."""
    return len({len({caller.clients[policy] for caller in couple}) for policy in (0, 1)}) > 1


class Pair:
    """Two policies, and one caller of both.

    Args:
        found: What was found so far.
        old: One policy.
        new: The other.
        caller: Who asks.
        judges: What others have asked before; each request or row of them comes after no other if there is none.
        others: Who these are.
    """

    def __init__(
        self,
        found: Comparison,
        old: Policy,
        new: Policy,
        caller: Caller,
        *,
        judges: tuple[Judge, Judge] | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        self._found = found
        self._policies = old, new
        self._caller = caller
        self._asked_before = judges
        self._others = others

    def try_alone(self, method: str, path: str, body: bytes | None, at: datetime) -> None:
        """Judge a request that comes after no other."""
        self._try(self._judges(), method, path, body, at=at)

    def follow(self, script: Iterable[Step], *, goes_on: bool = False) -> None:
        """Judge requests that come after each other, until the two differ, or both deny one and it doesn't go on."""
        judges = self._judges()
        for before, (method, path, body, at) in enumerate(script):
            allowed = self._try(judges, method, path, body, at=at, before=before)
            if allowed[0] != allowed[1] or not (allowed[0] or goes_on):
                return

    def fill(self, filling: Filling, at: datetime) -> datetime:
        """Fill sums with orders, and with ever smaller ones, until one policy alone allows the next, or none does.

        Returns:
            The time by then.
        """
        judges = self._judges()
        for _ in range(_MOST_OF_FILLING):
            allowed = self._try(judges, "POST", ORDERS, filling.body(), at=at, before=filling.number)
            if allowed[0] != allowed[1]:
                break
            if allowed[0]:
                at += filling.went()
            elif not filling.shrink():
                break
        return at

    def _judges(self) -> tuple[Judge, Judge]:
        return self._asked_before or (Judge(self._policies[0]), Judge(self._policies[1]))

    def _try(
        self, judges: tuple[Judge, Judge], method: str, path: str, body: bytes | None, *, at: datetime, before: int = 0
    ) -> tuple[bool, bool]:
        """Judge by both, and return whether each allows it."""
        self._found.tried += 1
        old, new = (
            verdict_of(judge, SupposedRequest(client, method, path, body), at=at)
            for judge, client in zip(judges, self._caller.clients, strict=True)
        )
        if old.allowed != new.allowed:
            request = SupposedRequest(self._caller.says, method, path, body)
            self._found.add(Difference(request, at, before, self._others, old, new))
        return old.allowed, new.allowed


class Turns:
    """Callers that both policies know, and that ask one after the other.

    Args:
        found: What was found so far.
        old: One policy.
        new: The other.
        callers: The callers.

    Attributes:
        rules: Theirs, by both policies.
        join_otherwise: Whether they are fewer clients by one of the policies.
    """

    def __init__(self, found: Comparison, old: Policy, new: Policy, callers: Sequence[Caller]) -> None:
        self._found = found
        self._policies = old, new
        self.callers = callers
        self.rules = [one for caller in callers for one in self._rules_of(caller)]
        self.join_otherwise = is_joined_otherwise(callers)

    def _rules_of(self, caller: Caller) -> list[ClientPolicy]:
        by_each = zip(self._policies, caller.clients, strict=True)
        return [rules for policy, name in by_each if (rules := policy.client(name)) is not None]

    def differ_in(self, cap_of: Callable[[Caps], int | None]) -> bool:
        """Tell whether what they share of a cap differs: that of all, or that of a client which two of them are."""
        old, new = (cap_of(policy.together.caps) for policy in self._policies)
        return old != new or (self.join_otherwise and any(cap_of(one.caps) for one in self.rules))

    def of(self, callers: Sequence[Caller] | None = None) -> Iterator[tuple[Pair, list[ClientPolicy]]]:
        """Yield each caller with its rules, to ask after those before it."""
        judges = Judge(self._policies[0]), Judge(self._policies[1])
        others: tuple[str, ...] = ()
        for caller in self.callers if callers is None else callers:
            yield Pair(self._found, *self._policies, caller, judges=judges, others=others), self._rules_of(caller)
            others = (*others, caller.says)
