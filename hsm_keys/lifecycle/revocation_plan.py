"""What a revocation would end: which API key is meant, where its private half is, and whether it may be ended.

Nothing is changed here, except that leftovers of a key whose making was interrupted are removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsm_keys.errors import EndNotProvedError, KeyNotFoundError, KeyProblemError, UsageError
from hsm_keys.inspecting.proof_of_possession import can_sign, is_arriving, says_unknown
from hsm_keys.kalshi.account import unclaimed
from hsm_keys.kalshi.bootstrap_variables import bootstrap_variables
from hsm_keys.kalshi.errors import UnauthorizedError
from hsm_keys.lifecycle.late_registration import check_no_other_registration, find_late_registration
from hsm_keys.lifecycle.rights import check_manages, manages_keys, may_manage
from hsm_keys.lifecycle.targets import Target, check_not_foreign, find_target, keys_named
from hsm_keys.signing.environments import check_environment
from hsm_keys.stores.key_names import ENDING, IMPORTING
from hsm_keys.stores.ownership import ours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.kalshi.account import Account
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["Revocation", "RevocationPlanner"]


@dataclass(frozen=True, slots=True)
class Revocation:
    """The API key and the pair that are about to end.

    Args:
        target: Which API key, and where its private half is.
        destroy: Whether the private half ends too.
        managers: The other API keys that can manage keys.
        listed: What Kalshi listed: if the private half ends, none of it but the target is its API key.
    """

    target: Target
    destroy: bool
    managers: tuple[ApiKey, ...]
    listed: tuple[ApiKey, ...] = ()


class RevocationPlanner:
    """Plans what a ``Revoker`` carries out.

    Args:
        store: Where the private halves may be.
        account: Where the API keys are; what signs for it may be the very key that is to end.
        report: Called with a line for people if something is cleared away.
    """

    def __init__(self, store: KeyStore, account: Account, report: Callable[[str], None]) -> None:
        self._store = store
        self._account = account
        self._report = report

    def plan(self, word: str, *, destroy: bool, force: bool, never_registered: bool = False) -> Revocation:
        """Find out what is meant, and whether it may end; nothing is changed but what a crash left of it.

        Args:
            word: A name in the store, an API key id, or a name at Kalshi.
            destroy: Whether the private half is to end too.
            force: Whether the last key that can manage keys may end.
            never_registered: Whether a person says that a pair, of which its store doesn't say where it was to be
                registered, never was.

        Raises:
            KeyAmbiguousError: If it could mean several.
            KeyNotFoundError: If it means none.
            ForeignKeyError: If it is a key of the store that isn't ours.
            WrongEnvironmentError: If it is a key of the store that belongs to another environment.
            KeyProblemError: If it is the last key that can manage keys, there is nothing to end, the key that signs
                can't manage keys, or a pair that is to be destroyed may be registered in another environment.
            EndNotProvedError: If it is the key that signs, and Kalshi doesn't know it.
            UsageError: If there is nothing to destroy.
        """
        check_not_foreign(word, self._store.keys(), self._store.describe())
        keys = ours(self._store)
        try:
            target, listed = self._target(word, keys)
        except KeyNotFoundError:
            if destroy and self._store.clear(word):
                self._report(f"removed a key that was made for {word!r} and hadn't got the name yet")
            raise
        self._check_something_to_do(target, destroy=destroy)
        if destroy and target.key is not None and target.api_key_id is None and not never_registered:
            _check_not_elsewhere(target.key, self._account.environment)
        managers = [entry for entry in listed if entry.api_key_id != target.api_key_id and manages_keys(entry)]
        if not managers and not force and target.listing is not None and may_manage(target.listing):
            raise KeyProblemError(
                f"API key {target.api_key_id} is the last one that can manage API keys (scope write, bound to no "
                "subaccount); nothing was done",
                hint="enroll another key first; or give --force: from then on only Kalshi's account page can make one",
            )
        if destroy and target.key is not None:
            others = unclaimed(listed, (key.api_key_id for key in keys))
            check_no_other_registration(self._account.connect, target.key, others, target.api_key_id)
        return Revocation(target, destroy, tuple(managers), tuple(listed))

    def _target(self, word: str, keys: Sequence[StoredKey]) -> tuple[Target, Sequence[ApiKey]]:
        # Checked first: Kalshi's answers here say nothing about such a key, nor about one that a `generate` is making.
        for key in (*keys_named(word, keys), *keys_named(word + IMPORTING, keys)):
            check_environment(key.name, key.environment, self._account.environment)
        try:
            listed = self._account.list_now()
        except UnauthorizedError as error:
            target = find_target(word, keys, [])
            if target.api_key_id != self._account.manager_id:
                raise
            if says_unknown(error) and target.key is not None and target.key.name.endswith(ENDING):
                return target, []  # an earlier run has ended the very key that signs
            variable = bootstrap_variables(self._account.environment).id
            raise EndNotProvedError(
                f"{error.message}. The key that signs this is the one that is to end, and that proves nothing of it; "
                "nothing was done",
                hint=f"{error.hint}; let another key sign the call: {variable}, or --auth NAME (Kalshi's account page "
                "makes one)",
            ) from None
        target = find_target(word, keys, listed)
        check_manages(self._account.manager_id, listed)
        if target.key is not None and target.api_key_id is None:
            target = self._registered(target.key, keys)
        return target, listed

    def _registered(self, key: StoredKey, keys: Sequence[StoredKey]) -> Target:
        """Return a minted key with the API key that an interrupted enroll may have registered for it."""
        claimed = {kept.api_key_id for kept in keys}
        listing = find_late_registration(self._account, key, claimed) if can_sign(key) else None
        if listing is None:
            return Target(None, key, None)
        return Target(listing.api_key_id, key, listing, "an interrupted enroll registered it, and didn't bind the id")

    def _check_something_to_do(self, target: Target, *, destroy: bool) -> None:
        if target.key is not None and is_arriving(target.key):
            raise KeyProblemError(
                f"a `generate` of {target.name!r} was interrupted, and Kalshi may have made an API key for it; nothing "
                "was done",
                hint=f"run it again, then revoke what it has made: hsm-keys generate {target.name}",
            )
        if target.api_key_id is None and not destroy and target.key is not None and target.key.registering:
            raise KeyProblemError(
                f"a registration of {target.name!r} was begun, and Kalshi lists no API key of it: there is nothing to "
                "revoke, or not yet",
                hint="run it again in a minute; or give --destroy, which waits that long, to destroy the pair in the "
                "store",
            )
        if target.api_key_id is None and not destroy:
            raise KeyProblemError(
                f"the key {target.name!r} was never registered at Kalshi: there is nothing to revoke",
                hint="give --destroy to destroy the pair in the store",
            )
        if destroy and target.key is None and target.listing is not None:
            self._check_not_unusable(target)
            raise UsageError(
                f"the private half of API key {target.api_key_id} is not in {self._store.describe()}: there is "
                "nothing to destroy, and nothing was done",
                hint="leave --destroy out, or name the store that holds it",
            )

    def _check_not_unusable(self, target: Target) -> None:
        for unusable in self._store.contents().unusable:
            if unusable.mark.api_key_id == target.api_key_id:
                raise KeyProblemError(
                    f"the private half of API key {target.api_key_id} is in {self._store.describe()}, and can't be "
                    f"used: {unusable.problem}; nothing was done",
                    hint="leave --destroy out to end the API key; its private half goes with the vendor's tool",
                )


def _check_not_elsewhere(key: StoredKey, environment: str) -> None:
    """Make sure that a pair without an API key here has none elsewhere: its store says where it was to be registered.

    Where it doesn't, its public half may have been printed and registered by hand, or the store can't keep an API key
    id. What a workflow has given its name was never printed for that.

    Raises:
        KeyProblemError: If nobody knows where it may be registered.
    """
    if key.environment is not None or "+" in key.name:
        return
    raise KeyProblemError(
        f"Kalshi doesn't know {key.name!r} in the environment {environment}, and its store doesn't say in which one it "
        "was to be registered: it may be registered in another one, by hand. Nothing was done",
        hint=f"if it is: hsm-keys adopt {key.name} --api-key-id ID, with --env or --base-url; if nobody ever "
        "registered it, give --never-registered with --destroy",
    )
