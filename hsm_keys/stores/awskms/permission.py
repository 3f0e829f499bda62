"""Asking KMS whether it would let this caller sign, without a signature."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hsm_keys.errors import UsageError
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask
from hsm_keys.stores.awskms.store import AwsKmsKey, AwsKmsStore
from hsm_keys.stores.awskms.uri import region_of
from hsm_keys.stores.checks import Check, checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["may_sign", "permissions"]


def permissions(store: AwsKmsStore, keys: Iterable[StoredKey]) -> list[Check]:
    """Ask for each key whether KMS would let this caller sign with it."""
    checks: list[Check] = []
    for key in keys:
        name = f"permission to sign with {key.name}"
        checks += checked(name, partial(_permission, name, store, key))
    return checks


def _permission(name: str, store: AwsKmsStore, key: StoredKey) -> Check:
    how = "KMS would sign (dry run)" if may_sign(store, key) else "KMS signed: this server knows no dry runs"
    return Check(name, "ok", how)


def may_sign(store: KeyStore, key: StoredKey) -> bool:
    """Ask with a dry run of Sign (KMS developer guide, "Testing your permissions").

    Returns:
        Whether it was a dry run; False where the server signed, since it knows none.

    Raises:
        AwsError: If KMS would refuse.
    """
    if not isinstance(store, AwsKmsStore) or not isinstance(key, AwsKmsKey):
        raise UsageError(f"the key {key.name!r} is not in AWS KMS")
    region = str(region_of(key.arn))
    dry: bool = ask(
        KmsCall("Sign", key.name, region, key.spec),
        _dry_run,
        client=store.caller().manage(region),
        KeyId=key.arn,
        Message=b"hsm-keys dry run",
        MessageType="RAW",
        SigningAlgorithm=key.algorithm,
    )
    return dry


def _dry_run(client: Any, **parameters: Any) -> bool:
    try:
        client.sign(**parameters, DryRun=True)
    except client.exceptions.DryRunOperationException:
        return True
    return False
