"""Lists, page by page: the OpenAPI's LimitQuery and CursorQuery."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final, TypeVar

from hsm_keys.sandbox.queries import integer
from hsm_keys.sandbox.wire import flat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["page_of"]

_T = TypeVar("_T")

_DEFAULT_LIMIT: Final = 100
_MAX_LIMIT: Final = 1000
# What is in a cursor isn't documented. These bytes put "+", "/" and "=" into each, so that a client that
# doesn't percent-encode it is found out.
_MARK: Final = b"\xfb\xef\xff"
_DIGITS: Final = 10


def page_of(listed: Sequence[tuple[int, _T]], query: Mapping[str, str]) -> tuple[list[_T], str]:
    """Return the page that a query asks for, and the cursor of the next; an empty one after the last.

    Args:
        listed: What there is, each with a position that rises and stays when others are added.
        query: ``limit`` is from 1 to 1000, and 100 if it is left out; an empty ``cursor`` is the first page.

    Raises:
        WireError: 400, if the limit or the cursor is none.
    """
    limit = integer(query, "limit", 1, _MAX_LIMIT) or _DEFAULT_LIMIT
    start = _position(query.get("cursor", ""))
    ahead = [(position, item) for position, item in listed if position >= start]
    page = [item for _, item in ahead[:limit]]
    return page, _cursor(ahead[limit][0]) if len(ahead) > limit else ""


def _cursor(position: int) -> str:
    return b64encode(_MARK + f"{position:0{_DIGITS}}".encode()).decode()


def _position(cursor: str) -> int:
    if not cursor:
        return 0
    try:
        content = b64decode(cursor, validate=True)
    except ValueError:
        content = b""
    digits = content.removeprefix(_MARK)
    if re.fullmatch(rb"[0-9]{10}", digits) is None or _cursor(int(digits)) != cursor:
        raise flat(400, "invalid_parameters", "the cursor is none that was given")
    return int(digits)
