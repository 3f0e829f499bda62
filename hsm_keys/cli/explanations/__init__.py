"""What each error code means: cause, remedy and an example. ``hsm-keys explain`` prints it.

Codes are the command line's and the library's (``HsmKeysError.code``), the signing proxy's (``error.code`` of its
answers), and those of Kalshi's that this program knows. A code that the command line and the proxy share stands here
once, among the former.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_keys.cli.explanations import general, kalshi, proxy, stores

if TYPE_CHECKING:
    from hsm_keys.cli.explanations.explanation import Explanation

__all__ = ["KALSHI", "OURS", "PROXY", "find"]

OURS: Final = general.EXPLANATIONS | stores.EXPLANATIONS
"""Codes with an exit code."""

PROXY: Final = proxy.EXPLANATIONS
"""Codes that the proxy alone answers with."""

KALSHI: Final = kalshi.EXPLANATIONS
"""Kalshi's own codes, and the ``details`` beside them."""


def find(code: str) -> tuple[str, Explanation] | None:
    """Return a code as it is written and its explanation; None if it is none.

    Args:
        code: Upper or lower case; what follows the first space is left aside, as in ``deny GET /portfolio/fills``.
    """
    word = code.partition(" ")[0]
    every = {**KALSHI, **PROXY, **OURS}
    if word in every:  # Kalshi has not_found and NOT_FOUND
        return word, every[word]
    return next(((known, every[known]) for known in every if known.casefold() == word.casefold()), None)
