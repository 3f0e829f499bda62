"""The environment of processes that a store starts."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["without_secrets"]

_SECRETS: Final = ("HSM_KEYS_PIN", "HSM_KEYS_STORE", "KALSHI_PRIVATE_KEY", "KALSHI_PERPS_PRIVATE_KEY")
"""What variables begin with that hold a PIN or a private key, or may: a store's URI can have a pin-value."""


def without_secrets() -> dict[str, str]:
    """Return this process's environment for a child; it is handed the PIN and the store's URI where it needs them."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
