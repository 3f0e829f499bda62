"""Parses JSON objects so strictly that no other program can read them in another way."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["UnclearJsonError", "strict_object"]


class UnclearJsonError(ValueError):
    """It can be read in two ways, or isn't an object; the message goes on after what it is of, and quotes nothing."""


def strict_object(text: bytes) -> dict[str, Any]:
    """Return the object that a text in UTF-8 holds.

    Raises:
        UnclearJsonError: If it isn't JSON (RFC 8259), isn't an object, says one name twice, in whatever case, or holds
            half of a surrogate pair (RFC 8259, section 8.2).
    """
    try:
        decoded = text.decode("utf-8").strip(_WHITESPACE)
        parsed, end = _DECODER.raw_decode(decoded)
        if end != len(decoded):
            raise UnclearJsonError("isn't JSON in UTF-8")
        if b"\\u" in text:
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnclearJsonError):
            raise
        raise UnclearJsonError("isn't JSON in UTF-8") from None
    if not isinstance(parsed, dict):
        raise UnclearJsonError("isn't a JSON object")
    return parsed


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name.casefold() for name, _ in pairs}) != len(pairs):
        raise UnclearJsonError("says one name twice")
    return dict(pairs)


def _refuse(_constant: str) -> Any:
    raise UnclearJsonError("isn't JSON: it holds NaN or Infinity")


_WHITESPACE: Final = " \t\n\r"  # RFC 8259, section 2
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse)
