"""``KeyStore`` and ``StoredKey``: the two classes that every store implements and that the whole package uses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Literal, Self, cast, overload

from hsm_keys.arguments import takes_no_private_key
from hsm_keys.errors import SigningError
from hsm_keys.signing.algorithms import KeyType, PublicKey, key_type_of, public_key_pem
from hsm_keys.signing.signer import RequestSigner, not_registered
from hsm_keys.stores.condition import Condition
from hsm_keys.stores.marks import FOREIGN, Claim, Mark

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from hsm_keys.errors import UsageError
    from hsm_keys.signing.private_key import Ed25519KeyInStore, RSAKeyInStore
    from hsm_keys.stores.checks import Check
    from hsm_keys.stores.custody_verdicts import CustodyFact

__all__ = ["Contents", "KeyState", "KeyStore", "RegisteredKey", "StoredKey", "Unusable"]


class KeyState(StrEnum):
    """The state of a key: made in the store (minted), registered at Kalshi too, or another program's (not ours)."""

    MINTED = "minted"
    REGISTERED = "registered"
    FOREIGN = "not ours"


class StoredKey(ABC):
    """A key pair whose private half is in a store. Immutable: a change makes a new object.

    Attributes:
        name: The key's name in its store.
        api_key_id: The API key id under which Kalshi knows the public half; None while the key is only minted, and for
            a key that isn't ours.
        environment: The environment in which the key is registered, as ``environment_name`` gives it, or in which a
            registration was begun, or for which the key was made or is being imported; else None.
        ours: Whether the key has our mark, because hsm-keys made or adopted it. A key that isn't ours signs if an API
            key id is given, and is never changed, renamed or ended.
        doubt: Why our mark on the key isn't trusted; empty if the mark is trusted, or there is none.
        offered: Whether the public half was printed for registration by hand without naming an environment, and the
            key isn't bound yet: Kalshi may know it in any environment.
        importing: Whether Kalshi made the key and its import hasn't ended.
        passing: Whether its maker hasn't made sure yet that it is the only key of the name.
        registering: Whether a registration was begun and the key isn't bound yet: Kalshi may know it.
        claim: What the last run was about to do with an API key of such a key; None if it was about to register it.
        uri: The URI of the key, without a PIN.
    """

    name: str
    api_key_id: str | None
    environment: str | None
    ours: bool
    doubt: str = ""
    offered: bool = False
    importing: bool = False
    passing: bool = False
    registering: bool = False
    claim: Claim | None = None
    uri: str

    @property
    def state(self) -> KeyState:
        """Minted, registered or not ours, by the key's mark in the store."""
        if not self.ours:
            return KeyState.FOREIGN
        return KeyState.MINTED if self.api_key_id is None else KeyState.REGISTERED

    @property
    def key_type(self) -> KeyType:
        """The key's type."""
        return key_type_of(self.public_key())

    @abstractmethod
    def public_key(self) -> PublicKey:
        """Return the public half, as a public key of ``cryptography`` (RSA or Ed25519)."""

    def public_pem(self) -> str:
        """Return the public half as SubjectPublicKeyInfo PEM (RFC 7468, section 13), ending in a newline."""
        return public_key_pem(self.public_key())

    @abstractmethod
    def attributes(self) -> dict[str, bool | str | int | None]:
        """Return the store's attributes of the private half; the value of one that the store doesn't tell is None.

        ``creation_date``, if there is one, is ISO 8601; the other names are the store's own, such as ``CKA_SENSITIVE``
        of PKCS#11 v2.40.
        """

    def condition(self) -> Condition:
        """Return whether the key can be used now, as its store says. It is asked for after the key didn't sign.

        Raises:
            StoreError: If the store can't be reached.
        """
        return Condition()

    def remarks(self) -> list[str]:
        """Return remarks for people who sign with the key, each a clause."""
        return []

    @abstractmethod
    def custody_facts(self) -> list[CustodyFact]:
        """Return the facts for and against custody: the attributes, and the results of tries to read the key."""

    @abstractmethod
    def sign(self, message: bytes, /) -> bytes:
        """Sign a message in the store.

        Args:
            message: The message itself, not its digest.

        Returns:
            The raw signature. RSA: RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes (RFC 8017, section
            8.1), as long as the modulus (256 bytes for RSA-2048). Ed25519: 64 bytes (RFC 8032, section 5.1).

        Raises:
            StoreError: If the store can't be reached.
            SigningError: If the store refuses, or its answer isn't a signature of this key.
        """

    def sign_digest(self, digest: bytes, /) -> bytes:
        """Sign a SHA-256 digest that was made outside of the store (RSA only).

        Args:
            digest: The digest, 32 bytes.

        Returns:
            The RSASSA-PSS signature, as ``sign`` gives it for the message.

        Raises:
            SigningError: If the store signs only whole messages.
        """
        raise SigningError(
            f"the store of {self.name!r} takes no digest of {len(digest)} bytes: it signs whole messages",
            hint="sign the message with SHA256() instead of Prehashed(SHA256())",
        )

    def registered(self) -> RegisteredKey:
        """Return this key, which type checkers then know to have an ``api_key_id``.

        Raises:
            KeyNotRegisteredError: If it has none.
        """
        if self.api_key_id is None:
            raise not_registered(self.name, ours=self.ours)
        return cast("RegisteredKey", self)

    @overload
    def private_key(self) -> RSAKeyInStore | Ed25519KeyInStore: ...
    @overload
    def private_key(self, kind: Literal["rsa"]) -> RSAKeyInStore: ...
    @overload
    def private_key(self, kind: Literal["ed25519"]) -> Ed25519KeyInStore: ...
    def private_key(self, kind: Literal["rsa", "ed25519"] | None = None) -> RSAKeyInStore | Ed25519KeyInStore:
        """Return an ``RSAPrivateKey`` or ``Ed25519PrivateKey`` of ``cryptography`` that signs in the store.

        Pass it to code that wants a private key, such as Kalshi's SDKs. It keeps using this key after a rotation.

        Args:
            kind: ``rsa`` or ``ed25519``, for a program that takes only this kind; by default the key's own kind.

        Raises:
            UsageError: If the key is of the other kind.
        """
        from hsm_keys.signing.private_key import Ed25519KeyInStore, RSAKeyInStore, private_key_of

        if kind is None:
            return private_key_of(self)
        return RSAKeyInStore(self) if kind == "rsa" else Ed25519KeyInStore(self)

    @takes_no_private_key
    def signer(self, *, api_key_id: str | None = None) -> RequestSigner:
        """Return a signer for Kalshi requests, which follows a rotation to the key that has the name then.

        Args:
            api_key_id: Used instead of the id in the store, for keys whose store can't hold one. Such a signer doesn't
                follow rotations.

        Raises:
            KeyNotRegisteredError: If there is no API key id.
        """
        return RequestSigner(self, api_key_id=api_key_id, follow=None if api_key_id else self.current)

    def current(self) -> StoredKey:
        """Return the key that has this key's name now: after a rotation another one.

        Raises:
            KeyNotFoundError: If no key has it.
            StoreError: If the store can't be reached.
        """
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, api_key_id={self.api_key_id!r})"


if TYPE_CHECKING:

    class RegisteredKey(StoredKey):
        """A ``StoredKey`` that has an API key id: what ``StoredKey.registered`` returns, to type checkers."""

        api_key_id: str

else:
    RegisteredKey = StoredKey


@dataclass(frozen=True, slots=True)
class Unusable:
    """A private half that a store holds but that can't be used.

    Args:
        name: Its name in the store.
        problem: Why it can't be used; a clause.
        mark: Its mark.
        left_over: Whether it lost its public half while it was made, and was never used; ``clear`` destroys it.
    """

    name: str
    problem: str
    mark: Mark = FOREIGN
    left_over: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds.

    Args:
        keys: Every key that can sign Kalshi requests, sorted by name.
        unusable: Private halves that can't be used: broken ones, and those that can't be named.
    """

    keys: list[StoredKey]
    unusable: list[Unusable]


class KeyStore(ABC):
    """A store of private halves. Use it as a context manager, or call ``close()``.

    Attributes:
        uri: The URI of the store, without a PIN.
        deletion_days: Days in which ``destroy`` can still be cancelled; 0 if it is final at once.
        cancels_deletion: The command of the store's own tool that cancels it; empty if it is final at once.
    """

    uri: str
    deletion_days: ClassVar[int] = 0
    cancels_deletion: ClassVar[str] = ""

    def refusal(self) -> UsageError | None:
        """Return the error to raise if this store can't change keys at all; None for any other store."""
        return None

    def software(self) -> str:
        """Return the store's software with its version; empty if the store doesn't tell."""
        return ""

    @abstractmethod
    def describe(self) -> str:
        """Return the store's name in messages, such as ``token "kalshi" (serial 4f1c...)``."""

    @abstractmethod
    def keys(self) -> list[StoredKey]:
        """Return every key that can sign Kalshi requests, sorted by name."""

    def contents(self) -> Contents:
        """Return every key, as ``keys`` does, and the private halves that can't be used."""
        return Contents(self.keys(), [])

    def diagnose(self, keys: Sequence[StoredKey]) -> list[Check]:  # noqa: ARG002 - for stores that look at each key
        """Return the checks of ``doctor`` that are special to this kind of store; nothing is changed.

        Args:
            keys: The store's keys.
        """
        return []

    @abstractmethod
    def key(self, name: str) -> StoredKey:
        """Return the key with this name.

        During a rotation there is a moment in which no key has the name: then the successor is returned.

        Args:
            name: The key's name.

        Raises:
            KeyNotFoundError: If there is no such key.
            KeyAmbiguousError: If there are two.
            StoreError: If the store can't be reached.
        """

    def holds(self, name: str) -> bool:
        """Tell whether any object in the store has this name, even one that can't be used as a key for Kalshi."""
        return any(key.name == name for key in self.keys())

    @abstractmethod
    def generate(self, name: str, key_type: KeyType = KeyType.RSA_2048, environment: str | None = None) -> StoredKey:
        """Make a key pair inside the store and return it, minted.

        Args:
            name: Its name.
            key_type: Its type.
            environment: For which environment it is made, as for ``begin_registration``. The pair has this mark from
                its first moment: otherwise another run could find the pair and register it in another environment.

        Raises:
            KeyExistsError: If the name is taken.
            StoreError: If the store can't make such a key.
        """

    def generate_like(self, model: StoredKey, name: str) -> StoredKey:
        """Make a key pair of the same kind and environment as another one of this store, and return it, minted.

        Args:
            model: The other pair.
            name: The name of the new one.

        Raises:
            KeyExistsError: If the name is taken.
            StoreError: If the store can't make such a key.
        """
        return self.generate(name, model.key_type, model.environment)

    def begin_registration(
        self,
        key: StoredKey,
        environment: str,  # noqa: ARG002 - for stores that can keep it
        claim: Claim | None = None,  # noqa: ARG002 - as the environment
    ) -> StoredKey:
        """Write into a minted key's mark in which environment it is about to be registered, and return the key.

        A run that finds the key after a crash then knows in which environment Kalshi may know it. A store that can't
        keep the environment leaves it out. ``UNNAMED`` means that no environment was named. After the mark was written,
        the key's name is read: a run that is about to destroy a key changes its name first.

        Args:
            key: The key.
            environment: The environment.
            claim: What else this run is about to do: bind an API key that it found, or delete its own.

        Raises:
            KeyNotFoundError: If another run destroyed the key meanwhile.
            KeyBusyError: If another run registered or renamed it meanwhile: then it must not be registered.
        """
        return key

    @abstractmethod
    def bind(self, key: StoredKey, api_key_id: str, environment: str) -> StoredKey:
        """Write the API key id and its environment beside the private half, and return the registered key.

        A key that wasn't ours is ours afterwards.

        Args:
            key: The key.
            api_key_id: The API key id.
            environment: The environment of the API key, as ``environment_name`` gives it.

        Raises:
            StoreError: If the store can't write it.
        """

    @abstractmethod
    def destroy(self, key: StoredKey) -> None:
        """Destroy both halves. After ``deletion_days`` this can't be undone."""

    def confirm(self, key: StoredKey) -> None:  # noqa: B027 - in a store where names are unique, there is nothing to check
        """Check, before a new key is registered, that no other machine has made a key with its name meanwhile.

        Raises:
            KeyBusyError: If one has; this key was destroyed.
        """

    def mend(self, name: str) -> None:  # noqa: B027 - in a store without separate halves, there is nothing to repair
        """Give the public half the private half's label and mark again, if a crash left them different."""

    def clear(self, name: str) -> bool:  # noqa: ARG002 - for stores that make a key in several steps
        """Destroy what a run left that was killed while it made a key of this name. A key that can be used stays.

        Returns:
            Whether there was such a key.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Log out and close the store. Its keys can't sign afterwards. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        # An error while the store is being opened holds the store as it is then, perhaps without a URI.
        return f"{type(self).__name__}(uri={getattr(self, 'uri', '')!r})"
