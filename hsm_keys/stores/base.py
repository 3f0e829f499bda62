"""What every store of keys offers: the two classes that all else in this package works with."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self, cast, overload

from hsm_keys.errors import SigningError, UsageError
from hsm_keys.signing.algorithms import KeyType, PrivateKey, PublicKey, key_type_of, public_key_pem
from hsm_keys.signing.signer import RequestSigner, not_registered
from hsm_keys.stores.marks import FOREIGN, Mark
from hsm_keys.values import describe

if TYPE_CHECKING:
    from types import TracebackType

    from hsm_keys.signing.private_key import Ed25519KeyInStore, RSAKeyInStore
    from hsm_keys.stores.registered import RegisteredKey

__all__ = [
    "ENDING",
    "IMPORTING",
    "LOGIN_EACH_TIME",
    "MARKS",
    "RETIRED",
    "SUCCESSOR",
    "Contents",
    "CustodyFact",
    "KeyImports",
    "KeyState",
    "KeyStore",
    "PendingImport",
    "StoreFinding",
    "StoredKey",
    "Unusable",
    "Verdict",
    "check_label",
    "check_new_name",
    "is_marked",
]

IMPORTING: Final = "+importing"
"""What follows NAME in the name of a throwaway key, while a key made elsewhere is on its way into the store."""

SUCCESSOR: Final = "+next"
"""What follows NAME in the name of the key that is to replace it."""

RETIRED: Final = "+retired"
"""What follows NAME in the name of the key that it replaced, until that is destroyed."""

ENDING: Final = "+ending"
"""What follows NAME in the name of a key that deletes its own API key, since no other one can: it had been listed."""

MARKS: Final = "next|retired|importing|ending|kept-[A-Za-z0-9]{1,20}"
"""A regular expression for what may follow NAME and a ``+``: a workflow has the key in hand, or has had."""

LOGIN_EACH_TIME: Final = (
    "each signature with it takes a login of its own (CKA_ALWAYS_AUTHENTICATE): "
    "two PKCS#11 calls more, with the PIN that is kept"
)
"""What a key's attribute ``always_authenticate`` means for its user."""

# "+" marks a key that a workflow has in hand, "/" separates alias parts on KMS.
_NEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MARK = re.compile(MARKS)


class KeyState(StrEnum):
    """How far a key has come: made in the store, or known to Kalshi too; or somebody else's."""

    MINTED = "minted"
    REGISTERED = "registered"
    FOREIGN = "not ours"


class Verdict(StrEnum):
    """What a fact says about custody."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"
    """The store doesn't say, or what it says proves nothing either way."""


@dataclass(frozen=True, slots=True)
class CustodyFact:
    """One thing that the store says, or that was tried against it.

    Args:
        name: Stable name in snake case, such as ``extractable``.
        value: What the store answered; None where it says nothing.
        verdict: Whether that is what custody needs.
        note: A sentence for people: why it is bad, or what was tried.
    """

    name: str
    value: bool | str | None
    verdict: Verdict
    note: str = ""


def check_new_name(name: str) -> str:
    """Return the name if a new key may carry it.

    Raises:
        UsageError: If it isn't 1 to 64 letters, digits, dots, dashes and underscores, starting with a
            letter or digit.
    """
    if not _NEW_NAME.fullmatch(name):
        raise UsageError(
            f"{describe(name)} can't name a key",
            hint="use 1 to 64 letters, digits, '.', '-' and '_', starting with a letter or digit",
        )
    return name


def check_label(label: str) -> str:
    """Return the label if a key in a store may carry it: a name, or one that a workflow has marked.

    Raises:
        UsageError: If it is neither.
    """
    name, plus, mark = label.partition("+")
    check_new_name(name)
    if plus and not _MARK.fullmatch(mark):
        raise UsageError(
            f"{describe(label)} can't name a key", hint="'+' is for the marks of a rotation, such as prod+next"
        )
    return label


def is_marked(name: str) -> bool:
    """Tell whether a name is one that a workflow gives to a key which it has in hand."""
    return _MARK.fullmatch(name.partition("+")[2]) is not None


@dataclass(frozen=True, slots=True)
class StoreFinding:
    """One thing that a store found out about itself, for ``doctor``.

    Args:
        name: Stable name.
        verdict: ``ok``, ``warning`` or ``problem``.
        message: What was found.
        remedy: What to do about it; empty if nothing.
    """

    name: str
    verdict: Literal["ok", "warning", "problem"]
    message: str
    remedy: str = ""


class StoredKey(ABC):
    """A key pair whose private half lives in a store. Immutable: the store hands out a new one on change.

    Attributes:
        name: The key's name in its store.
        api_key_id: The id that Kalshi knows the public half by; None while the key is only minted, and for a key that
            isn't ours.
        environment: The environment in which it is registered, as ``environment_name`` gives it, or for which it is
            being imported; else None.
        ours: Whether hsm-keys has marked the key, by making or by adopting it. One that isn't ours signs where an API
            key id is given, and is never changed, renamed or ended.
        doubt: Why a mark of ours that the key carries isn't believed; empty if it carries none, or it is.
        uri: Where the key lives; never holds a PIN.
    """

    name: str
    api_key_id: str | None
    environment: str | None
    ours: bool
    doubt: str = ""
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
        """Return what the store says about the private half; None where it doesn't say."""

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
            SigningError: If the store signs whole messages only, as KMS does under the policies of this package.
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


@dataclass(frozen=True, slots=True)
class PendingImport:
    """An import that was prepared and not ended: what an interrupted run left.

    Args:
        key_type: What was to be imported.
        key: The imported key; None while nothing was.
        environment: The environment of Kalshi that was to make it; None if the mark doesn't say.
    """

    key_type: KeyType
    key: StoredKey | None
    environment: str | None


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


class KeyImports(ABC):
    """The way into a store for private halves that were made elsewhere, in steps that a crash may part.

    ``prepare`` leaves a lasting mark, ``put`` puts the key in, ``end`` removes the mark. Use one object for all three.
    """

    @abstractmethod
    def pending(self, name: str) -> PendingImport | None:
        """Return what is left of an import under that name that was prepared and not ended; None if none was."""

    @abstractmethod
    def prepare(self, name: str, key_type: KeyType, environment: str) -> StoredKey | None:
        """Leave a lasting mark that a key of that name is about to come, and that the store takes such keys.

        Safe to repeat: a mark that is there already is taken, or replaced.

        Args:
            name: The key's name.
            key_type: What is to be imported.
            environment: The environment of Kalshi that is to make it, as ``environment_name`` gives it.

        Returns:
            A throwaway key that was imported in the very same way, to judge by; None where the mark is none.

        Raises:
            UsageError: If the store can't have such a name.
            KeyExistsError: If the name is taken.
            StoreError: If the store takes no such key; nothing is left behind.
        """

    @abstractmethod
    def put(self, name: str, private_key: PrivateKey, api_key_id: str, environment: str) -> StoredKey:
        """Put the private half in, after ``prepare``; it doesn't come out again.

        Args:
            name: The key's name.
            private_key: The private half.
            api_key_id: The id that Kalshi knows it by.
            environment: The environment in which Kalshi does.

        Returns:
            The key; bound to the API key id already where the store does both in one step.

        Raises:
            StoreError: If the store refuses.
        """

    @abstractmethod
    def end(self, name: str) -> None:
        """Remove the mark; an imported key that is bound stays. Nothing happens if there is no mark."""


class KeyStore(ABC):
    """A place where private halves live. Use it as a context manager, or call ``close()``.

    Attributes:
        uri: Names the store; never holds a PIN.
        deletion_days: Days in which ``destroy`` can still be taken back; 0 where it is final at once.
    """

    uri: str
    deletion_days: ClassVar[int] = 0

    @abstractmethod
    def describe(self) -> str:
        """Return what people call this store, such as ``token "kalshi" (serial 4f1c...)``."""

    @abstractmethod
    def keys(self) -> list[StoredKey]:
        """Return every key that can sign Kalshi requests, sorted by name."""

    def contents(self) -> Contents:
        """Return every key, as ``keys`` does, and what can't be used beside them."""
        return Contents(self.keys(), [])

    def diagnose(self) -> list[StoreFinding]:
        """Look at what only this kind of store has, for ``doctor``; nothing is changed."""
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
    def generate(self, name: str, key_type: KeyType = KeyType.RSA_2048) -> StoredKey:
        """Make a key pair inside the store and return it, minted.

        Raises:
            KeyExistsError: If the name is taken.
            StoreError: If the store can't make such a key.
        """

    def generate_like(self, model: StoredKey, name: str) -> StoredKey:
        """Make a key pair like another one of this store, under a name of its own, and return it, minted.

        Raises:
            KeyExistsError: If the name is taken.
            StoreError: If the store can't make such a key.
        """
        return self.generate(name, model.key_type)

    @abstractmethod
    def rename(self, key: StoredKey, name: str) -> StoredKey:
        """Give a key another name, and return it. Killed half way, it can be called again.

        Raises:
            KeyExistsError: If another key has that name.
            StoreError: If the store doesn't let it be changed.
        """

    def hand_over(self, name: str, taker: StoredKey, leaver: StoredKey, mark: str) -> tuple[StoredKey, StoredKey]:
        """Give a name that one key has to another key. Killed half way, it can be called again.

        ``key(name)`` finds one of the two at every instant.

        Args:
            name: The name to hand over.
            taker: The key that gets it.
            leaver: The key that has it, or that is called ``name + mark`` already.
            mark: What the leaver's name ends in from now on: ``RETIRED`` or ``SUCCESSOR``.

        Returns:
            The taker and the leaver, under their new names.

        Raises:
            StoreError: If the store doesn't let names be changed.
        """
        left = self.rename(leaver, name + mark)
        return self.rename(taker, name), left

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
    def imports(self) -> KeyImports:
        """Return what puts private halves into this store that were made elsewhere."""

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
