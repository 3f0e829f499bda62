"""The lines of code and the variables that a program needs to sign with a key in its store instead of a PEM."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from hsm_keys.inspecting.proof_of_possession import balance_path
from hsm_keys.signing.environments import ENVIRONMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["environment_fields", "python_lines", "request_line"]

_IN_A_QUERY: Final = "/:.-_~"


def environment_fields(base_url: str, exchange: str | None, ws_url: str | None) -> dict[str, str]:
    """Return the fields of a profile that lead to an environment of Kalshi."""
    plain = next((name for name, hosts in ENVIRONMENTS.items() if hosts.base_url == base_url), None)
    fields = {"env": plain} if plain else {"base-url": base_url}
    if exchange:
        fields["exchange"] = exchange
    if ws_url and not plain:
        fields["ws-url"] = ws_url
    return fields


def python_lines(name: str, fields: Mapping[str, str]) -> list[str]:
    """Return the three lines for a program in Python.

    Args:
        name: The key's name.
        fields: The profile's.
    """
    uri = fields["store"]
    if "pin-file" in fields:
        uri += ("&" if "?" in uri else "?") + "pin-source=file:" + quote(fields["pin-file"], safe=_IN_A_QUERY)
    signer = f"api_key_id={fields['api-key-id']!r}" if "api-key-id" in fields else ""
    way = f"environment={fields['env']!r}" if "env" in fields else f"base_url={fields['base-url']!r}"
    exchange = f", exchange={fields['exchange']!r}" if "exchange" in fields else ""
    return [
        "from hsm_keys import KalshiClient, open_store",
        f"key = open_store({uri!r}).key({name!r})",
        f"client = KalshiClient(key.signer({signer}), {way}{exchange})",
    ]


def request_line(name: str, profile: str, exchange: str | None) -> str:
    """Return a command that sends a signed request by the profile."""
    return f"hsm-keys request GET {balance_path(exchange)} {shlex.quote(name)} --profile {shlex.quote(profile)}"
