"""The bootstrap key from the environment, by the names that users of kalshi-sdk have there already."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.signing.pem import PemKey
from hsm_keys.values import Secret, describe, hides_its_arguments, shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["bootstrap_key_from_env"]

_log = logging.getLogger("hsm_keys")

_ID: Final = "KALSHI_KEY_ID"
_PEM: Final = "KALSHI_PRIVATE_KEY"
_PATH: Final = "KALSHI_PRIVATE_KEY_PATH"
_MAX_PEM: Final = 64 * 1024  # bytes
_LIKE_A_PATH: Final = re.compile(r"(?:~|\.{1,2})?/.*|[^\s/]+\.(?:pem|key|txt)")


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
    key_id, pem, path = (Secret(env.get(name, "").strip()) for name in (_ID, _PEM, _PATH))
    passphrase = _passphrase(env, ask_passphrase)
    del env  # it goes home with an error, and with it all that it holds
    if not (key_id or pem or path):
        return None
    if not key_id:
        raise UsageError(f"a private key is set, and {_ID} isn't", hint="set it to that key's API key id")
    if bool(pem) == bool(path):
        raise UsageError(
            f"{_PEM} and {_PATH} are both set" if pem else f"{_ID} is set, and neither {_PATH} nor {_PEM} is",
            hint="set one of the two",
        )
    return _key(key_id, _read(path) if path else _unfolded(pem), passphrase, _PATH if path else _PEM)


@hides_its_arguments
def _key(key_id: Secret, pem: Secret, passphrase: Callable[[], str] | None, source: str) -> PemKey:
    checked_id = check_api_key_id(key_id.reveal(), _ID)
    try:
        return PemKey(checked_id, pem, passphrase)
    except UsageError as error:
        error.message = f"{source} is wrong: {error.message}"
        raise


@hides_its_arguments
def _unfolded(pem: Secret) -> Secret:
    """Return the PEM in a variable, where line ends are often written out.

    Raises:
        UsageError: If it is a path to one.
    """
    text = pem.reveal()
    if "\n" not in text and _LIKE_A_PATH.fullmatch(text):
        raise UsageError(f"{_PEM} is wrong: it holds a path", hint=f"use {_PATH} for the path of a PEM")
    return Secret(text.replace("\\n", "\n"))


def _passphrase(env: Mapping[str, str], ask: Callable[[str], str] | None) -> Callable[[], str] | None:
    given = env.get("KALSHI_PRIVATE_KEY_PASSPHRASE")
    if given:
        return Secret(given).reveal
    return None if ask is None else lambda: ask("Passphrase of the bootstrap private key")


@hides_its_arguments
def _read(place: Secret) -> Secret:
    path = place.reveal()
    if "-----BEGIN" in path:
        raise UsageError(f"{_PATH} is wrong: it holds {describe(path)}, not a path to one", hint=f"use {_PEM} for it")
    try:
        with Path(path).expanduser().open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_PEM + 1)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no such user; ValueError: a NUL in it
        why = error.strerror if isinstance(error, OSError) else "it is no path"
        raise UsageError(f"the private key file {shown_path(path)} can't be read: {why}", hint=f"see {_PATH}") from None
    if len(content) > _MAX_PEM:
        raise UsageError(f"{shown_path(path)} is too long to be a private key", hint=f"see {_PATH}")
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("the private key file %s can be read by others: chmod 600 it", path)
    return Secret(content.decode(errors="surrogateescape"))
