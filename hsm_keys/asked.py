"""What is asked of a store and of Kalshi, in the log: never a PIN, a private half, a signature, a body or a token."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["LOG", "log_asked"]

LOG: Final = logging.getLogger("hsm_keys.asked")
"""Its records have the level DEBUG; ``hsm-keys --verbose`` prints them."""


def log_asked(whom: str, what: object) -> None:
    """Log what is asked, or answered.

    Args:
        whom: Who is asked: ``token``, ``KMS``, ``Vault`` or ``Kalshi``.
        what: What for, in words; turned into text only if somebody listens.
    """
    LOG.debug("%s: %s", whom, what)
