"""The query of a store's URI: parameters, each once and of the known names, in UTF-8 with percent-escapes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes

from hsm_keys.values import shown_word

if TYPE_CHECKING:
    from collections.abc import Collection

    from hsm_keys.errors import UsageError

__all__ = ["BadUri", "UriText"]


class BadUri(Protocol):
    """Makes the error of a URI, from what is wrong with it and what to do."""

    def __call__(self, what: str, hint: str = ..., /) -> UsageError:
        """Return it."""


@dataclass(frozen=True)
class UriText:
    """Reads the text in a kind of URI.

    Args:
        safe: The characters that may stand there as they are, beside letters, digits, ``-``, ``.``, ``_`` and ``~``.
        bad: Makes the error.
    """

    safe: str
    bad: BadUri

    def parameters(self, query: str, names: Collection[str]) -> dict[str, str]:
        """Return the parameters of a query by their names.

        Args:
            query: What stands behind the question mark.
            names: The names that there may be.

        Raises:
            UsageError: If a name isn't known or stands twice, or a value isn't text.
        """
        values: dict[str, str] = {}
        for pair in query.split("&") if query else []:
            name, equals, value = pair.partition("=")
            if not equals or name not in names:
                raise self.bad(
                    f"has {shown_word(name, names)}, which isn't a parameter", f"known are {', '.join(names)}"
                )
            if name in values:
                raise self.bad(f"has the parameter {name} twice")
            values[name] = self.decoded(name, value)
        return values

    def decoded(self, what: str, value: str) -> str:
        """Return a value without its percent-escapes.

        Raises:
            UsageError: If it isn't printable text in UTF-8.
        """
        if not self._allowed.fullmatch(value):
            raise self.bad(f"has a bad character or percent-escape in {what}", "encode it as %XX, in UTF-8")
        try:
            text = unquote_to_bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad(f"has text that isn't UTF-8 in {what}") from None
        if not text.isprintable():
            raise self.bad(f"has a control character in {what}")
        return text

    @cached_property
    def _allowed(self) -> re.Pattern[str]:
        return re.compile(rf"(?:[A-Za-z0-9\-._~{re.escape(self.safe)}]|%[0-9A-Fa-f]{{2}})*")
