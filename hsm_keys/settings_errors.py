"""What is wrong with a TOML file or another table of settings, in words. A value that may be secret isn't repeated."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.values import describe, may_be_shown, shown_word

if TYPE_CHECKING:
    import tomllib
    from collections.abc import Collection

    from pydantic import ValidationError

__all__ = ["not_toml", "wrong_settings"]

_MOST: Final = 5
_POSITION: Final = re.compile(r" \(at (?:line \d+, column \d+|end of document)\)$")
# The others quote what stands there.
_PLAIN: Final = ("Expected", "Invalid value", "Invalid statement", "Invalid date", "Unclosed", "Unterminated")

_WANTED: Final = {
    "bool_type": "has to be true or false",
    "dict_type": "has to be a table",
    "float_type": 'has to be a number, or "tier"',
    "float_parsing": 'has to be a number, or "tier"',
    "int_type": "has to be a whole number",
    "json_invalid": "is no JSON",
    "int_from_float": "has to be a whole number",
    "list_type": 'has to be a list, such as ["..."]',
    "missing": "is missing",
    "model_type": "has to be a table",
    "string_type": "has to be a text in quotes",
    "finite_number": "has to be a number",
    "string_too_short": "is empty",
    "string_too_long": "is too long",
    "too_short": "is empty",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def not_toml(error: tomllib.TOMLDecodeError | RecursionError) -> str:
    """Return where a text stops to be TOML, and what stands there as far as that is harmless."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error)
    place = _POSITION.search(text)
    return text if text.startswith(_PLAIN) else f"an error{place[0] if place else ''}"


def wrong_settings(error: ValidationError, names: Collection[str]) -> str:
    """Return what is wrong with settings.

    Args:
        error: What pydantic found.
        names: The names of all settings.
    """
    problems = error.errors(include_url=False, include_input=False)
    said = [_said(problem["loc"], problem["type"], problem.get("ctx", {}), names) for problem in problems[:_MOST]]
    more = len(problems) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more else "")


def _said(loc: tuple[int | str, ...], kind: str, context: dict[str, Any], names: Collection[str]) -> str:
    if kind == "extra_forbidden":
        name = str(loc[-1])
        if name in names:
            return f"{_place(loc[:-1])}{name!r} is no setting of this section"
        return f"{_place(loc[:-1])}there is no setting {shown_word(name, names)}"
    return f"{_place(loc)}{_wrong(kind, context)}"


def _wrong(kind: str, context: dict[str, Any]) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"has to be {context['expected']}"
    if kind in _BOUNDS:
        limit, words = _BOUNDS[kind]
        return f"has to be {words} {context[limit]:g}"
    return _WANTED.get(kind, "isn't what belongs there")


def _place(loc: tuple[int | str, ...]) -> str:
    """Return where a setting stands, such as ``clients.maker.allow, number 2: ``."""
    names = [part for part in loc if isinstance(part, str)]
    shown = ".".join(name if may_be_shown(name) else describe(name) for name in names)
    number = next((f", number {part + 1}" for part in loc if isinstance(part, int)), "")
    return f"{shown}{number}: " if shown else ""
