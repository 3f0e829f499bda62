"""A key pair in a Transit engine."""

from __future__ import annotations

import logging
from base64 import b64decode
from typing import TYPE_CHECKING, Final

from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.base import StoredKey
from hsm_keys.stores.succession import statement_about
from hsm_keys.stores.vault.custody_facts import attributes_of, custody_facts_of

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.custody_verdicts import CustodyFact
    from hsm_keys.stores.marks import Mark
    from hsm_keys.stores.vault.store import VaultStore
    from hsm_keys.stores.vault.transit import TransitKey

__all__ = ["VaultKey"]

_log = logging.getLogger(__name__)


class VaultKey(StoredKey):
    """A key pair in a Transit engine.

    Attributes:
        transit_key: The engine's name for it; it never changes.
        version: The version of the Transit key that is the pair.
    """

    def __init__(self, store: VaultStore, name: str, mark: Mark, uri: str, found: TransitKey) -> None:
        self.name = name
        self.ours, self.api_key_id, self.environment = mark.ours, mark.api_key_id, mark.environment
        self.registering, self.offered, self.claim = mark.registering, mark.offered, mark.claim
        self.importing = mark.importing
        self.uri = uri
        self.transit_key: Final = found.name
        self.version: Final = found.version
        self._store = store
        self.found: Final = found
        self._sign = store.transit.signer(found, name)
        self._stays_because = ""

    def public_key(self) -> PublicKey:
        """Return the public half."""
        return self.found.public_key

    def attributes(self) -> dict[str, bool | str | int | None]:
        """Return what the engine says of the key: type, whether it can be exported, backed up or deleted, dates."""
        return attributes_of(self._store.read_again(self))

    def custody_facts(self) -> list[CustodyFact]:
        """Return what the engine says of the key, and what this token may do with it, judged."""
        return custody_facts_of(
            self._store.read_again(self), self._store.capabilities(self.transit_key), self._store.transit.mount
        )

    def current(self) -> StoredKey:
        """Return the key that has the name now; this one, if it signed no statement about that key.

        Another key is followed if this one signed a statement about it, which a rotation keeps in the entry. Anything
        else is logged at WARNING.
        """
        key, vouched = self._store.key_and_voucher(self.name)
        if key.public_pem() == self.public_pem() or self._vouched(key, vouched):
            return key
        reason = f"the entry of {self.name!r} names a key for which {self.transit_key} signed no succession"
        if reason != self._stays_because:  # logged once, not at each look
            self._stays_because = reason
            _log.warning(
                "%s: signing goes on with the old key; if the change is right, start this program again", reason
            )
        return self

    def _vouched(self, successor: StoredKey, vouched: str | None) -> bool:
        try:
            signature = b64decode(vouched or "", validate=True)
        except ValueError:
            return False
        return verifies(self.public_key(), statement_about(successor.public_key()), signature)

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature, made in the engine and verified here with the public half, salt of 32 bytes exactly.

        Raises:
            VaultError: If the server refuses, or answers with something that isn't a signature.
            VaultKeyNotFoundError: If the Transit key is gone.
            NetworkError: If no server answers within two seconds.
        """
        if not isinstance(message, bytes):
            raise TypeError(f"a message to sign is bytes, not {type(message).__name__}")
        return self._sign(message)
