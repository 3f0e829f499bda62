"""The facts about the custody of a private half, each with a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CustodyFact", "CustodyVerdict", "Topic"]


class CustodyVerdict(StrEnum):
    """What a fact says about custody."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"
    """The store doesn't say, or what it says proves nothing either way."""


class Topic(StrEnum):
    """What a fact is about."""

    KEEPING = "keeping"
    """Whether the private half stays in."""
    MAKING = "making"
    """Where it was made."""
    PAST = "past"
    """Whether it has always stayed in; not so for one that was made elsewhere."""
    KEEPER = "keeper"
    """What it stays in by: custody is as strong as that."""


@dataclass(frozen=True, slots=True)
class CustodyFact:
    """One thing that the store says, or that was tried against it.

    Args:
        name: Stable name in snake case, such as ``extractable``.
        value: What the store answered; None where it says nothing.
        verdict: Whether that is what custody needs.
        note: A sentence for people: why it is bad, or what was tried.
        topic: What it is about.
    """

    name: str
    value: bool | str | None
    verdict: CustodyVerdict
    note: str = ""
    topic: Topic = Topic.KEEPING
