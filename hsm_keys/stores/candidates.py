"""A store that was found on this machine or in its variables, for ``init`` to propose."""

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
