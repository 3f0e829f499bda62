"""Whether a key can be used now; the same values for all stores."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Condition", "Usability"]


class Usability(StrEnum):
    """Whether a private half can be used."""

    USABLE = "usable"
    ENDING = "ending"
    """Its deletion is scheduled; it signs nothing any more."""
    ARRIVING = "arriving"
    """It is being imported, and isn't there yet."""
    UNUSABLE = "unusable"
    """It is there, and doesn't sign: disabled, refused, broken."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How usable a key is, and what its store says of that.

    Args:
        usability: In the words that all stores share.
        reason: In the store's own; empty where it is usable.
    """

    usability: Usability = Usability.USABLE
    reason: str = ""
