"""Revoking: an API key ends at Kalshi for certain, and on request its private half ends too.

First the API key, then the pair: killed between the two, the next run finds the API key dead and goes on. A pair is
never destroyed while Kalshi may still take its signature, here or in another environment (``ending`` says what proves
that it doesn't).

A key that no other one can delete deletes itself, and then nobody can read the account's list any more. So while Kalshi
lists it still, it gets the name ``NAME+ending``, by which the next run knows that it lived there and was to end. A pair
that isn't registered gets it too before it is destroyed, and a successor ``NAME+aborting``: by that another machine
knows that it must not register it (``late_registration``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hsm_keys.errors import (
    KeyBusyError,
    KeyProblemError,
    StoreError,
    StoreUnavailableError,
)
from hsm_keys.inspecting.custody import examine_custody
from hsm_keys.inspecting.proof_of_possession import can_sign, is_arriving, is_going
from hsm_keys.kalshi.account import unclaimed
from hsm_keys.kalshi.bootstrap_variables import bootstrap_variables
from hsm_keys.kalshi.errors import RefusedError
from hsm_keys.lifecycle.ending import end_api_key, outwait
from hsm_keys.lifecycle.late_registration import (
    check_no_other_registration,
    check_none_since,
    find_last_registration,
)
from hsm_keys.lifecycle.locking import exclusive
from hsm_keys.lifecycle.made_by_kalshi import namesakes
from hsm_keys.lifecycle.targets import keys_named
from hsm_keys.signing.environments import check_environment
from hsm_keys.stores.abilities import ImportsKeys, RenamesKeys
from hsm_keys.stores.key_names import ABORTING, ENDING, IMPORTING, SUCCESSOR, rotation_names
from hsm_keys.stores.ownership import check_ours, ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.kalshi.account import Account
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.lifecycle.revocation_plan import Revocation
    from hsm_keys.lifecycle.targets import Target
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["Revoked", "Revoker", "discard", "finish_offline"]


@dataclass(frozen=True, slots=True)
class Revoked:
    """What has ended.

    Args:
        name: The store's name for it, else Kalshi's.
        api_key_id: The API key's id; None if there was none.
        revoked: Whether the API key is dead at Kalshi now, which was proved; False only where there was none.
        private_half: ``kept``, ``destroyed``, ``deletion scheduled``, or ``elsewhere``: not in this store.
    """

    name: str
    api_key_id: str | None
    revoked: bool
    private_half: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes into JSON output."""
        return {field: getattr(self, field) for field in self.__slots__}


def finish_offline(store: KeyStore, word: str, environment: str, report: Callable[[str], None]) -> Revoked | None:
    """End what a killed run left of a key, where there is nothing to ask of Kalshi, and perhaps no key to ask it with.

    That is a key that deleted itself, once its deletion is scheduled in its store: the last step but one, taken after
    the proof. Or it lost its public half while it was made, so that nobody can sign with it.

    Args:
        store: Where the private half is.
        word: The key's name or its API key id.
        environment: The environment at hand.
        report: Called with a line for people.

    Returns:
        What has ended; None if there is no such key.

    Raises:
        WrongEnvironmentError: If it belongs to another environment; nothing was done.
    """
    named = keys_named(word, ours(store))
    for key in named:
        if key.name.endswith(ENDING) and is_going(key):
            check_environment(key.name, key.environment, environment)
            with exclusive(store, key.name.removesuffix(ENDING)):
                store.destroy(key)
            ended = f"ended API key {key.api_key_id} and " if key.api_key_id else ""
            report(f"an earlier run {ended}scheduled the deletion of its private half")
            return Revoked(key.name, key.api_key_id, key.api_key_id is not None, "deletion scheduled")
    if not named and any(each.left_over and each.name == word for each in store.contents().unusable):
        with exclusive(store, word.partition("+")[0]):
            if store.clear(word):
                report(f"destroyed what was left of the key {word!r}, which was never whole")
                return Revoked(word, None, revoked=False, private_half="destroyed")
    return None


class Revoker:
    """Ends API keys whose private halves may be in one store.

    Args:
        store: Where the private halves may be.
        account: Where the API keys are; what signs for it may be the very key that is to end.
        report: Called with a line for people after each step.
    """

    def __init__(self, store: KeyStore, account: Account, report: Callable[[str], None]) -> None:
        self._store = store
        self._account = account
        self._report = report

    def carry_out(self, plan: Revocation) -> Revoked:
        """End it. Killed anywhere, planning and carrying out again goes on.

        Raises:
            KeyBusyError: If another run works on the key, or has changed it since it was looked up.
            KalshiError: If Kalshi refuses, or still takes the key afterwards; then nothing is destroyed.
            OutcomeUnknownError: If it isn't known whether the API key was deleted; the next run finds out.
        """
        target = plan.target
        with exclusive(self._store, target.name.partition("+")[0] or str(target.api_key_id)):
            key = self._unchanged(target)
            if key is not None and key.api_key_id is None and plan.destroy and not is_going(key):
                key = self._condemned(key)
                target = self._looked_up(target, key)
            if target.api_key_id is not None:
                self._end_import(key)
                key, left = self._end(target, target.api_key_id, key, destroy=plan.destroy)
                if key is not None and plan.destroy:
                    check_none_since(self._account.connect, key, plan.listed, left, target.api_key_id)
            private_half = self._private_half(key, destroy=plan.destroy)
        return Revoked(target.name, target.api_key_id, target.api_key_id is not None, private_half)

    def _condemned(self, key: StoredKey) -> StoredKey:
        """Give a pair that isn't registered the name that says that it is to end, so that nobody registers it any more.

        Raises:
            KeyBusyError: If somebody has registered it meanwhile, and then it keeps its name; or a `generate` has begun
                since, whose mark in KMS has the name now: Kalshi may have made an API key for it.
        """
        if is_arriving(key):
            raise _changed_meanwhile(key.name)
        name, _, mark = key.name.partition("+")
        if mark not in {"", SUCCESSOR.removeprefix("+")}:
            return key  # it says so already
        try:
            condemned = self._rename(key, name + (ABORTING if mark else ENDING))
        except StoreUnavailableError:
            raise
        except StoreError:
            return key  # the names in this token are fixed
        if condemned.api_key_id is not None:
            self._rename(condemned, key.name)
            raise _changed_meanwhile(key.name)
        return condemned

    def _looked_up(self, target: Target, key: StoredKey) -> Target:
        """Return a pair that is to end with the API key that it has by now: its registration may have been under way.

        Raises:
            KeyProblemError: If it has more than one.
        """
        if target.api_key_id is None and can_sign(key):
            claimed = {kept.api_key_id for kept in self._store.keys()}
            listing = find_last_registration(self._account, key, claimed, self._report)
            if listing is not None:
                target = replace(target, api_key_id=listing.api_key_id, listing=listing)
                others = unclaimed(self._account.list_now(), claimed)
                check_no_other_registration(self._account.connect, key, others, listing.api_key_id)
        return replace(target, key=key)

    def _end_import(self, key: StoredKey | None) -> None:
        """Remove the mark that a killed `generate` left beside the key that it had put in: nothing is to go on.

        It stays if Kalshi may have made another pair for it, or has: then `generate` looks for that.
        """
        if key is None or key.api_key_id is None or not self._store.holds(key.name + IMPORTING):
            return
        if not examine_custody(key).made_inside and not (key.passing and self._is_for_another(key)):
            ImportsKeys.of(self._store).imports().end(key.name)

    def _is_for_another(self, key: StoredKey) -> bool:
        """Tell whether another run had taken the import over from the one that put the key in, and had a pair made.

        Both may have been killed before the first run gave way.
        """
        outwait(f"a `generate` of {key.name!r}", "its mark is removed", self._report)
        others = namesakes(key.name, self._account.list_now(), self._store)
        lost = ", ".join(other.api_key_id for other in others)
        if lost:
            self._report(
                f"note: another `generate` of {key.name!r} was interrupted, and the private half of its API key got "
                f"lost: {lost}. `hsm-keys generate {key.name}` deletes that, and makes another one"
            )
        return bool(lost)

    def _end(
        self, target: Target, api_key_id: str, key: StoredKey | None, *, destroy: bool
    ) -> tuple[StoredKey | None, list[ApiKey]]:
        """End the API key; return the pair, under the name that it has then, and what Kalshi lists."""
        name = key.name if key else ""
        own = self._account.manager_id == api_key_id
        if key and own and destroy and target.listing and "+" not in name:
            key = self._rename(key, name + ENDING)
        begun = key is not None and key.name.endswith(ENDING)
        try:
            left = end_api_key(self._account, api_key_id, key, self._report, begun=begun)
        except RefusedError:
            # Nothing was deleted, in this run at least. After any other error it may be dead, and where Kalshi didn't
            # list it, an earlier run may have deleted it: then the mark is all that proves it.
            if key and begun and target.listing:
                self._unmarked(key)
            raise
        if key and begun and not destroy:
            key = self._unmarked(key)
        return key, left

    def _unmarked(self, key: StoredKey) -> StoredKey:
        """Give a key its name back, unless another key has it, or a rotation is about to give it to one."""
        name = key.name.removesuffix(ENDING)
        taken = {each.name for each in self._store.keys()} & set(rotation_names(name))
        return key if taken else self._rename(key, name)

    def _rename(self, key: StoredKey, name: str) -> StoredKey:
        return RenamesKeys.of(self._store).rename(key, name)

    def _unchanged(self, target: Target) -> StoredKey | None:
        """Return the key as the store has it now.

        Raises:
            KeyBusyError: If it isn't the same any more.
        """
        if target.key is None:
            return None
        seen = (target.key.name, target.key.api_key_id)
        for key in ours(self._store):
            if (key.name, key.api_key_id) == seen:
                return key
        raise _changed_meanwhile(target.name)

    def _private_half(self, key: StoredKey | None, *, destroy: bool) -> str:
        if key is None:
            return "elsewhere"
        if not destroy:
            self._report(f"the private half of {key.name!r} stays in {self._store.describe()}")
            return "kept"
        successor = key.name.partition("+")[0] + SUCCESSOR
        self._store.mend(successor)  # what a killed rotation left of it: nobody looks for that once the name is gone
        self._store.clear(successor)
        self._store.destroy(key)
        return _end_of(self._store, key, self._report)


def discard(store: KeyStore, name: str, environment: str, report: Callable[[str], None]) -> Revoked:
    """Destroy a pair of which a person says that it never was registered, where no key is there to ask Kalshi with.

    Args:
        store: Where it is.
        name: Its name.
        environment: The environment at hand.
        report: Called with a line for people.

    Raises:
        ForeignKeyError: If it isn't ours.
        KeyBusyError: If another run works on it.
        KeyNotFoundError: If there is none.
        KeyProblemError: If it is registered, or its `generate` was interrupted.
        WrongEnvironmentError: If it was to be registered in another environment.
    """
    with exclusive(store, name):
        key = store.key(name)
        check_ours(key, store.describe())
        check_environment(name, key.environment, environment)
        if key.api_key_id is not None or is_arriving(key) or key.importing:
            raise KeyProblemError(
                f"{name!r} is registered, or was made by Kalshi; nothing was destroyed",
                hint=f"set {bootstrap_variables(environment).to_set}: the end of its API key has to be proved",
            )
        store.destroy(key)
    return Revoked(name, None, revoked=False, private_half=_end_of(store, key, report))


def _end_of(store: KeyStore, key: StoredKey, report: Callable[[str], None]) -> str:
    days = store.deletion_days
    report(
        f"scheduled the deletion of the private half of {key.name!r}, in {days} days"
        if days
        else f"destroyed the private half of {key.name!r}"
    )
    return "deletion scheduled" if days else "destroyed"


def _changed_meanwhile(name: str) -> KeyBusyError:
    return KeyBusyError(
        f"the key {name!r} was changed by somebody else meanwhile; nothing was done", hint="run it again"
    )
