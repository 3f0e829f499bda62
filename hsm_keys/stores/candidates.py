"""A store that a machine or its environment names, as it is proposed to somebody who sets up a first key."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Candidate"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A store that is there.

    Args:
        uri: Its URI.
        description: What people call it.
    """

    uri: str
    description: str
