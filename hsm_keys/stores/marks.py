"""What a store's mark says of a key: whether it is ours, and what it is registered as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FOREIGN", "MINTED", "Mark"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says.

    Args:
        ours: Whether hsm-keys has marked the key, by making or by adopting it.
        api_key_id: The API key id of a registered key.
        environment: The environment in which it is registered, as ``environment_name`` gives it; without an API key
            id, the one for which a key is being imported.
    """

    ours: bool
    api_key_id: str | None = None
    environment: str | None = None


FOREIGN: Final = Mark(ours=False)
MINTED: Final = Mark(ours=True)
