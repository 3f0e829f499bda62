"""The bootstrap key from environment variables, which have the names that kalshi-sdk uses."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.files import warn_if_others_read
from hsm_keys.kalshi.bootstrap_variables import VARIABLES
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.signing.pem import PemKey
from hsm_keys.values import Secret, describe, hides_its_arguments, shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hsm_keys.kalshi.bootstrap_variables import BootstrapVariables

__all__ = ["bootstrap_key_from_env", "bootstrap_places"]


_MAX_PEM: Final = 64 * 1024  # bytes
_LIKE_A_PATH: Final = re.compile(r"(?:~|\.{1,2})?/.*|[^\s/]+\.(?:pem|key|txt)")


def bootstrap_key_from_env(
    env: Mapping[str, str] = os.environ,
    *,
    exchange: str | None = None,
    ask_passphrase: Callable[[str], str] | None = None,
) -> PemKey | None:
    """Return the key that ``KALSHI_KEY_ID`` and ``KALSHI_PRIVATE_KEY`` or ``KALSHI_PRIVATE_KEY_PATH`` name.

    For the exchange ``perps`` those are ``KALSHI_PERPS_KEY_ID`` and so on: its keys are its own.

    Args:
        env: The environment. An empty variable counts as left out; white space around a value is dropped.
        exchange: ``perps``, or None for the other one.
        ask_passphrase: Asks a person, with a prompt, where the PEM is encrypted and
            ``KALSHI_PRIVATE_KEY_PASSPHRASE`` isn't set.

    Returns:
        The key; None if none of the variables is set.

    Raises:
        UsageError: If only a part is set, or the key can't be read.
    """
    names = VARIABLES[exchange]
    key_id, pem, path = (Secret(env.get(name, "").strip()) for name in (names.id, names.pem, names.path))
    passphrase = _passphrase(Secret(env.get(names.passphrase, "")), ask_passphrase)
    del env  # an error's report has this frame's variables
    if not (key_id or pem or path):
        return None
    if not key_id:
        raise UsageError(f"a private key is set, and {names.id} isn't", hint="set it to that key's API key id")
    if bool(pem) == bool(path):
        raise UsageError(
            f"{names.pem} and {names.path} are both set"
            if pem
            else f"{names.id} is set, and neither {names.path} nor {names.pem} is",
            hint="set one of the two",
        )
    content = _read(path, names) if path else _unfolded(pem, names)
    return _key(key_id, content, passphrase, names, names.path if path else names.pem)


def bootstrap_places(env: Mapping[str, str] = os.environ, *, exchange: str | None = None) -> list[str]:
    """Return where the bootstrap key's PEM stands, for people: its file, or the variable that holds it."""
    names = VARIABLES[exchange]
    path = env.get(names.path, "").strip()
    if path:
        return [f"{shown_path(path)}, which {names.path} names"]
    return [f"the variable {names.pem}, and the file that sets it"] if env.get(names.pem, "").strip() else []


@hides_its_arguments
def _key(
    key_id: Secret, pem: Secret, passphrase: Callable[[], str] | None, names: BootstrapVariables, source: str
) -> PemKey:
    checked_id = check_api_key_id(key_id.reveal(), names.id)
    try:
        return PemKey(checked_id, pem, passphrase)
    except UsageError as error:
        error.amend(message=f"{source} is wrong: {error.message}")
        raise


@hides_its_arguments
def _unfolded(pem: Secret, names: BootstrapVariables) -> Secret:
    """Return the PEM in a variable, where line ends are often written out.

    Raises:
        UsageError: If it is a path to one.
    """
    text = pem.reveal()
    if "\n" not in text and _LIKE_A_PATH.fullmatch(text):
        raise UsageError(f"{names.pem} is wrong: it holds a path", hint=f"use {names.path} for the path of a PEM")
    return Secret(text.replace("\\n", "\n"))


def _passphrase(passphrase: Secret, ask: Callable[[str], str] | None) -> Callable[[], str] | None:
    if passphrase:
        return passphrase.reveal
    return None if ask is None else lambda: ask("Passphrase of the bootstrap private key")


@hides_its_arguments
def _read(place: Secret, names: BootstrapVariables) -> Secret:
    path = place.reveal()
    if "-----BEGIN" in path:
        raise UsageError(
            f"{names.path} is wrong: it holds {describe(path)}, not a path to one", hint=f"use {names.pem} for it"
        )
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(_MAX_PEM + 1)
            warn_if_others_read("private key", path, file.fileno())
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no such user; ValueError: a NUL in it
        why = error.strerror if isinstance(error, OSError) else "it is no path"
        raise UsageError(
            f"the private key file {shown_path(path)} can't be read: {why}", hint=f"see {names.path}"
        ) from None
    if len(content) > _MAX_PEM:
        raise UsageError(f"{shown_path(path)} is too long to be a private key", hint=f"see {names.path}")
    return Secret(content.decode(errors="surrogateescape"))
