"""Checks method, path and query of the command line before anything is sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_plus

from hsm_keys.errors import UsageError
from hsm_keys.signing.message import canonical_method, canonical_path
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["checked_target", "with_cursor", "with_query"]

# RFC 3986, section 3.4; httpx2 sends these characters as they are, and writes some others anew.
_QUERY: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def checked_target(method: str, path: str) -> str:
    """Return the method in upper case, if method and path, with or without a query, can be sent as they are.

    Raises:
        UsageError: If one of them can't be signed, or the path would be another one when it arrives.
    """
    checked_method = canonical_method(method)
    canonical_path(path)
    bare, _, query = path.partition("?")
    if bare.startswith("//"):
        raise UsageError(
            f"{shown_path(path)} begins with '//' and so names a host",
            hint="start the path with one '/'; --base-url chooses the host",
        )
    if not _QUERY.fullmatch(query):
        raise UsageError(
            "the query holds a character that must be percent-encoded",
            hint="a space is %20, a quote %22; `request --query NAME=VALUE` does that for you",
        )
    return checked_method


def with_query(path: str, pairs: Sequence[str]) -> str:
    """Return the path with further query parameters, percent-encoded (RFC 3986, section 2).

    Args:
        path: The path, with a query or without.
        pairs: ``NAME=VALUE`` each, as people write them; the value may be empty.

    Raises:
        UsageError: If one has no ``=`` or no name, or holds a control character.
    """
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError("--query takes NAME=VALUE", hint="for example --query status=resting")
        if _CONTROL.search(pair):
            raise UsageError("--query holds a control character", hint="leave it out: no parameter of Kalshi's has one")
        path = _appended(path, f"{_encoded(name)}={_encoded(value)}")
    return path


def with_cursor(path: str, cursor: str) -> str:
    """Return the path of the page that a cursor stands for: its query with this cursor and no other."""
    bare, _, query = path.partition("?")
    parts = [part for part in query.split("&") if part and unquote_plus(part.partition("=")[0]) != "cursor"]
    return f"{bare}?{'&'.join([*parts, f'cursor={_encoded(cursor)}'])}"


def _appended(path: str, parameter: str) -> str:
    if "?" not in path:
        return f"{path}?{parameter}"
    return f"{path}{parameter}" if path.endswith(("?", "&")) else f"{path}&{parameter}"


def _encoded(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise UsageError("a query parameter is not UTF-8", hint="type it in a terminal that uses UTF-8") from None
