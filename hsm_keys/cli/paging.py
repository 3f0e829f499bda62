"""The pages of a list endpoint, followed to the end and joined to one object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hsm_keys.cli import exact_json
from hsm_keys.cli.target import with_cursor

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

__all__ = ["all_pages"]

_CURSORS: Final = ("cursor", "next_cursor")  # GET /incentive_programs gives the second, and takes the first


def all_pages(get: Callable[[str], httpx2.Response], path: str) -> str:
    """Follow the cursors of a list endpoint, and return its pages as the text of one JSON object.

    Lists of the same name are joined; of all else the last page's value stands, so that the cursor is empty.
    Numbers stay as Kalshi wrote them.

    Args:
        get: Sends a signed GET and returns the answer, which is a success.
        path: The path of the first page, with its query.

    Raises:
        NetworkError: If a page isn't JSON, doesn't fit to the others, or gives a cursor that was given before.
    """
    from hsm_keys.kalshi.errors import garbled

    merged: dict[str, Any] = {}
    seen: set[str] = set()
    response = get(path)
    try:
        while cursor := _merge(merged, exact_json.read(response.content)):
            if cursor in seen:
                raise ValueError("it gives a cursor that was given before")
            seen.add(cursor)
            response = get(with_cursor(path, cursor))
        return exact_json.write(merged)
    except ValueError as error:
        raise garbled(response, f"is no page of a list: {error}") from None


def _merge(merged: dict[str, Any], page: Any) -> str:
    """Add a page to what there is, and return the cursor of the next; empty if this is the last."""
    if not isinstance(page, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - about what was read, as all the others
    for name, value in page.items():
        before = merged.get(name)
        if isinstance(before, list) and value is None:
            continue  # servers written in Go send an empty list as null
        if before is not None and isinstance(before, list) != isinstance(value, list):
            raise ValueError(f"{name!r} is a list on one page and not on another")
        if isinstance(before, list):
            before.extend(value)
        else:
            merged[name] = value
    for name in _CURSORS:
        if name in merged and name not in page:
            merged[name] = ""  # without a cursor this is the last page
    return _cursor(page)


def _cursor(page: dict[str, Any]) -> str:
    for name in _CURSORS:
        value = page.get(name)
        if not value:
            continue
        if not isinstance(value, str) or isinstance(value, exact_json.Number) or not value.isprintable():
            raise ValueError(f"{name!r} is no cursor")
        return value
    return ""
