"""Names of keys in a store, and the marks (``+next`` and the like) that workflows add to a name meanwhile."""

from __future__ import annotations

import re
from typing import Final

from hsm_keys.errors import UsageError
from hsm_keys.values import NAME, describe

__all__ = [
    "ABORTING",
    "ENDING",
    "FINISHING",
    "IMPORTING",
    "MARKS",
    "RETIRED",
    "ROTATION",
    "SUCCESSOR",
    "check_label",
    "check_new_name",
    "is_marked",
    "rotation_names",
]

IMPORTING: Final = "+importing"
"""What follows NAME in the name of a throwaway key, while a key made elsewhere is on its way into the store."""

SUCCESSOR: Final = "+next"
"""What follows NAME in the name of the key that is to replace it."""

RETIRED: Final = "+retired"
"""What follows NAME in the name of the key that it replaced, until that is destroyed."""

FINISHING: Final = "+finishing"
"""What follows NAME in the name of the key that it replaced, once its end has begun: nobody goes back to it."""

ABORTING: Final = "+aborting"
"""What follows NAME in the name of a successor whose end has begun: it doesn't get the name any more."""

ENDING: Final = "+ending"
"""What follows NAME in the name of a key whose end has begun: one that wasn't registered, so that nobody does that any
more; or one that deletes its own API key, since no other one can: it had been listed."""

ROTATION: Final = (SUCCESSOR, RETIRED, FINISHING, ABORTING)
"""The marks of the keys of an unfinished rotation of NAME, besides NAME itself."""

MARKS: Final = "next|retired|finishing|aborting|importing|ending|kept-[A-Za-z0-9]{1,20}"
"""A regular expression for what may follow NAME and a ``+``: a workflow uses or has used the key."""

_MARK = re.compile(MARKS)


def rotation_names(name: str) -> list[str]:
    """Return the names that keys have while a name is rotated: the name itself, then those with a mark."""
    return [name, *(name + mark for mark in ROTATION)]


def check_new_name(name: str) -> str:
    """Return the name if a new key may carry it.

    Raises:
        UsageError: If it isn't 1 to 64 letters, digits, dots, dashes and underscores, starting with a
            letter or digit.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{describe(name)} can't name a key",
            hint="use 1 to 64 letters, digits, '.', '-' and '_', starting with a letter or digit",
        )
    return name


def check_label(label: str) -> str:
    """Return the label if a key in a store may carry it: a name, or one that a workflow has marked.

    Raises:
        UsageError: If it is neither.
    """
    name, plus, mark = label.partition("+")
    check_new_name(name)
    if plus and not _MARK.fullmatch(mark):
        raise UsageError(
            f"{describe(label)} can't name a key", hint="'+' is for the marks of a rotation, such as prod+next"
        )
    return label


def is_marked(name: str) -> bool:
    """Tell whether a name is one that a workflow gives to a key while it works on the key."""
    return _MARK.fullmatch(name.partition("+")[2]) is not None
