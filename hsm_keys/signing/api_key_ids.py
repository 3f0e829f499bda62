"""Checks API key ids before anything is sent."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from hsm_keys.errors import UsageError
from hsm_keys.values import describe, looks_secret

__all__ = ["check_api_key_id"]

_MAX_LENGTH: Final = 128
# Kalshi's are UUIDs. Other texts that could be ids of a test server are accepted, but no quotes around an id.
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_ROUND: Final = "\"'`\u201c\u201d\u2018\u2019<>()[]{},; \t\r\n"
_EXAMPLE: Final = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"


def check_api_key_id(api_key_id: str, source: str = "") -> str:
    """Return the API key id in the form that Kalshi writes it (a UUID in lower case, or as it is).

    Args:
        api_key_id: What was given.
        source: Where it was given, such as ``KALSHI_KEY_ID``.

    Raises:
        UsageError: If it can't be one: it is empty, too long, a private key, or has quotes, commas or spaces in it.
    """
    if len(api_key_id) <= _MAX_LENGTH and _ID.fullmatch(api_key_id) and not looks_secret(api_key_id):
        return _as_kalshi_writes_it(api_key_id)
    bare = api_key_id.strip(_ROUND)
    if bare != api_key_id and _ID.fullmatch(bare):
        what, hint = "has quotes, a comma or the like around it", f"give the bare id, such as {_EXAMPLE}"
    else:
        what, hint = "is no API key id", f"copy it from Kalshi's account page: it is a UUID such as {_EXAMPLE}"
    raise UsageError(f"{source + ' is wrong: ' if source else ''}{describe(api_key_id)} {what}", hint=hint)


def _as_kalshi_writes_it(api_key_id: str) -> str:
    try:
        return str(UUID(api_key_id))
    except ValueError:
        return api_key_id
