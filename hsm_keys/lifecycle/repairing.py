"""The repairs of ``reconcile --fix``: bind API key ids, each of which is proved once more right before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.errors import KeyBusyError
from hsm_keys.inspecting.proof_of_possession import prove_registration
from hsm_keys.inspecting.snapshot import pair_of
from hsm_keys.lifecycle.contention import Contention
from hsm_keys.lifecycle.locking import exclusive
from hsm_keys.lifecycle.registering import bind
from hsm_keys.signing.environments import check_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.inspecting.findings import Bind, Finding
    from hsm_keys.kalshi.account import Account
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["fix"]


def fix(
    findings: Sequence[Finding],
    stores: Sequence[KeyStore],
    account: Account,
    report: Callable[[str], None],
) -> list[Finding]:
    """Carry out the repairs. If a run is killed, the next one finds the rest.

    Args:
        findings: What was found; those without a repair are passed over.
        stores: The stores that were looked at.
        account: The account that was looked at.
        report: Called with a line for people after each step.

    Returns:
        The findings that are repaired now.

    Raises:
        KeyBusyError: If somebody else works on a key, or has changed it since it was looked at.
        WrongEnvironmentError: If a key belongs to another environment by now.
        KalshiError: If Kalshi doesn't take a key's signature any more.
    """
    return [finding for finding in findings if finding.repair and _bound(finding.repair, stores, account, report)]


def _bound(repair: Bind, stores: Sequence[KeyStore], account: Account, report: Callable[[str], None]) -> bool:
    store = next(store for store in stores if store.uri == repair.key.store_uri)
    with exclusive(store, repair.key.name):
        key = _as_seen(store, repair)
        check_environment(key.name, key.environment, account.environment)
        prove_registration(account.connect, key, repair.api_key_id)
        if key.ours and key.api_key_id is None:  # else nobody registers it
            contention = Contention(store, account, report)
            contention.outwait_leaving(key)
            contention.take(key, repair.api_key_id)
        report(str(repair))
        return bind(store, key, repair.api_key_id, account.environment, report).api_key_id == repair.api_key_id


def _as_seen(store: KeyStore, repair: Bind) -> StoredKey:
    seen = repair.key
    for key in store.keys():
        known_by = key.name, key.api_key_id, key.ours
        if known_by == (seen.name, seen.api_key_id, seen.ours) and pair_of(key) == seen.pair:
            return key
    raise KeyBusyError(
        f"the key {seen.name!r} was changed by somebody else meanwhile", hint="run `hsm-keys reconcile` again"
    )
