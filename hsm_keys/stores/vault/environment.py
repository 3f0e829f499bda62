"""Environment variables that name the server, as OpenBao's own tools read them: ``BAO_x`` first, then ``VAULT_x``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.stores.vault.errors import VaultTokenError
from hsm_keys.stores.vault.uri import VaultUri, checked_addresses, checked_namespace
from hsm_keys.values import Secret, shown_path

if TYPE_CHECKING:
    import ssl

__all__ = ["read_token", "trusted_authorities", "with_environment"]

_DEFAULT_ADDRESS: Final = "https://127.0.0.1:8200"
_TOKEN_FILE: Final = ".vault-token"  # noqa: S105 - where `bao login` and `vault login` leave a token
_TOKEN = re.compile(r"[!-~]{1,8192}")


def _variable(name: str) -> tuple[str, str]:
    """Return the first of ``BAO_name`` and ``VAULT_name`` that is set and not empty, and its value."""
    for variable in (f"BAO_{name}", f"VAULT_{name}"):
        if value := os.environ.get(variable):
            return variable, value
    return "", ""


def with_environment(uri: VaultUri) -> VaultUri:
    """Return the URI with what it leaves to the environment.

    Raises:
        UsageError: If a variable holds something that can't be used.
    """
    from dataclasses import replace

    if not uri.addresses:
        variable, value = _variable("ADDR")
        uri = replace(uri, addresses=checked_addresses(value, variable) if value else (_DEFAULT_ADDRESS,))
    if not uri.namespace:
        variable, value = _variable("NAMESPACE")
        uri = replace(uri, namespace=checked_namespace(value, variable) if value else "")
    return uri


def read_token() -> Secret:
    """Return the token: ``BAO_TOKEN`` or ``VAULT_TOKEN``, else the file of ``BAO_TOKEN_PATH``, else ``~/.vault-token``.

    Raises:
        VaultTokenError: If there is none, or what there is can't be one.
    """
    variable, value = _variable("TOKEN")
    token, where = Secret(value), variable
    if not token:
        _, named = _variable("TOKEN_PATH")
        path = Path(named) if named else Path.home() / _TOKEN_FILE
        where = shown_path(path)
        try:
            token = Secret(path.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError, ValueError):
            token = Secret("")
    del value
    if not token:
        raise VaultTokenError(
            f"there is no token for Vault: BAO_TOKEN and VAULT_TOKEN aren't set, and {where} holds none",
            hint="log in (bao login, vault login), or set BAO_TOKEN",
        )
    if not _TOKEN.fullmatch(token.reveal()):
        raise VaultTokenError(
            f"the token in {where} can't be one: there is white space or the like in it",
            hint="give the token alone; nothing was sent",
        )
    return token


def trusted_authorities() -> ssl.SSLContext | bool:
    """Return whom to trust: the authorities of ``BAO_CACERT`` or ``VAULT_CACERT`` alone, else the usual ones.

    Certificates are always verified: there is no variable that turns it off.

    Raises:
        UsageError: If the file can't be read.
    """
    variable, path = _variable("CACERT")
    if not path:
        return True
    import ssl

    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else "there is no such file"
        raise UsageError(
            f"{variable} names {shown_path(path)}, which can't be read: {why}",
            hint=f"the server is trusted by the authorities in it: mend {variable}, or leave it out",
        ) from None
