"""Two runs that register one pair at the same time, on two machines: which API key stays.

Stores have no lock, only Vault has conditional writes, and Kalshi doesn't say which API key is the oldest. So a run
that binds an API key that it found, and a run that deletes its own API key because it found another, each first writes
a mark beside the pair, and then looks again:

* A run that gives way signs the deletion, writes the mark ``leaving``, and reads the mark. It deletes its API key if
  the mark is still its own, or if the pair is bound to another API key by then. It writes no mark where another run's
  mark says that it takes this API key, or that it gives way itself. A run only ever deletes its own API key: the one
  that Kalshi's answer to its own request named.
* A run that takes an API key writes the mark ``taking``, then lists Kalshi's API keys. If that is the pair's only one,
  no other run had a reason to give way before, and a later one reads the mark. If there are several, the run waits
  until Kalshi accepts no deletion any more that was signed before, and continues if the API key still exists and the
  mark is still its own. For this reason it also waits before it overwrites a mark ``leaving``.

Only one thing here depends on time: Kalshi refuses a request that was signed a minute ago. A run that can't be sure
says so, and leaves its API key as it is: the same command, run again, takes that API key.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from hsm_keys.errors import HsmKeysError, KeyBusyError, KeyNotFoundError
from hsm_keys.inspecting.proof_of_possession import find_registrations, public_half
from hsm_keys.kalshi.account import unclaimed
from hsm_keys.kalshi.errors import NotFoundError
from hsm_keys.lifecycle.ending import outwait, settle
from hsm_keys.signing.environments import check_environment
from hsm_keys.stores.marks import Claim, Intent

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.kalshi.account import Account
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["AGAIN", "Contention"]

AGAIN = "run the same command again in a while: it goes on from what is there"


class Contention:
    """Keeps runs on several machines from ending each other's API keys.

    Args:
        store: Where the private halves are.
        account: Where the API keys are.
        report: Called with a line for people.
    """

    def __init__(self, store: KeyStore, account: Account, report: Callable[[str], None]) -> None:
        self._store = store
        self._account = account
        self._report = report

    def begin(self, key: StoredKey, claim: Claim | None = None) -> StoredKey:
        """Write down where the key is about to be registered: after a crash that says where Kalshi may know it.

        Also where an earlier run has written that already: somebody may have begun to end the key since.

        Raises:
            KeyBusyError: If somebody has, or has registered it.
            WrongEnvironmentError: If somebody is registering it in another environment.
        """
        environment = self._account.environment
        now = self._now(key)
        check_environment(key.name, now.environment if now else None, environment)
        try:
            return self._store.begin_registration(key, environment, claim)
        except KeyNotFoundError:
            raise KeyBusyError(
                f"somebody else destroyed the pair of {key.name!r} meanwhile; nothing was registered", hint=AGAIN
            ) from None

    def outwait_leaving(self, key: StoredKey) -> None:
        """If another run has begun to give way, wait until Kalshi can't delete an API key of the pair any more.

        To be called before one is looked for.
        """
        now = self._now(key)
        if now is not None and now.claim is not None and now.claim.intent is Intent.LEAVES:
            self._outwait(key)

    def _outwait(self, key: StoredKey) -> None:
        outwait(f"the deletion of an API key of {key.name!r}", "one is bound", self._report)

    def take(self, key: StoredKey, api_key_id: str) -> None:
        """Make sure that nobody deletes an API key that was found for the pair: then it can be bound.

        Args:
            key: The pair.
            api_key_id: The API key.

        Raises:
            KeyBusyError: If somebody may delete it, has bound another one, or has ended the pair.
            KalshiError: If Kalshi's answers say nothing about the key.
            NetworkError: If there is no answer.
        """
        claim = Claim(Intent.TAKES, api_key_id)
        self.begin(key, claim)
        if not self._is_alone(key, api_key_id):
            self._wait_for_others(key, claim)

    def _is_alone(self, key: StoredKey, api_key_id: str) -> bool:
        return self._registrations(key) == [api_key_id]

    def _wait_for_others(self, key: StoredKey, claim: Claim) -> None:
        self._outwait(key)
        living, now = self._registrations(key), self._now(key)
        if claim.api_key_id not in living or now is None or now.claim != claim:
            raise KeyBusyError(f"somebody else is registering {key.name!r} at this moment", hint=AGAIN)
        others = ", ".join(each for each in living if each != claim.api_key_id)
        if others:
            self._report(
                f"note: the pair of {key.name!r} is registered twice at Kalshi, also as {others}, which isn't needed: "
                f"`hsm-keys reconcile` says how to end it"
            )

    def _registrations(self, key: StoredKey) -> list[str]:
        public_key = key.public_key()
        others = (kept.api_key_id for kept in self._store.keys() if public_half(kept) != public_key)
        candidates = unclaimed(self._account.list_now(), others)
        return list(find_registrations(self._account.connect, key, candidates))

    def give_way(self, key: StoredKey, api_key_id: str) -> str:
        """Delete an API key that this run has made, if nobody takes it; return what became of it, a clause.

        It is so new that it may not be known everywhere yet: a 404 says something the second time.

        Args:
            key: The pair; Kalshi lists another API key of it.
            api_key_id: The API key.
        """
        try:
            return self._give_way(key, api_key_id)
        except NotFoundError:
            settle()
        try:
            return self._give_way(key, api_key_id)
        except NotFoundError:
            return "is gone"

    def _give_way(self, key: StoredKey, api_key_id: str) -> str:
        send = self._account.client.api_keys.prepare_delete(api_key_id)
        claim = Claim(Intent.LEAVES, api_key_id)
        if not self._is_claimed(key, api_key_id):
            self._say_so(key, claim)
        if not self._may_delete(key, claim):
            return "was left alone"
        try:
            send()
        except NotFoundError:
            raise
        except HsmKeysError as error:
            return f"may still be there ({error.message}): see `hsm-keys reconcile`"
        return "was deleted again"

    def _is_claimed(self, key: StoredKey, api_key_id: str) -> bool:
        """Tell whether somebody takes the API key, or gives way; or the pair is bound or gone."""
        now = self._now(key)
        if now is None or now.api_key_id is not None:
            return True
        return now.claim is not None and (now.claim.intent is Intent.LEAVES or now.claim.api_key_id == api_key_id)

    def _say_so(self, key: StoredKey, claim: Claim) -> None:
        # A busy key was bound or ended meanwhile: its state tells whether the API key may be deleted.
        with suppress(KeyBusyError):
            self.begin(key, claim)

    def _may_delete(self, key: StoredKey, claim: Claim) -> bool:
        now = self._now(key)
        if now is None:
            return True
        return now.claim == claim if now.api_key_id is None else now.api_key_id != claim.api_key_id

    def is_gone(self, key: StoredKey) -> bool:
        """Tell whether the pair can't sign any more: somebody else has destroyed it."""
        return self._now(key) is None

    def _now(self, key: StoredKey) -> StoredKey | None:
        """Return the pair as the store has it now; None if it is gone."""
        public_key = key.public_key()
        return next((kept for kept in self._store.keys() if public_half(kept) == public_key), None)
