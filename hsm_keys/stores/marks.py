"""What a store's mark says of a key: whether it is ours, and what it is registered as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FOREIGN", "MINTED", "OFFERED", "UNNAMED", "Mark"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says.

    Args:
        ours: Whether hsm-keys has marked the key, by making or by adopting it.
        api_key_id: The API key id of a registered key.
        environment: The environment in which it is registered, as ``environment_name`` gives it; without an API key
            id, the one for which a key is being imported, or in which it was about to be registered.
        registering: Whether it is a minted key that was about to be registered: Kalshi may know it by now.
        offered: Whether it is a minted key whose public half was printed, to be registered by hand in an environment
            that nobody named: Kalshi may know it in any.
        doubt: Why a mark of ours that the key carries isn't believed; empty if it carries none, or it is.
    """

    ours: bool
    api_key_id: str | None = None
    environment: str | None = None
    doubt: str = ""
    registering: bool = False
    offered: bool = False


FOREIGN: Final = Mark(ours=False)
MINTED: Final = Mark(ours=True)
OFFERED: Final = Mark(ours=True, offered=True)

UNNAMED: Final = "unnamed"
"""What stands in the place of the environment in the mark of a key that is offered so."""
