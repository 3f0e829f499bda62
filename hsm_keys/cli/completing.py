"""What a shell proposes for names of keys and profiles, scopes and codes.

It asks for no PIN, sends nothing, and never waits long.

Only tokens that show public objects without a login have names to propose. KMS and Vault would need the network, and
no try of a PIN is risked for completion.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import click

__all__ = ["complete_codes", "complete_key_names", "complete_profiles", "complete_scopes"]

_PATIENCE_S: Final = 3.0
"""A module may hang. The shell waits for the answer, so there is none then."""


def complete_scopes(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the scopes that begin so."""
    from hsm_keys.kalshi.api_keys import SCOPES

    return [scope for scope in SCOPES if scope.startswith(incomplete)]


def complete_codes(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the codes of errors that begin so."""
    from hsm_keys.cli.explanations import KALSHI, OURS, PROXY

    return sorted(code for code in {**KALSHI, **PROXY, **OURS} if code.startswith(incomplete))


def complete_profiles(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the user's profiles that begin so; none where the file can't be read."""
    from hsm_keys.errors import UsageError
    from hsm_keys.profiles.file import config_path, read_profiles

    try:
        profiles = read_profiles(config_path())
    except UsageError:
        return []
    return [name for name in profiles.profiles if name.startswith(incomplete)] if profiles else []


def complete_key_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the token's keys that begin so; none where it shows none without a PIN, or doesn't answer."""
    _end_soon()
    try:
        names = _names(ctx)
    except Exception:  # noqa: BLE001 - an error would be printed into the line that is being typed
        return []
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


def _end_soon() -> None:
    """Have the process end in a few seconds, also while a module's call doesn't return: the timer isn't Python's."""
    import faulthandler

    nowhere = open(os.devnull, "w")  # noqa: PTH123, SIM115 - it stays open until the process ends
    os.dup2(nowhere.fileno(), 2)  # a module may write what it likes there
    faulthandler.dump_traceback_later(_PATIENCE_S, exit=True, file=nowhere)


def _names(ctx: click.Context) -> list[str]:
    from hsm_keys.cli.settings import Settings
    from hsm_keys.cli.store_uri import store_uri
    from hsm_keys.stores import backend_of

    uri = store_uri(ctx.find_object(Settings) or Settings(), lambda _line: None)
    return backend_of(uri).public_names(uri)
