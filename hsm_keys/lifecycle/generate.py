"""A pair made by Kalshi, and its private half put into the store. On the way the private half is only in memory.

Before Kalshi is asked, a mark is written into the store, which also shows that the store takes imported keys. From then
on, an API key with this name that no key of the store is bound to must be one whose private half got lost between
Kalshi's answer and the store: the next run deletes it. This is so only in the environment that the mark names; in
another one, an API key with this name may be somebody else's. The mark is removed last.

The mark belongs to the run that wrote it last. A run that finds a mark takes it over before it deletes an API key that
may be lost. If a run on another machine is still working on that API key, then either this run sees that run's private
half in the store, or the other run can't import it any more. A run signs its request, and then checks that the mark is
still its own; a run that takes the mark over waits until Kalshi refuses requests that were signed before, and then
looks for an API key that was made.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from hsm_keys.errors import (
    HsmKeysError,
    KalshiError,
    KeyBusyError,
    KeyExistsError,
    KeyNotFoundError,
    KeyProblemError,
    OutcomeUnknownError,
)
from hsm_keys.inspecting.custody import examine_custody, prove_imported
from hsm_keys.inspecting.proof_of_possession import find_registration, prove_registration, signs
from hsm_keys.lifecycle.ending import outwait, settle
from hsm_keys.lifecycle.enroll import Enrollment
from hsm_keys.lifecycle.locking import exclusive
from hsm_keys.lifecycle.made_by_kalshi import KALSHI, GeneratedPair, KalshiGenerator, namesakes
from hsm_keys.lifecycle.registering import bind
from hsm_keys.lifecycle.targets import check_no_end_begun, check_no_rotation_begun
from hsm_keys.signing.environments import check_environment
from hsm_keys.stores.abilities import ImportsKeys
from hsm_keys.stores.key_imports import taken_over
from hsm_keys.stores.key_names import IMPORTING, check_new_name
from hsm_keys.stores.ownership import name_in_use

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["Generator"]


class Generator:
    """Generates one key into one store.

    Args:
        store: Where the private half will live.
        kalshi: Has the pair made by Kalshi; its name is the key's name in the store too.

    Raises:
        UsageError: If the name can't be one, or the store takes no keys at all that were made elsewhere.
    """

    def __init__(self, store: KeyStore, kalshi: KalshiGenerator) -> None:
        self._name = check_new_name(kalshi.name)
        self._store = store
        self._imports = ImportsKeys.of(store).imports()
        self._kalshi = kalshi
        self._report = kalshi.report

    def run(self) -> Enrollment:
        """Take the key from nothing, or from where an earlier run stopped, to imported, bound and proved.

        Raises:
            KeyBusyError: If another run works on the name; what this one had made, if anything, was deleted again.
            WrongEnvironmentError: If an interrupted run had the key made in another environment; nothing was done.
            KeyExistsError: If the store has the name, or Kalshi has it and it may be in use; nothing was done.
            ForeignKeyError: If a key of the store that isn't ours has the name.
            StoreError: If the store takes no such key; Kalshi wasn't asked, or its API key was deleted again.
            KalshiError: If Kalshi refuses; nothing is left behind.
            OutcomeUnknownError: If it isn't known whether Kalshi made a pair; the next run finds out.
        """
        with exclusive(self._store, self._name):
            self._store.mend(self._name + IMPORTING)
            check_no_rotation_begun(self._store, self._name)
            self._store.mend(self._name)
            pending = self._imports.pending(self._name)
            if pending is None:
                self._check_not_stored()
            else:
                check_environment(self._name, pending.environment, self._kalshi.account.environment)
            listed = self._kalshi.listed()  # also shows, before anything is made, that we may ask
            namesakes = self._namesakes(listed)
            if pending is None or pending.environment is None:  # such a mark doesn't say where it was to be made
                self._check_unused(namesakes)
            elif pending.key is not None:
                return self._finish(pending.key, namesakes, listed)
            self._kalshi.tell_rights()
            self._try_out()
            if pending is not None:
                listed = self._list_once_late()
            self._kalshi.delete_lost(self._lost(self._namesakes(listed)))
            pair = self._make(listed)
            return self._conclude(self._import(pair), pair.api_key_id)

    def _list_once_late(self) -> list[ApiKey]:
        """Return the account's API keys once Kalshi makes nothing any more that an earlier run has asked for."""
        outwait(f"a `generate` of {self._name!r}", "what it left is looked for", self._report)
        listed = self._kalshi.listed()
        # After the list was read: so a lost API key can't belong to a run that has taken the mark over since.
        self._check_mark()
        return listed

    def _namesakes(self, listed: Sequence[ApiKey]) -> list[ApiKey]:
        """Return the API keys of the name that no key of the store is bound to."""
        return namesakes(self._name, listed, self._store)

    def _lost(self, namesakes: Sequence[ApiKey]) -> list[ApiKey]:
        """Return those API keys that no key of the store signs for: the others are in use, by their owners' word.

        A key that isn't ours, or that an interrupted `enroll` has registered, may have been registered by that name.
        """
        keys = self._store.keys() if namesakes else []
        unbound = [key for key in keys if key.api_key_id is None and signs(key)]
        used = {find_registration(self._kalshi.account.connect, key, namesakes) for key in unbound}
        used |= {key.api_key_id for key in keys}  # one may have been bound since the namesakes were looked up
        return [api_key for api_key in namesakes if api_key.api_key_id not in used]

    def _check_not_stored(self) -> None:
        check_no_end_begun(self._store, self._name)
        try:
            key = self._store.key(self._name)
        except KeyNotFoundError:
            return
        if not key.ours:
            raise name_in_use(key, self._store.describe())
        registration = f"as API key {key.api_key_id}" if key.api_key_id else "not registered yet"
        raise KeyExistsError(
            f"the store has a key {self._name!r} already ({registration}); nothing was changed",
            hint=f"see it with `hsm-keys show {self._name}`, or choose another name",
        )

    def _check_unused(self, namesakes: Sequence[ApiKey]) -> None:
        if namesakes:
            ids = ", ".join(api_key.api_key_id for api_key in namesakes)
            raise KeyExistsError(
                f"Kalshi has an API key called {self._name!r} already, whose private half isn't in this store: {ids}; "
                "nothing was changed",
                hint="somebody may use it from a PEM: choose another name, or delete it on Kalshi's account page first",
            )

    def _try_out(self) -> None:
        """Leave the mark, and check that the store doesn't give an imported key out again."""
        throwaway = self._imports.prepare(self._name, self._kalshi.key_type, self._kalshi.account.environment)
        if throwaway is not None:
            try:
                prove_imported(throwaway, throwaway.public_key(), KALSHI)
            except KeyProblemError:
                self._imports.end(self._name)
                raise
        self._report(f"{self._store.describe()} is ready to import an {self._kalshi.key_type} key")

    def _make(self, listed: Sequence[ApiKey]) -> GeneratedPair:
        try:
            return self._kalshi.make(listed, self._check_mark)
        except OutcomeUnknownError:
            raise  # the mark stays: it tells the next run what to delete
        except HsmKeysError:
            with suppress(HsmKeysError):  # what went wrong first says more
                if not self._namesakes(self._kalshi.listed()):
                    self._imports.end(self._name)
            raise

    def _check_mark(self) -> None:
        if self._imports.is_taken_over(self._name):
            raise taken_over(self._name, self._store.describe())

    def _import(self, pair: GeneratedPair) -> StoredKey:
        """Put the private half into the store; if it doesn't go in, the API key is of no use and is deleted again."""
        try:
            key = self._imports.put(self._name, pair.private_key, pair.api_key_id, self._kalshi.account.environment)
        except KeyBusyError:
            self._kalshi.delete(pair.api_key_id)
            self._imports.withdraw(self._name)
            raise
        except HsmKeysError as error:
            self._undo(pair, error)
            raise
        try:
            prove_imported(key, pair.private_key.public_key(), KALSHI)
        except KeyProblemError as error:
            self._store.destroy(key)
            self._undo(pair, error)
            raise
        self._report(f"put the private half into {self._store.describe()}, and it signs there (verified here)")
        return key

    def _undo(self, pair: GeneratedPair, error: HsmKeysError) -> None:
        """Delete an API key whose private half isn't in the store, and say so; in doubt leave it to the next run."""
        api_key_id, public_key = pair.api_key_id, pair.private_key.public_key()
        outcome = f"run the same command again to finish or to delete the API key {api_key_id} that Kalshi made"
        with suppress(HsmKeysError):
            self._imports.give_up(self._name)
            # Another run may have gone on with it already, and bound it.
            if not any(signs(key) and key.public_key() == public_key for key in self._store.keys()):
                self._kalshi.delete(api_key_id)
                outcome = f"the API key {api_key_id} that Kalshi made was deleted again"
                self._imports.end(self._name)
        error.amend(message=f"{error.message}; {outcome}")

    def _finish(self, key: StoredKey, namesakes: Sequence[ApiKey], listed: Sequence[ApiKey]) -> Enrollment:
        """Go on with a key that an interrupted run put in."""
        if not key.ours or examine_custody(key).made_inside:
            self._kalshi.delete_lost(self._lost(namesakes))
            self._imports.end(self._name)
            if not key.ours:
                raise name_in_use(key, self._store.describe())
            raise KeyExistsError(
                f"the key {self._name!r} was made in the store after an earlier `generate` was interrupted",
                hint=f"see it with `hsm-keys show {self._name}`, or choose another name",
            )
        if key.key_type is not self._kalshi.key_type:
            raise KeyProblemError(
                f"an interrupted run put an {key.key_type} key {self._name!r} into the store, and "
                f"{self._kalshi.key_type} was asked for",
                hint=f"give --key-type {key.key_type} to finish that one",
            )
        self._report(f"picked up the key {self._name!r}, which an interrupted run put into the store")
        api_key_id = key.api_key_id or find_registration(self._kalshi.account.connect, key, namesakes)
        if api_key_id is None:
            raise KalshiError(
                f"the store has the key {self._name!r} that Kalshi made, and none of the API keys that Kalshi lists "
                "takes its signature; nothing was done",
                hint="it may not be known everywhere yet: run the same command again; if it was deleted at Kalshi, "
                f"`hsm-keys revoke {self._name} --destroy` comes first",
            )
        self._kalshi.check_asked(api_key_id, listed)
        others = [api_key for api_key in namesakes if api_key.api_key_id != api_key_id]
        self._kalshi.delete_lost(self._lost(others))
        settle()  # the interrupted run may have deleted it, and a deletion isn't known everywhere at once
        return self._conclude(key, api_key_id)

    def _conclude(self, key: StoredKey, api_key_id: str) -> Enrollment:
        """Prove the key, here and at Kalshi; bind it where putting it in didn't; remove the mark."""
        custody = prove_imported(key, key.public_key(), KALSHI)
        prove_registration(self._kalshi.account.connect, key, api_key_id)
        self._report("proved it: Kalshi answered a request signed in the store")
        if key.api_key_id != api_key_id:
            key = self._bound(key, api_key_id)
        self._imports.end(self._name)
        self._report(f"custody: {custody.verdict}: copies may exist (a key made by `hsm-keys enroll` has none)")
        return Enrollment(key, custody, api_key_id)

    def _bound(self, key: StoredKey, api_key_id: str) -> StoredKey:
        try:
            return bind(self._store, key, api_key_id, self._kalshi.account.environment, self._report)
        except KeyNotFoundError:  # the run that had put it in has given it up
            raise taken_over(self._name, self._store.describe()) from None
