"""A key pair in AWS KMS."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import UsageError
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.awskms.custody_facts import attributes_of, condition_of, custody_facts_of
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask
from hsm_keys.stores.awskms.errors import KmsKeyNotPinnedError
from hsm_keys.stores.awskms.response_fields import SPECS, signature_in
from hsm_keys.stores.awskms.succession import vouched
from hsm_keys.stores.awskms.uri import in_region
from hsm_keys.stores.base import StoredKey

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.awskms.store import AwsKmsStore
    from hsm_keys.stores.condition import Condition
    from hsm_keys.stores.custody_verdicts import CustodyFact
    from hsm_keys.stores.marks import Mark

__all__ = ["AwsKmsKey", "Found"]

_log = logging.getLogger(__name__)

_MAX_MESSAGE: Final = 4096  # bytes: what KMS takes with MessageType RAW
_ALGORITHMS: Final = {
    key_type: "ED25519_SHA_512" if key_type is KeyType.ED25519 else "RSASSA_PSS_SHA_256" for key_type in KeyType
}


@dataclass(frozen=True, slots=True)
class Found:
    """What KMS says of a key that a reference leads to; no public half if the key's state forbids it."""

    arn: str
    key_type: KeyType
    public_key: PublicKey | None


class AwsKmsKey(StoredKey):
    """A key pair in KMS.

    Attributes:
        arn: The key's ARN in the Region where it was found.
    """

    def __init__(self, store: AwsKmsStore, name: str, mark: Mark, uri: str, found: Found) -> None:
        self.name = name
        self.ours, self.api_key_id, self.environment = mark.ours, mark.api_key_id, mark.environment
        self.registering, self.offered, self.claim = mark.registering, mark.offered, mark.claim
        self.importing = mark.importing
        self.uri = uri
        self.arn: Final = found.arn
        self.algorithm: Final = _ALGORITHMS[found.key_type]
        self.spec: Final = SPECS[found.key_type]
        self._store = store
        self._key_type = found.key_type
        self._public_key = found.public_key
        self._stays_because = ""

    @property
    def key_type(self) -> KeyType:
        """The key's type; known also where the key's state hides its public half."""
        return self._key_type

    def public_key(self) -> PublicKey:
        """Return the public half, read once.

        Raises:
            KmsKeyStateError: If the key is disabled or pending deletion, and KMS doesn't show it.
        """
        if self._public_key is None:
            self._public_key = self._store.fetch_public_key(self)
        return self._public_key

    def attributes(self) -> dict[str, bool | str | int | None]:
        """Return what KMS says about the key: state, origin, Regions, dates (ISO 8601), specification."""
        return attributes_of(self._store.describe_key(self))

    def condition(self) -> Condition:
        """Return whether KMS lets the key be used."""
        return condition_of(self._store.describe_key(self))

    def current(self) -> StoredKey:
        """Return the key that the name's alias points to now; this one, if it signed no statement about that key.

        Another key is followed if this one signed a statement about it, which a rotation keeps in its tags. If the
        store's URI pins the API key id or the public half, it has to match as well. Anything else is logged at WARNING.
        """
        try:
            key = self._store.key(self.name)
        except KmsKeyNotPinnedError as error:
            return self._stay(error.message)
        if key.public_pem() == self.public_pem():
            return key
        if vouched(self.public_key(), key.public_key(), self._store.tags_of(key)):
            return key
        return self._stay(f"the alias of {self.name!r} points to a key for which {self.arn} signed no succession")

    def _stay(self, reason: str) -> StoredKey:
        if reason != self._stays_because:  # logged once, not at each look
            self._stays_because = reason
            _log.warning(
                "%s: signing goes on with the old key; if the change is right, start this program again", reason
            )
        return self

    def custody_facts(self) -> list[CustodyFact]:
        """Return where the private half came from, and what the key may be used for, judged."""
        return custody_facts_of(self._store.describe_key(self), accept_imported=self._store.accept_imported)

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature, made in KMS and verified here with the public half, salt of 32 bytes exactly.

        Raises:
            UsageError: If the message has more than 4,096 bytes.
            AwsError: If AWS or KMS refuses, or answers with something that isn't a signature.
            NetworkError: If KMS doesn't answer within the budget.
        """
        if not isinstance(message, bytes):
            raise TypeError(f"a message to sign is bytes, not {type(message).__name__}")
        if len(message) > _MAX_MESSAGE:
            raise UsageError(
                f"KMS signs messages of at most {_MAX_MESSAGE} bytes, and this one has {len(message)}",
                hint="sign a shorter message",
            )
        public_key = self._public_key or self.public_key()

        def attempt(client: Any, region: str) -> bytes:
            call = KmsCall("Sign", self.name, region, self.spec)
            answer = ask(
                call,
                client.sign,
                KeyId=in_region(self.arn, region),
                Message=message,
                MessageType="RAW",
                SigningAlgorithm=self.algorithm,
            )
            return signature_in(answer, public_key, message, call)

        return self._store.caller().sign(attempt, self.arn)
