"""Paths as Kalshi will see them, and templates that match them.

The policy and Kalshi must never read one path in two ways. So a path has one spelling here (RFC 3986,
section 6.2.2), and every other spelling is refused instead of corrected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from hsm_keys.errors import UsageError
from hsm_keys.kalshi.operations import words_in_place
from hsm_keys.signing.message import MARGIN_WEBSOCKET_PATH, REST_PREFIX, WEBSOCKET_PATH, canonical_path
from hsm_keys.values import describe

__all__ = ["METHODS", "Rule", "UnclearPathError", "is_of_this_version", "split_target", "whole_path"]

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ROOT: Final = "/trade-api/"
_QUERY: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]|]|%[0-9A-Fa-f]{2})*")
_ESCAPE: Final = re.compile(r"%([0-9A-F]{2})")
# What may stand in a path as it is (RFC 3986, section 3.3), so that its escape is a second spelling; what separates
# segments or ends a path; spaces that may be cut off; and what isn't ASCII, of which some folds to ASCII (U+212A is a
# K). Kalshi's paths are ASCII.
_NEVER_ESCAPED: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/\\%?#\x00-\x20\x7f-\xff]")
_LONGEST: Final = 8000
_TEMPLATE: Final = re.compile(r"/(?:[A-Za-z0-9\-._~:@,]+|\*\*|\*|\{[A-Za-z_]+\})")


class UnclearPathError(ValueError):
    """A request target that two programs may read in two ways; the message says why."""


def split_target(target: str) -> tuple[str, str]:
    """Split the target of a request line into its path and its query, both as they stand.

    Args:
        target: The request target (RFC 9112, section 3.2), which has to be in origin form.

    Returns:
        The path, and what follows the question mark; empty if nothing does.

    Raises:
        UnclearPathError: If the path isn't below ``/trade-api/``, or isn't in its one canonical spelling.
    """
    if len(target) > _LONGEST:
        raise UnclearPathError(f"the path and query are longer than {_LONGEST} characters")
    path, _, query = target.partition("?")
    _check_path(path)
    if not _QUERY.fullmatch(query):
        raise UnclearPathError("the query holds a character that has to be percent-encoded")
    return path, query


def whole_path(path: str) -> str:
    """Return a path, or a template of one, with the prefix that may be left out where people write it."""
    return path if path.startswith(_ROOT) or not path.startswith("/") else REST_PREFIX + path


def is_of_this_version(path: str) -> bool:
    """Tell whether a path is one that rules are about, unless they name another version: REST, or a WebSocket's."""
    return path.startswith(REST_PREFIX + "/") or path in {REST_PREFIX, WEBSOCKET_PATH, MARGIN_WEBSOCKET_PATH}


@lru_cache(maxsize=1024)
def _check_path(path: str) -> None:
    """Refuse a path that isn't in its one spelling. A path is asked for again and again; what is refused isn't kept."""
    if not path.startswith(_ROOT):
        raise UnclearPathError("only paths below /trade-api/ are forwarded")
    try:
        spelled = canonical_path(path)
    except UsageError:
        raise UnclearPathError(
            "the path holds a character that has to be percent-encoded, a broken escape, or a segment of dots"
        ) from None
    if spelled != path:
        raise UnclearPathError("the path ends in a slash, or has an escape in lower case")
    for escape in _ESCAPE.finditer(path):
        if _NEVER_ESCAPED.fullmatch(chr(int(escape[1], 16))):
            raise UnclearPathError(f"the path holds {escape[0]}, which servers may decode: it has another spelling")
    if "//" in path:
        raise UnclearPathError("the path has an empty segment")
    if ";" in path:
        raise UnclearPathError("the path holds a semicolon, which some servers cut a segment at")


@dataclass(frozen=True, slots=True)
class Rule:
    """A method and a path template, as in ``POST /portfolio/events/orders``.

    ``*`` stands for one segment, and ``{name}`` for one that isn't a word of Kalshi's in this place:
    ``/orders/{order_id}`` isn't ``/orders/batched``. ``**`` at the end stands for all that follow and for none, and
    ``*`` in place of the method for every method. Templates that don't begin with ``/trade-api/`` are below
    ``/trade-api/v2``.
    """

    text: str
    method: str
    segments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rule.

        Raises:
            ValueError: If it isn't one.
        """
        method, _, template = text.partition(" ")
        if method not in {*METHODS, "*"}:
            raise ValueError(f"{describe(text)}: a rule begins with {', '.join(METHODS)} or *, and then has a path")
        parts = _TEMPLATE.findall(template)
        if not parts or "".join(parts) != template:
            raise ValueError(f"{describe(text)}: a path looks like /markets/*/orderbook, without escapes or a query")
        if "/**" in parts[:-1] or "/." in parts or "/.." in parts:
            raise ValueError(f"{text!r}: ** stands at the end only, and no segment is a dot")
        whole = whole_path(template)
        return cls(text, method, tuple(whole.split("/")[1:]))

    def __str__(self) -> str:
        return self.text

    @property
    def names_a_version(self) -> bool:
        """Whether it says itself which version, or which WebSocket, it is about."""
        return self.text.partition(" ")[2].startswith(_ROOT)

    def matches(self, method: str, path: str, *, fold: bool = False) -> bool:
        """Tell whether it is a rule for this request.

        Args:
            method: The method, in upper case.
            path: A path that ``split_target`` has let through.
            fold: Take upper and lower case for the same; what denies does, so that a server that folds is no way round.
        """
        if self.method not in {"*", method}:
            return False
        asked = path.split("/")[1:]
        wanted = self.segments
        if wanted[-1] == "**":
            wanted = wanted[:-1]
            if len(asked) < len(wanted):
                return False
            asked = asked[: len(wanted)]
        return len(asked) == len(wanted) and all(self._fits(number, got, fold=fold) for number, got in enumerate(asked))

    def _fits(self, number: int, got: str, *, fold: bool) -> bool:
        want = self.segments[number]
        if want.startswith("{"):
            words = words_in_place(self.segments[:number])
            # A server that ignores case takes BATCHED for the word, another one for an id: a deny rule matches both.
            return got not in words if fold else got.casefold() not in words
        return want in {"*", got} or (fold and want.casefold() == got.casefold())
