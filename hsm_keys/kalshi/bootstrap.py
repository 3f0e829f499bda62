"""The bootstrap key from the environment, by the names that users of kalshi-sdk have there already."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.signing.pem import PemKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["bootstrap_key_from_env"]

_log = logging.getLogger("hsm_keys")

_MAX_PEM: Final = 64 * 1024  # bytes


def bootstrap_key_from_env(
    env: Mapping[str, str] = os.environ, *, ask_passphrase: Callable[[str], str] | None = None
) -> PemKey | None:
    """Return the key that ``KALSHI_KEY_ID`` and ``KALSHI_PRIVATE_KEY`` or ``KALSHI_PRIVATE_KEY_PATH`` name.

    Args:
        env: The environment. An empty variable counts as left out; white space around a value is dropped.
        ask_passphrase: Asks a person, with a prompt, where the PEM is encrypted and
            ``KALSHI_PRIVATE_KEY_PASSPHRASE`` isn't set.

    Returns:
        The key; None if none of the variables is set.

    Raises:
        UsageError: If only a part is set, or the key can't be read.
    """
    key_id, pem, path = (
        env.get(name, "").strip() for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY", "KALSHI_PRIVATE_KEY_PATH")
    )
    if not (key_id or pem or path):
        return None
    if not key_id:
        raise UsageError("a private key is set, and KALSHI_KEY_ID isn't", hint="set it to that key's API key id")
    if bool(pem) == bool(path):
        raise UsageError(
            "KALSHI_PRIVATE_KEY and KALSHI_PRIVATE_KEY_PATH are both set"
            if pem
            else "KALSHI_KEY_ID is set, and neither KALSHI_PRIVATE_KEY_PATH nor KALSHI_PRIVATE_KEY is",
            hint="set one of the two",
        )
    content = _read(path) if path else pem.replace("\\n", "\n")
    return PemKey(key_id, content, _passphrase(env, ask_passphrase))


def _passphrase(env: Mapping[str, str], ask: Callable[[str], str] | None) -> Callable[[], str] | None:
    given = env.get("KALSHI_PRIVATE_KEY_PASSPHRASE")
    if given:
        return lambda: given
    return None if ask is None else lambda: ask("Passphrase of the bootstrap private key")


def _read(path: str) -> bytes:
    try:
        with Path(path).expanduser().open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_PEM + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: expanduser() knows no such user
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"the private key file {path} can't be read: {why}", hint="see KALSHI_PRIVATE_KEY_PATH"
        ) from None
    if len(content) > _MAX_PEM:
        raise UsageError(f"{path} is too long to be a private key", hint="see KALSHI_PRIVATE_KEY_PATH")
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("the private key file %s can be read by others: chmod 600 it", path)
    return content
