"""The mark of a key in its store: whether the key is ours, and its API key id and environment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["FOREIGN", "MINTED", "OFFERED", "UNBEGUN", "UNNAMED", "Claim", "Intent", "Mark"]


class Intent(StrEnum):
    """What a run is about to do with an API key of a pair that isn't bound yet."""

    TAKES = "taking"
    """It binds one that it has found."""
    LEAVES = "leaving"
    """It deletes its own one, and leaves the pair to another run."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run has written beside a pair that it was about to do.

    Args:
        intent: What.
        api_key_id: With which API key.
    """

    intent: Intent
    api_key_id: str

    def __str__(self) -> str:
        return f"{self.intent}:{self.api_key_id}"

    @classmethod
    def parse(cls, text: str | None) -> Claim | None:
        """Return the claim that a text stands for; None if it stands for none."""
        intent, _, api_key_id = (text or "").partition(":")
        return cls(Intent(intent), api_key_id) if intent in set(Intent) and api_key_id else None


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says.

    Args:
        ours: Whether hsm-keys has marked the key, by making or by adopting it.
        api_key_id: The API key id of a registered key.
        environment: The environment in which it is registered, as ``environment_name`` gives it; without an API key
            id, the one for which a key is being imported or was made, or in which it was about to be registered.
        importing: Whether it was made by Kalshi, and its import hasn't ended.
        registering: Whether it is a minted key that was about to be registered: Kalshi may know it by now.
        offered: Whether it is a minted key whose public half was printed, to be registered by hand in an environment
            that nobody named: Kalshi may know it in any.
        claim: What the last run was about to do with an API key of such a key; None if it was about to register it.
        doubt: Why a mark of ours that the key carries isn't believed; empty if it carries none, or it is.
    """

    ours: bool
    api_key_id: str | None = None
    environment: str | None = None
    doubt: str = ""
    importing: bool = False
    registering: bool = False
    offered: bool = False
    claim: Claim | None = None


FOREIGN: Final = Mark(ours=False)
MINTED: Final = Mark(ours=True)
OFFERED: Final = Mark(ours=True, offered=True)

UNNAMED: Final = "unnamed"
"""What stands in the place of the environment in the mark of a key that is offered so."""

UNBEGUN: Final = "minted"
"""What stands in the place of a claim in the mark of a key that was made for an environment, and isn't known there."""
