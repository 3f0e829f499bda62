"""From a PEM to a key in a store: what the new key may do, and the end of the PEM's API key.

Whoever has a copy of the PEM has the key until its API key ends. Before the API key is deleted, Kalshi has to accept
the PEM's own signature for it, in this environment; afterwards Kalshi has to refuse that signature. If a run is killed
anywhere, the next one finds out which of the two is the case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_keys.errors import EndNotProvedError, KeyNotRegisteredError, KeyProblemError
from hsm_keys.inspecting.proof_of_possession import Standing, prove_registration, standing_of
from hsm_keys.kalshi.account import Account
from hsm_keys.kalshi.bootstrap_variables import bootstrap_variables
from hsm_keys.kalshi.errors import ForbiddenError
from hsm_keys.lifecycle.ending import end_api_key
from hsm_keys.lifecycle.revocation_plan import RevocationPlanner
from hsm_keys.lifecycle.rights import manages_keys, scopes_of
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.signing.environments import check_environment
from hsm_keys.stores.base import StoredKey
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hsm_keys.inspecting.proof_of_possession import Connect
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.signing.pem import PemKey
    from hsm_keys.stores.base import KeyStore
    from hsm_keys.stores.custody_verdicts import CustodyFact

__all__ = [
    "CUSTODY_BEGINS",
    "PemInMemory",
    "Successor",
    "key_type_like",
    "rights_like",
    "where_copies_lie",
]

CUSTODY_BEGINS: Final = (
    "your PEM stays what it is, a private key that may have been copied: custody begins with a new key, born in the "
    "store"
)
_ELSEWHERE: Final = "backups, CI secrets, images, chat and mail: nobody looked there, and nothing was deleted"


class PemInMemory(StoredKey):
    """The PEM's key, as one that signs the proof of its own end.

    Args:
        pem: The key.
        environment: The environment at hand, in which it has to prove itself.
    """

    name = "the PEM's key"
    ours = True
    uri = ""

    def __init__(self, pem: PemKey, environment: str) -> None:
        self.api_key_id = pem.api_key_id
        self.environment = environment
        self._pem = pem

    def public_key(self) -> PublicKey:
        """Return the public half."""
        return self._pem.public_key()

    def attributes(self) -> dict[str, bool | str | int | None]:
        """Return nothing: a PEM says nothing of its key."""
        return {}

    def custody_facts(self) -> list[CustodyFact]:
        """Return nothing: nobody has it in custody."""
        return []

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature, made in memory."""
        return self._pem.sign(message)


def key_type_like(pem: PemKey, choice: KeyType | None) -> KeyType:
    """Return the type of the new key: what the bot signs with already, so that its library can go on."""
    return choice or (KeyType.ED25519 if pem.key_type is KeyType.ED25519 else KeyType.RSA_2048)


def rights_like(api_key_id: str, listed: Sequence[ApiKey]) -> tuple[list[str] | None, int | None]:
    """Return the scopes and the subaccount of the PEM's API key, for a new one that is to do the same.

    Args:
        api_key_id: The PEM's.
        listed: What Kalshi lists.

    Returns:
        None where Kalshi doesn't say.
    """
    own = next((listing for listing in listed if listing.api_key_id == api_key_id), None)
    return (scopes_of(own) or None, own.subaccount) if own is not None else (None, None)


class Successor:
    """The key that takes the PEM's place, and ends its API key.

    Args:
        key: The key in its store.
        connect: Makes a client of the environment for a signer.
        environment: The environment.
        report: Called with a line for people.
    """

    def __init__(self, key: StoredKey, connect: Connect, environment: str, report: Callable[[str], None]) -> None:
        if key.api_key_id is None:
            raise KeyNotRegisteredError(
                f"the key {key.name!r} isn't registered yet, so the PEM's key is still needed; nothing was done",
                hint=f"run `hsm-keys migrate {key.name}` first",
            )
        check_environment(key.name, key.environment, environment)
        self.key = key
        self._connect = connect
        self._environment = environment
        self._report = report

    def check_end(self, pem: PemInMemory) -> Standing:
        """Make sure that the new key works, and that the PEM's API key is the PEM's; return what Kalshi makes of it.

        Raises:
            KalshiError: If Kalshi doesn't take the new key's signature.
            KeyProblemError: If the API key isn't the PEM's, or is the new key's own; nothing was done.
        """
        if pem.public_key() == self.key.public_key() or pem.api_key_id == self.key.api_key_id:
            raise KeyProblemError(
                f"the PEM's key and {self.key.name!r} are the same one; nothing was done",
                hint="migrate to a key that was made in the store",
            )
        prove_registration(self._connect, self.key, str(self.key.api_key_id))
        standing = standing_of(self._connect, pem, str(pem.api_key_id))
        if standing is Standing.REFUSED:
            raise KeyProblemError(
                f"API key {pem.api_key_id} isn't this PEM's: Kalshi refuses its signature for it; nothing was done",
                hint=f"set {bootstrap_variables(self._environment).id} to the id that goes with the PEM",
            )
        return standing

    def manager(self, pem: KalshiClient, own: KalshiClient) -> KalshiClient:
        """Return the client that signs the deletion: the new key's, or the PEM's where the new one may not."""
        try:
            listed = own.api_keys.list().api_keys
        except ForbiddenError:
            return pem
        mine = next((listing for listing in listed if listing.api_key_id == self.key.api_key_id), None)
        return own if mine is not None and manages_keys(mine) else pem

    def end(self, pem: PemInMemory, standing: Standing, store: KeyStore, management: KalshiClient) -> None:
        """End the PEM's API key, and prove that it is dead.

        Args:
            pem: The PEM's key.
            standing: What Kalshi makes of its signature.
            store: Where the new key lives.
            management: Signs the deletion.

        Raises:
            KeyProblemError: If it is the last key that can manage API keys; nothing was done.
            EndNotProvedError: If Kalshi doesn't know it here: it may live in another environment.
            HsmKeysError: As ``end_api_key`` does.
        """
        api_key_id, account = str(pem.api_key_id), Account(management, self._connect)
        if standing is Standing.TAKEN:
            RevocationPlanner(store, account, self._report).plan(api_key_id, destroy=False, force=False)
            end_api_key(account, api_key_id, pem, self._report)
            return
        end_api_key(account, api_key_id, pem, _say_nothing)  # it would say that Kalshi knew the key here
        raise EndNotProvedError(
            f"Kalshi doesn't know the PEM's API key {api_key_id} in the environment {pem.environment}: it has ended "
            "already, or belongs to another environment and still works there",
            hint="if an earlier run has ended it, all is done: remove the PEM and its variables. Else give the PEM's "
            "environment with --env or --base-url",
        )


def _say_nothing(line: str) -> None:
    """Report nothing."""


def where_copies_lie(places: Sequence[str], copies: Sequence[Path]) -> list[str]:
    """Return where copies of the PEM may lie, by what was named; nothing is searched for.

    Args:
        places: Where it was read from, in words.
        copies: Further paths that a person named.
    """
    named = [f"{shown_path(path)} ({_presence(path)})" for path in copies]
    return [*places, *named, _ELSEWHERE]


def _presence(path: Path) -> str:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "not there"
    except (OSError, ValueError):  # in a folder that this user can't enter, say
        return "it can't be looked at"
    return "still there"
