"""``GET /sign?method=...&path=...``: headers for a program that keeps its own connection to Kalshi."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from hsm_keys.proxy.paths import UnclearPathError, split_target

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["header_lines", "read_sign_target"]

_PLACE: Final = "/sign"


@lru_cache(maxsize=1024)
def read_sign_target(target: str) -> tuple[str, str] | None:
    """Return the method and path that a request target asks headers for; None if it is no such target.

    Args:
        target: The request target as it came: ``/sign?method=POST&path=/trade-api/...``, percent-encoded or not.

    Raises:
        UnclearPathError: If the query isn't exactly one method and one path, or the path has no single reading.
    """
    place, _, query = target.partition("?")
    if place != _PLACE:
        return None
    try:
        parameters = parse_qsl(query, strict_parsing=True, keep_blank_values=True, errors="strict", max_num_fields=2)
    except ValueError:
        parameters = []
    values = dict(parameters)
    if len(parameters) != len(values) or values.keys() != {"method", "path"}:
        raise UnclearPathError("headers are asked for by one method and one path: /sign?method=GET&path=/trade-api/...")
    if "?" in values["path"]:
        raise UnclearPathError("Kalshi's signature is for the path alone: leave the query out")
    split_target(values["path"])
    return values["method"], values["path"]


def header_lines(headers: Mapping[str, str]) -> str:
    """Return headers as they stand in a request, a line each with its CRLF, to be copied into one."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
