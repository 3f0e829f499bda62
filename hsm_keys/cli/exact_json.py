"""JSON whose numbers are written exactly as they were read.

Python reads 0.10 as 0.1 and 1e400 as infinity; but an amount or an id must not change.
"""

from __future__ import annotations

import json
from typing import Any

from hsm_keys.values import shown

__all__ = ["Number", "read", "write"]


class Number(str):
    """A number, as it was written."""

    __slots__ = ()


def read(content: bytes) -> Any:
    """Return the value of a JSON text (RFC 8259); it is for ``write``, as its numbers are no numbers of Python's.

    Raises:
        ValueError: If it isn't JSON in UTF-8: NaN and Infinity aren't. Neither is an object that gives a name
            twice taken, as who reads it may take either value (RFC 8259, section 4). The message doesn't repeat
            the text.
    """
    try:
        return json.loads(
            content.decode(),
            parse_int=Number,
            parse_float=Number,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(word: str) -> None:
    raise ValueError(f"JSON has no {word}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"{shown(name)} is given twice in one object")
        members[name] = value
    return members


def write(value: Any) -> str:
    """Return the JSON text of what ``read`` returned, on one line.

    Raises:
        ValueError: If it is nested too deeply.
    """
    try:
        return _written(value)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _written(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(_written(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(name)}: {_written(item)}' for name, item in value.items())}}}"
    return json.dumps(value)
