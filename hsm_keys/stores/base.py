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
    """How far a key has come: made in the store, or known to Kalshi too; or somebody else's."""

    MINTED = "minted"
    REGISTERED = "registered"
    FOREIGN = "not ours"


class StoredKey(ABC):
    """A key pair whose private half lives in a store. Immutable: the store hands out a new one on change.

    Attributes:
        name: The key's name in its store.
        api_key_id: The id that Kalshi knows the public half by; None while the key is only minted, and for a key that
            isn't ours.
        environment: The environment in which it is registered, as ``environment_name`` gives it, or was about to be,
            or for which it was made or is being imported; else None.
        ours: Whether hsm-keys has marked the key, by making or by adopting it. One that isn't ours signs where an API
            key id is given, and is never changed, renamed or ended.
        doubt: Why a mark of ours that the key carries isn't believed; empty if it carries none, or it is.
        offered: Whether its public half was printed, to be registered by hand in an environment that nobody named, and
            it isn't bound yet: Kalshi may know it in any.
        importing: Whether it was made by Kalshi, and its import hasn't ended.
        registering: Whether it was about to be registered, and isn't bound yet: Kalshi may know it.
        claim: What the last run was about to do with an API key of such a key; None if it was about to register it.
        uri: Where the key lives; never holds a PIN.
    """

    name: str
    api_key_id: str | None
    environment: str | None
    ours: bool
    doubt: str = ""
    offered: bool = False
    importing: bool = False
    registering: bool = False
    claim: Claim | None = None
    uri: str

    @property
    def state(self) -> KeyState:
        """Minted, registered or not ours, read off the store."""
        if not self.ours:
            return KeyState.FOREIGN
        return KeyState.MINTED if self.api_key_id is None else KeyState.REGISTERED

    @property
    def key_type(self) -> KeyType:
        """The key's type."""
        return key_type_of(self.public_key())

    @abstractmethod
    def public_key(self) -> PublicKey:
        """Return the public half."""

    def public_pem(self) -> str:
        """Return the public half as SubjectPublicKeyInfo PEM, ending in a newline."""
        return public_key_pem(self.public_key())

    @abstractmethod
    def attributes(self) -> dict[str, bool | str | int | None]:
        """Return what the store says about the private half; None where it doesn't say.

        ``creation_date``, where it is there, is ISO 8601; the other names are the store's.
        """

    def condition(self) -> Condition:
        """Return whether the key can be used now, as its store says; asked where it has refused to sign.

        Raises:
            StoreError: If the store can't be reached.
        """
        return Condition()

    def remarks(self) -> list[str]:
        """Return what whoever signs with the key should know of it, in clauses."""
        return []

    @abstractmethod
    def custody_facts(self) -> list[CustodyFact]:
        """Return what speaks for and against custody: what the store says, and what it refused when tried."""

    @abstractmethod
    def sign(self, message: bytes, /) -> bytes:
        """Return the signature over the message: RSASSA-PSS (SHA-256, salt 32 bytes), or Ed25519.

        Raises:
            StoreError: If the store can't be reached.
            SigningError: If it refuses, or answers with something that isn't a signature.
        """

    def sign_digest(self, digest: bytes, /) -> bytes:
        """Return the RSASSA-PSS signature over a SHA-256 digest of 32 bytes that was made outside.

        Raises:
            SigningError: If the store signs whole messages only.
        """
        raise SigningError(
            f"the store of {self.name!r} takes no digest of {len(digest)} bytes: it signs whole messages",
            hint="sign the message with SHA256() instead of Prehashed(SHA256())",
        )

    def registered(self) -> RegisteredKey:
        """Return this key; to type checkers, and in fact, its ``api_key_id`` is there.

        Raises:
            KeyNotRegisteredError: If it isn't.
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
        """Return the key in the shape of cryptography's ``RSAPrivateKey`` or ``Ed25519PrivateKey``.

        It signs in the store. What Kalshi's SDKs take as a private key takes this object in its place.

        Args:
            kind: ``rsa`` or ``ed25519``, for a program that takes no other; by default whatever it is.

        Raises:
            UsageError: If it is of the other kind.
        """
        from hsm_keys.signing.private_key import Ed25519KeyInStore, RSAKeyInStore, private_key_of

        if kind is None:
            return private_key_of(self)
        return RSAKeyInStore(self) if kind == "rsa" else Ed25519KeyInStore(self)

    @takes_no_private_key
    def signer(self, *, api_key_id: str | None = None) -> RequestSigner:
        """Return what signs Kalshi requests with this key, or with the one that has its name after a rotation.

        Args:
            api_key_id: Overrides the id in the store, for keys whose store can't hold one. Such a signer stays
                with its key.

        Raises:
            KeyNotRegisteredError: If there is no API key id.
        """
        return RequestSigner(self, api_key_id=api_key_id, follow=None if api_key_id else self.current)

    def current(self) -> StoredKey:
        """Return the key that carries this key's name now: another one after a rotation.

        Raises:
            KeyNotFoundError: If none does.
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
    """A private half that a store holds, and that can't be used.

    Args:
        name: What the store calls it.
        problem: Why; a clause.
        mark: What the store says of it.
    """

    name: str
    problem: str
    mark: Mark = FOREIGN


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
    """A place where private halves live. Use it as a context manager, or call ``close()``.

    Attributes:
        uri: Names the store; never holds a PIN.
        deletion_days: Days in which ``destroy`` can still be taken back; 0 where it is final at once.
        cancels_deletion: What takes it back, a command of the store's own tool; empty where it is final at once.
    """

    uri: str
    deletion_days: ClassVar[int] = 0
    cancels_deletion: ClassVar[str] = ""

    def refusal(self) -> UsageError | None:
        """Return what to say of a store that changes no keys at all; None for any other."""
        return None

    def software(self) -> str:
        """Return what runs the store, with its version; empty where that isn't told."""
        return ""

    @abstractmethod
    def describe(self) -> str:
        """Return what people call this store, such as ``token "kalshi" (serial 4f1c...)``."""

    @abstractmethod
    def keys(self) -> list[StoredKey]:
        """Return every key that can sign Kalshi requests, sorted by name."""

    def contents(self) -> Contents:
        """Return every key, as ``keys`` does, and what can't be used beside them."""
        return Contents(self.keys(), [])

    def diagnose(self, keys: Sequence[StoredKey]) -> list[Check]:  # noqa: ARG002 - for stores that look at each key
        """Look at what only this kind of store has, for ``doctor``; nothing is changed.

        Args:
            keys: The store's keys.
        """
        return []

    @abstractmethod
    def key(self, name: str) -> StoredKey:
        """Return the key of that name.

        While a rotation hands the name over, for an instant no key carries it: the successor is given then.

        Raises:
            KeyNotFoundError: If there is none.
            KeyAmbiguousError: If there are two.
        """

    def holds(self, name: str) -> bool:
        """Tell whether anything in the store has that name, also what can't be used as a key for Kalshi."""
        return any(key.name == name for key in self.keys())

    @abstractmethod
    def generate(self, name: str, key_type: KeyType = KeyType.RSA_2048, environment: str | None = None) -> StoredKey:
        """Make a key pair inside the store and return it, minted.

        Args:
            name: Its name.
            key_type: Its type.
            environment: For which environment it is made, as for ``begin_registration``. The pair is marked so from its
                first moment: else somebody who finds it then could register it in another one.

        Raises:
            KeyExistsError: If the name is taken.
            StoreError: If the store can't make such a key.
        """

    def generate_like(self, model: StoredKey, name: str) -> StoredKey:
        """Make a key pair like another one of this store, for its environment, and return it, minted.

        Args:
            model: The other one.
            name: The new one's name.

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
        """Write beside a minted key in which environment it is about to be registered, and return it so marked.

        So whoever finds it after a crash knows where Kalshi may know it. A store that can't keep it leaves it out.
        ``UNNAMED`` stands for an environment that nobody named. Once it is written, the key's name is looked at:
        whoever is about to destroy a key changes that first.

        Args:
            key: The key.
            environment: The environment.
            claim: What else this run is about to do: bind an API key that it has found, or delete its own.

        Raises:
            KeyNotFoundError: If somebody destroyed the key meanwhile.
            KeyBusyError: If somebody registered it meanwhile, or gave it another name: it must not be registered then.
        """
        return key

    @abstractmethod
    def bind(self, key: StoredKey, api_key_id: str, environment: str) -> StoredKey:
        """Write the API key id and its environment beside the private half, and return the key as registered.

        Whoever calls this with a key that isn't ours makes it ours.

        Args:
            key: The key.
            api_key_id: The id.
            environment: Where Kalshi knows it, as ``environment_name`` gives it.

        Raises:
            StoreError: If the store doesn't let it be written.
        """

    @abstractmethod
    def destroy(self, key: StoredKey) -> None:
        """Destroy both halves. There is no way back, after ``deletion_days`` at the latest."""

    def confirm(self, key: StoredKey) -> None:  # noqa: B027 - where a name leads to one key, there is nothing to see
        """Make sure, before a new key is registered, that no other machine has made one of its name meanwhile.

        Raises:
            KeyBusyError: If one has; this key is destroyed.
        """

    def mend(self, name: str) -> None:  # noqa: B027 - where a key is one thing, there is nothing to mend
        """Bring the two halves of a key in line again, where a crash parted them; the private one counts."""

    def clear(self, name: str) -> bool:  # noqa: ARG002 - for stores where a key exists before it has its name
        """Destroy a key that was made to get that name, and never got it. A key that has the name stays.

        Returns:
            Whether there was one.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Log out and let go of the store. Signing with its keys ends here. Safe to call twice."""

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
        # An error on the way to an open store takes the store home as it is then.
        return f"{type(self).__name__}(uri={getattr(self, 'uri', '')!r})"
