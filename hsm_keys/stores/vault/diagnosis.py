"""The checks of ``doctor`` for OpenBao and Vault: the servers, the token, and the keys that it may sign with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import HsmKeysError, StoreError
from hsm_keys.stores.checks import Check
from hsm_keys.stores.vault.error_mapping import VaultCall
from hsm_keys.stores.vault.errors import VaultAccessDeniedError, VaultError
from hsm_keys.stores.vault.key import VaultKey
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hsm_keys.stores.base import StoredKey
    from hsm_keys.stores.vault.connection import VaultConnection

__all__ = ["engine", "servers", "signing", "token"]

_SHORT_S: Final = 3600


def servers(connection: VaultConnection) -> list[Check]:
    """Look at every server by itself: one that is sealed shows only when the others fail."""
    checks = []
    for address, answer in connection.health():
        if isinstance(answer, HsmKeysError):
            checks.append(Check("server", "warning", answer.message, answer.hint))
            continue
        version = shown(str(answer.body.get("version")))
        if answer.body.get("sealed") is not False:
            checks.append(Check("server", "warning", f"{address} (version {version}) is sealed", "have it unsealed"))
        elif trouble := _out_of_order(answer.body):
            checks.append(Check("server", "warning", f"{address} (version {version}) {trouble[0]}", trouble[1]))
        elif answer.body.get("standby"):
            checks.append(Check("server", "ok", f"{address} (version {version}) is a standby"))
        else:
            checks.append(Check("server", "ok", f"{address} (version {version}) is unsealed and active"))
    return checks


def _out_of_order(health: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return why an unsealed server serves no requests, and what to do; the fields are HashiCorp Vault's."""
    if health.get("removed_from_cluster"):
        return "was removed from its cluster", "take it out of address="
    if health.get("replication_dr_mode") == "secondary":
        return "is a secondary for disaster recovery, and serves no requests", "name the primary in address="
    if health.get("standby") and health.get("ha_connection_healthy") is False:
        return "is a standby that can't reach the active server", "have its operators look at the cluster"
    return None


def engine(connection: VaultConnection, mount: str) -> list[Check]:
    """Look whether the engine that is to sign is there, as far as the token may ask."""
    try:
        connection.ask(VaultCall("list its keys", "LIST", f"{mount}/keys/"))
    except VaultAccessDeniedError:  # no workflow needs to list them
        return []
    except VaultError as error:
        return [Check("engine", "problem", error.message, error.hint, error.exit_code)]
    return [Check("engine", "ok", f"{mount}/ is there")]


def token(connection: VaultConnection) -> Check:
    """Look at how long the token lives, and whether it is one that may do anything."""
    facts = connection.token()
    left_s = facts.get("ttl")
    if "root" in (facts.get("policies") or []):
        remedy = "use one with a policy of its own: hsm-keys vault policy --for sign"
        return Check("vault token", "warning", "it is a root token, which may take every key out", remedy)
    if not isinstance(left_s, int) or left_s <= 0:
        return Check("vault token", "ok", "it doesn't expire")
    if facts.get("renewable") is True:
        return Check("vault token", "ok", f"it expires in {left_s} s; programs that sign renew it")
    remedy = "have an agent write a new one into its file (BAO_TOKEN_PATH), or log in again in time"
    return Check(
        "vault token",
        "warning" if left_s < _SHORT_S else "ok",
        f"it expires in {left_s} s, and can't be renewed",
        remedy,
    )


def signing(connection: VaultConnection, mount: str, keys: Iterable[StoredKey]) -> list[Check]:
    """Ask whether the token may sign with each key, without a signature."""
    paths = {f"{mount}/sign/{key.transit_key}": key.name for key in keys if isinstance(key, VaultKey)}
    if not paths:
        return []
    may = connection.capabilities(list(paths))
    if may is None:
        return [Check("permission to sign", "warning", "the server doesn't say what this token may do")]
    checks = []
    for path, name in paths.items():
        if {"update", "root"} & set(may[path]):
            checks.append(Check(f"permission to sign with {name}", "ok", "this token may sign"))
        else:
            remedy = f"hsm-keys vault policy --for sign --name {name.partition('+')[0]}"
            checks.append(
                Check(f"permission to sign with {name}", "problem", f"it may not: {path}", remedy, StoreError.exit_code)
            )
    return checks
