"""Pairs that Kalshi makes. If a private half got lost on the way, its API key is deleted and another one requested.

Kalshi sends the private half only once. So an API key whose answer was lost is of no use to anybody, and is deleted
before another one is requested.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import (
    HsmKeysError,
    KalshiError,
    KeyAmbiguousError,
    OutcomeUnknownError,
    UsageError,
)
from hsm_keys.kalshi.account import unclaimed
from hsm_keys.kalshi.api_keys import new_key_fields
from hsm_keys.lifecycle.ending import end_unused
from hsm_keys.lifecycle.rights import MOVES_MONEY, check_asked, check_manages
from hsm_keys.signing.algorithms import KeyType, key_type_of
from hsm_keys.signing.pem import load_private_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.kalshi.account import Account
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.lifecycle.registering import ApiKeyRequest
    from hsm_keys.signing.algorithms import PrivateKey
    from hsm_keys.stores.base import KeyStore

__all__ = ["KALSHI", "GeneratedPair", "KalshiGenerator", "called", "namesakes"]

KALSHI: Final = "Kalshi"

_KALSHIS_WORDS: Final = {KeyType.RSA_2048: "rsa", KeyType.ED25519: "ed25519"}


@dataclass(frozen=True, slots=True)
class GeneratedPair:
    """What Kalshi made.

    Args:
        api_key_id: The new API key's id.
        pem: The private half as Kalshi gave it: PKCS#1 for RSA, PKCS#8 for Ed25519.
        private_key: The same, read.
    """

    api_key_id: str
    pem: str = field(repr=False)
    private_key: PrivateKey = field(repr=False)


def called(name: str, listed: Sequence[ApiKey]) -> list[ApiKey]:
    """Return the API keys of that name; Kalshi doesn't say that names are unique."""
    return [api_key for api_key in listed if api_key.name == name]


def namesakes(name: str, listed: Sequence[ApiKey], store: KeyStore) -> list[ApiKey]:
    """Return the API keys of that name that no key of the store is bound to."""
    return unclaimed(called(name, listed), (key.api_key_id for key in store.keys()))


class KalshiGenerator:
    """Has pairs made by Kalshi.

    Args:
        wanted: What is asked for.
        key_type: RSA-2048 or Ed25519.
        account: Where Kalshi has them made.
        report: Called with a line for people after each step.

    Raises:
        UsageError: If Kalshi would refuse it; nothing was sent.
    """

    def __init__(
        self,
        wanted: ApiKeyRequest,
        key_type: KeyType,
        account: Account,
        report: Callable[[str], None],
    ) -> None:
        new_key_fields(wanted.name, wanted.scopes, wanted.subaccount)
        if key_type not in _KALSHIS_WORDS:
            raise UsageError(f"Kalshi makes no {key_type} keys", hint="use one of " + ", ".join(_KALSHIS_WORDS))
        self.name = wanted.name
        self.key_type = key_type
        self.report = report
        self._wanted = wanted
        self.account = account

    def listed(self) -> list[ApiKey]:
        """Return the account's API keys.

        Raises:
            KeyProblemError: If the key that signs the management calls can't manage API keys.
        """
        listed = self.account.list_now()
        check_manages(self.account.manager_id, listed)
        return listed

    def tell_rights(self) -> None:
        """Say what an API key can do for which no scopes were asked for."""
        if self._wanted.scopes is None:
            self.report(MOVES_MONEY)

    def check_asked(self, api_key_id: str, listed: Sequence[ApiKey]) -> None:
        """Make sure that what an interrupted run had made is what this one asks for.

        Raises:
            KeyProblemError: If it may do something else.
        """
        for listing in listed:
            if listing.api_key_id == api_key_id:
                check_asked(self.name, listing, self._wanted.scopes, self._wanted.subaccount)

    def make(self, before: Sequence[ApiKey], check_alone: Callable[[], None] = lambda: None) -> GeneratedPair:
        """Have a pair made. If the answer is lost, what Kalshi made is deleted, and one more is asked for.

        Args:
            before: The account's API keys as they were listed last.
            check_alone: Makes sure that no other run has begun to have a pair of the name made; else what Kalshi lists
                may be that one's. A file has no such runs: its lock is held.

        Raises:
            HsmKeysError: What ``check_alone`` raises; nothing was deleted.
            KalshiError: If Kalshi refuses.
            OutcomeUnknownError: If it isn't known whether Kalshi made a pair.
        """
        try:
            return self._post(check_alone)
        except OutcomeUnknownError as error:
            lost = self._new_since(before, error)
            check_alone()  # after the list was read: a run that had one made by then has begun before
            self.delete_lost(lost)
        return self._post(check_alone)

    def _new_since(self, before: Sequence[ApiKey], error: OutcomeUnknownError) -> list[ApiKey]:
        """Return what Kalshi made while its answer was lost; without a trace of it, nothing is asked for again.

        A request that is still under way could make its pair after the list was read.
        """
        ids_before = {api_key.api_key_id for api_key in before}
        try:
            now = called(self.name, self.listed())
        except HsmKeysError:
            raise error from None  # the outcome is still unknown; the first error says more than this one
        lost = [api_key for api_key in now if api_key.api_key_id not in ids_before]
        if not lost:
            raise error
        return lost

    def _post(self, check_alone: Callable[[], None]) -> GeneratedPair:
        send = self.account.client.api_keys.prepare_generate(
            self.name,
            key_type=_KALSHIS_WORDS[self.key_type],
            scopes=self._wanted.scopes,
            subaccount=self._wanted.subaccount,
        )
        # A request that is delayed from here on is too old for Kalshi before another run looks for its key.
        check_alone()
        try:
            answer = send()
        except OutcomeUnknownError as error:
            error.amend(
                hint="run the same command again in a minute: it deletes what Kalshi may have made, then asks anew"
            )
            raise
        api_key_id = answer.api_key.api_key
        self.report(f"Kalshi made the pair, as API key {api_key_id}")
        pem = answer.private_key.get_secret_value()
        try:
            private_key = load_private_key(pem)
            readable = key_type_of(private_key.public_key()) is self.key_type
        except UsageError:
            readable = False
        if not readable:
            self.delete(api_key_id)
            raise KalshiError(
                f"Kalshi gave no {self.key_type} private key; the API key {api_key_id} was deleted again",
                hint="try another --key-type, or enroll a key that the store makes",
            )
        return GeneratedPair(api_key_id, pem, private_key)

    def delete_lost(self, lost: Sequence[ApiKey]) -> None:
        """Delete the API key that an interrupted run had made, whose private half got lost.

        Raises:
            KeyAmbiguousError: If there are several; one run leaves one at most.
        """
        if len(lost) > 1:
            ids = ", ".join(api_key.api_key_id for api_key in lost)
            raise KeyAmbiguousError(
                f"Kalshi has {len(lost)} API keys called {self.name!r} whose private half isn't here: {ids}; "
                "an interrupted run leaves one at most, so none was deleted",
                hint="delete those that nobody uses on Kalshi's account page, then run the same command again",
            )
        for api_key in lost:
            self.report(f"the private half of API key {api_key.api_key_id}, from an interrupted run, got lost")
            self.delete(api_key.api_key_id)

    def delete(self, api_key_id: str) -> None:
        """Delete an API key that Kalshi has made or listed; that it is gone already is as good.

        Raises:
            OutcomeUnknownError: If the answer was lost and Kalshi lists it still.
            HsmKeysError: If it couldn't be deleted; the error names it.
        """
        try:
            end_unused(self.account, api_key_id, self.report)
        except HsmKeysError as error:
            raise error.amend(message=f"{error.message}; API key {api_key_id} may still be there") from None
