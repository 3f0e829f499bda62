"""Registering: get an API key id for a minted key, only once even if answers get lost, and prove it.

``POST /api_keys`` is sent at most once in a run, and never while the result of an earlier request isn't known: first
Kalshi's list is searched for an API key that this private half signs for. The request is signed before the pair's mark
says that a registration was begun, and isn't signed again: if a run is delayed between the two, Kalshi refuses its
request as too old. ``contention`` says what happens if two machines register one pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsm_keys.errors import (
    HsmKeysError,
    KeyBusyError,
    KeyNotFoundError,
    KeyProblemError,
    OutcomeUnknownError,
    StoreError,
    StoreUnavailableError,
)
from hsm_keys.inspecting.proof_of_possession import (
    find_registration,
    find_registrations,
    prove_registration,
    public_half,
)
from hsm_keys.kalshi.account import unclaimed
from hsm_keys.kalshi.errors import BadRequestError, ConflictError, TierError
from hsm_keys.lifecycle.contention import AGAIN, Contention
from hsm_keys.lifecycle.ending import end_unused
from hsm_keys.lifecycle.late_registration import find_late_registration
from hsm_keys.lifecycle.rights import check_asked, describe_rights

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from hsm_keys.kalshi.account import Account
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["ApiKeyRequest", "Registrar", "bind"]


@dataclass(frozen=True, slots=True)
class ApiKeyRequest:
    """The fields of a registration that a command asks for.

    Args:
        name: What Kalshi is to call it.
        scopes: What it may do; None is Kalshi's default, ``read`` and ``write``.
        subaccount: Restricts it to one subaccount, 0 to 63.
        fcm_subtrader_id: Binds it to one FCM subtrader.
        spare_name: Another name, should Kalshi refuse the first one. Whether two keys may share one isn't documented.
        by_hand: What to do where the account may not register keys by API; a sentence.
        as_listed: Whether the scopes are those that Kalshi lists for another key, rather than what a person wrote.
    """

    name: str
    scopes: Sequence[str] | None = None
    subaccount: int | None = None
    fcm_subtrader_id: str | None = None
    spare_name: str | None = None
    by_hand: str = ""
    as_listed: bool = False


class Registrar:
    """Registers keys of one store.

    Args:
        store: Where the private halves are.
        account: Where the API keys are.
        report: Called with a line for people after each step.
    """

    def __init__(self, store: KeyStore, account: Account, report: Callable[[str], None]) -> None:
        self._store = store
        self._account = account
        self._report = report
        self._environment = account.environment
        self._contention = Contention(store, account, report)

    def register(
        self, key: StoredKey, wanted: ApiKeyRequest, listed: Sequence[ApiKey], *, new: bool
    ) -> tuple[StoredKey, str]:
        """Register a minted key, or find it registered; bind the id, and prove a signed request.

        Args:
            key: The key.
            wanted: What to ask for.
            listed: What Kalshi listed before this run changed anything.
            new: Whether the pair was made in this run, so that Kalshi can't know it.

        Returns:
            The key, with the API key id beside it where the store can hold one, and the id.

        Raises:
            KeyBusyError: If somebody else registers the same key; what this run registered is deleted if nobody takes
                it.
            KeyProblemError: If it is registered, and may do something else than what is asked for; or a person may have
                registered it in another environment.
            KalshiError: If Kalshi refuses; the key stays in the store, and the next run picks it up.
            OutcomeUnknownError: If it isn't known whether Kalshi registered the key; the next run finds out.
        """
        kept_keys = self._store.keys()
        claimed = {kept.api_key_id for kept in kept_keys}
        if any(kept.api_key_id and public_half(kept) == key.public_key() for kept in kept_keys):
            raise KeyBusyError(
                f"somebody else registered {key.name!r} meanwhile",
                hint="see it with `hsm-keys list`, then run this again",
            )
        api_key_id = None if new else self._picked_up(key, wanted, claimed)
        if api_key_id is None:
            if key.offered:
                raise _offered(key, self._environment)
            namesakes = [each.api_key_id for each in unclaimed(listed, claimed) if each.name == wanted.name]
            if namesakes:
                ids = ", ".join(namesakes)
                self._report(f"note: Kalshi has another API key called {wanted.name!r}, not in this store: {ids}")
            api_key_id = self._post(key, wanted, listed)
        registered = self._bind(key, api_key_id)
        prove_registration(self._account.connect, registered, api_key_id)
        self._store.mend(registered.name)
        self._report("proved it: Kalshi answered a request signed in the store")
        return registered, api_key_id

    def bind_again(self, key: StoredKey) -> StoredKey:
        """Bind the API key that Kalshi has of a key that was registered; nothing is posted.

        Another machine's bookkeeping has written over the id. Where Kalshi has none, the key is returned as it is.

        Raises:
            KeyBusyError: If somebody else works on the key.
            KalshiError: If Kalshi refuses the listing, or its answers say nothing about the key.
        """
        self._contention.outwait_leaving(key)
        listing = find_late_registration(self._account, key, {kept.api_key_id for kept in self._store.keys()})
        if listing is None:
            return key
        self._contention.take(key, listing.api_key_id)
        return self._bind(key, listing.api_key_id)

    def _picked_up(self, key: StoredKey, wanted: ApiKeyRequest, claimed: Collection[str | None]) -> str | None:
        """Return the API key that an earlier run has registered for the key, and that nobody deletes; None if none."""
        self._contention.outwait_leaving(key)
        listing = find_late_registration(self._account, key, claimed)
        if listing is None:
            return None
        if not wanted.as_listed:
            check_asked(key.name, listing, wanted.scopes, wanted.subaccount)
        api_key_id = listing.api_key_id
        self._report(f"found the key registered at Kalshi, as API key {api_key_id}, with {describe_rights(listing)}")
        self._contention.take(key, api_key_id)
        return api_key_id

    def _bind(self, key: StoredKey, api_key_id: str) -> StoredKey:
        """Bind the id; if somebody registered or destroyed the pair meanwhile, leave no API key that nobody needs."""
        try:
            return bind(self._store, key, api_key_id, self._environment, self._report)
        except KeyNotFoundError:
            ending = self._delete(api_key_id)
            raise KeyBusyError(
                f"somebody else registered or destroyed the pair of {key.name!r} meanwhile; API key {api_key_id} "
                f"{ending}",
                hint=AGAIN,
            ) from None
        except HsmKeysError as error:
            raise self._unbound(error, key, api_key_id) from None

    def _unbound(self, error: HsmKeysError, key: StoredKey, api_key_id: str) -> HsmKeysError:
        """Return what kept an API key from being bound, with what became of that: if the pair is gone, it ends too."""
        try:
            gone = self._contention.is_gone(key)
        except HsmKeysError:
            ending = "may still be there: see `hsm-keys reconcile`"
        else:
            ending = self._delete(api_key_id) if gone else f"isn't bound to {key.name!r} yet"
        return error.amend(message=f"{error.message}; API key {api_key_id} {ending}", further_hint=AGAIN)

    def _delete(self, api_key_id: str) -> str:
        """Delete what this run registered, and return what became of it."""
        try:
            end_unused(self._account, api_key_id, self._report)
        except HsmKeysError as error:
            return f"may still be there ({error.message}): end it with `hsm-keys revoke {api_key_id}`"
        return "was deleted again"

    def _post(self, key: StoredKey, wanted: ApiKeyRequest, before: Sequence[ApiKey]) -> str:
        """Post the public half once. If the answer is lost, look for the key among those that are new.

        What is found then may be another run's: it is never deleted.
        """
        try:
            api_key_id = self._create(key, wanted)
        except KeyBusyError:
            raise
        except TierError as error:
            raise _kept(error.amend(hint=""), key, wanted.by_hand) from None
        except OutcomeUnknownError as error:
            found = self._look_again(key, before)
            if len(found) == 1:
                self._report(f"found the key registered at Kalshi, as API key {found[0]}")
                return found[0]
            several = f"; Kalshi lists {', '.join(found)} for it, and one may be another run's" if found else ""
            raise _kept(
                error.amend(message=f"{error.message}{several}"),
                key,
                "run the same command again: it looks for the key before it posts anything",
            ) from None
        except HsmKeysError as error:
            raise _kept(error, key, "run the same command again once that is mended") from None
        self._report(f"registered the public half at Kalshi, as API key {api_key_id}")
        try:
            self._yield_to_others(key, api_key_id, before)
        except KeyBusyError:
            raise
        except HsmKeysError as error:
            raise self._unbound(error, key, api_key_id) from None
        return api_key_id

    def _create(self, key: StoredKey, wanted: ApiKeyRequest) -> str:
        try:
            return self._create_as(key, wanted, wanted.name)
        except (BadRequestError, ConflictError):
            # Refused: nothing was made. The reason may be the public half or the name; one more try tells which.
            if wanted.spare_name is None:
                raise
            self._report(f"Kalshi refuses the name {wanted.name!r}; trying {wanted.spare_name!r}")
            return self._create_as(key, wanted, wanted.spare_name)

    def _create_as(self, key: StoredKey, wanted: ApiKeyRequest, name: str) -> str:
        create = self._account.client.api_keys.prepare_create(
            name=name,
            public_key=key.public_pem(),
            scopes=wanted.scopes,
            subaccount=wanted.subaccount,
            fcm_subtrader_id=wanted.fcm_subtrader_id,
            as_listed=wanted.as_listed,
        )
        self._contention.begin(key)
        return create().api_key.api_key

    def _look_again(self, key: StoredKey, before: Sequence[ApiKey]) -> list[str]:
        """Return the API keys that the key has now; where it is one, nobody deletes it. It may be another run's."""
        try:
            self._contention.outwait_leaving(key)
            found = self._new_registrations(key, before)
            if len(found) == 1:
                self._contention.take(key, found[0])
        except HsmKeysError:
            return []  # the outcome is still unknown; the first error says more than this one
        return found

    def _new_registrations(self, key: StoredKey, before: Sequence[ApiKey]) -> list[str]:
        return list(find_registrations(self._account.connect, key, self._new_since(before)))

    def _new_since(self, before: Sequence[ApiKey]) -> list[ApiKey]:
        return unclaimed(self._account.list_now(), (listing.api_key_id for listing in before))

    def _yield_to_others(self, key: StoredKey, api_key_id: str, before: Sequence[ApiKey]) -> None:
        """Give way if another machine registered the same pair meanwhile.

        Of two that posted, the later one sees both in this list, and gives way.
        """
        others = [listed for listed in self._new_since(before) if listed.api_key_id != api_key_id]
        other = find_registration(self._account.connect, key, others)
        if other is None:
            return
        ending = self._contention.give_way(key, api_key_id)
        raise KeyBusyError(
            f"somebody else registered {key.name!r} at the same moment, as API key {other}; "
            f"the one of this run ({api_key_id}) {ending}",
            hint=AGAIN,
        )


def _offered(key: StoredKey, environment: str) -> KeyProblemError:
    return KeyProblemError(
        f"the public half of {key.name!r} was printed, to be registered by hand, but no environment was named, "
        f"and Kalshi doesn't know the key in the environment {environment}. Nothing was registered",
        hint=f"if it was registered: hsm-keys adopt {key.name} --api-key-id ID, with --env or --base-url; if it never "
        f"was: hsm-keys revoke {key.name} --destroy --never-registered, then the same command again",
    )


def _kept(error: HsmKeysError, key: StoredKey, next_step: str) -> HsmKeysError:
    """Return the error with what became of the key, and what to do next."""
    return error.amend(
        message=f"{error.message}. The key {key.name!r} stays in the store, unregistered", further_hint=next_step
    )


def bind(
    store: KeyStore, key: StoredKey, api_key_id: str, environment: str, report: Callable[[str], None]
) -> StoredKey:
    """Write the id and its environment beside the private half; where the store can't, say how to go on without."""
    try:
        registered = store.bind(key, api_key_id, environment)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        report(f"WARNING: {error.message}. {error.hint}")
        return key
    report("bound the id to the key in the store")
    return registered
