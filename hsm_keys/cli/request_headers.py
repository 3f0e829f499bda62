"""Header lines of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.signing.headers import HOP_BY_HOP
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_headers"]

# Headers of the connection, and those that follow from the framing of the body (RFC 9112, section 6).
_CONNECTIONS: Final = HOP_BY_HOP | {"content-length", "expect"}


def read_headers(lines: Sequence[str], *, has_body: bool) -> dict[str, str]:
    """Return the headers to send; with a body, ``Content-Type: application/json`` unless a line says otherwise.

    Whether a name and a value can be sent at all, and are not for us to set, is for the client to say.

    Args:
        lines: ``Name: value`` each.
        has_body: Whether a JSON body goes with them.

    Raises:
        UsageError: If a line is none, a name comes twice, or a header belongs to the connection.
    """
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not (name and colon):
            # The line isn't repeated: it may be a secret on its own.
            raise UsageError("--header takes 'Name: value'", hint="for example --header 'Accept: application/json'")
        if name.lower() in _CONNECTIONS:
            raise UsageError(
                f"the header {name} can't be set", hint="leave it out: it follows from the body and the connection"
            )
        if name.lower() in (given.lower() for given in headers):
            raise UsageError(f"the header {shown(name)} is given twice", hint="join the values with a comma")
        headers[name] = value.strip(" \t")
    if has_body and "content-type" not in (given.lower() for given in headers):
        headers["Content-Type"] = "application/json"
    return headers
