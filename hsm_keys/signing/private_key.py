"""Keys in a store as private key objects of ``cryptography``: code that takes such an object can sign in the token.

They only sign: a call that would need the private half in memory is refused.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed

from hsm_keys.errors import CustodyError, UsageError
from hsm_keys.signing.algorithms import SALT_LENGTH
from hsm_keys.signing.signer import MessageSigner

if TYPE_CHECKING:
    from cryptography.hazmat.primitives._asymmetric import AsymmetricPadding

    from hsm_keys.signing.algorithms import PublicKey

__all__ = ["Ed25519KeyInStore", "KeyInStore", "RSAKeyInStore", "private_key_of"]

_KINDS: Final = "docs/sdks.md says which programs take which keys; `enroll --key-type` makes either"
_log: Final = logging.getLogger(__name__)

_HINT: Final = "sign as Kalshi wants it: padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH) with SHA256()"


class KeyInStore(MessageSigner, Protocol):
    """What a private key object is made over: a key in a store."""

    def public_key(self) -> PublicKey:
        """Return the public half."""

    def sign_digest(self, digest: bytes, /) -> bytes:
        """Return the RSASSA-PSS signature over a SHA-256 digest that was made outside."""


class _InStore:
    """What both types share: a name to show, and everything that is refused."""

    _key: KeyInStore

    def _refuse(self, what: str) -> NoReturn:
        raise CustodyError(
            f"the private half of {self._key.name!r} can't be {what}: it doesn't leave its store",
            hint="this key signs, and does nothing else",
        )

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> NoReturn:  # noqa: A002, ARG002
        """Refuse: the private half doesn't leave its store."""
        self._refuse("exported")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a private key in a store can't be pickled: open the store in the other process")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self._key.name!r})"


class RSAKeyInStore(_InStore, RSAPrivateKey):
    """An ``RSAPrivateKey`` that signs in the store.

    Args:
        key: The key in the store.
    """

    def __init__(self, key: KeyInStore) -> None:
        public_key = key.public_key()
        if not isinstance(public_key, RSAPublicKey):
            raise UsageError(f"the key {key.name!r} is no RSA key", hint=_KINDS)
        self._key = key
        self._public_key = public_key

    @property
    def key_size(self) -> int:
        """Bits of the modulus."""
        return self._public_key.key_size

    def public_key(self) -> RSAPublicKey:
        """Return the public half."""
        return self._public_key

    def sign(
        self,
        data: bytes,
        padding: AsymmetricPadding,
        algorithm: Prehashed | hashes.HashAlgorithm | NoDigestInfo,
    ) -> bytes:
        """Return the signature, made in the store.

        Args:
            data: The message; a SHA-256 digest with ``Prehashed(SHA256())``, where the store takes one.
            padding: PSS with MGF1 over SHA-256 and a salt of ``PSS.DIGEST_LENGTH`` or 32 bytes (RFC 8017, section 8.1).
                The longest salt (``PSS.MAX_LENGTH``) is taken for 32 bytes: who verifies that takes any length.
            algorithm: SHA-256.

        Raises:
            UsageError: If padding or hash are others.
            HsmKeysError: Whatever the store raises when it can't sign.
        """
        _check_padding(padding, self._public_key, self._key.name)
        if isinstance(algorithm, hashes.SHA256):
            return self._key.sign(_bytes(data))
        if isinstance(algorithm, Prehashed) and isinstance(algorithm._algorithm, hashes.SHA256):  # noqa: SLF001 - it has no other name
            if len(data) != hashes.SHA256.digest_size:
                raise UsageError(f"a SHA-256 digest has 32 bytes, and this one has {len(data)}", hint=_HINT)
            return self._key.sign_digest(_bytes(data))
        raise UsageError(f"the hash {type(algorithm).__name__} isn't the one that Kalshi verifies", hint=_HINT)

    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> NoReturn:  # noqa: ARG002
        """Refuse: the key only signs."""
        self._refuse("used to decrypt")

    def private_numbers(self) -> NoReturn:
        """Refuse: the private half doesn't leave its store."""
        self._refuse("read")


def _bytes(data: object) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"a message to sign is bytes, not {type(data).__name__}")
    return bytes(data)


# cryptography's marks for a salt's length. They are compared by their type: a padding that was copied or unpickled has
# another object of it.
_DIGEST_LENGTH: Final = type(paddings.PSS.DIGEST_LENGTH)
_MAX_LENGTH: Final = type(paddings.PSS.MAX_LENGTH)


def _check_padding(padding: AsymmetricPadding, key: RSAPublicKey, name: str) -> None:
    if not isinstance(padding, paddings.PSS):
        raise UsageError(f"the padding {type(padding).__name__} isn't the one that Kalshi verifies", hint=_HINT)
    mgf = padding._mgf  # noqa: SLF001 - cryptography gives the parts of a padding no other name
    if not isinstance(mgf, paddings.MGF1) or not isinstance(mgf._algorithm, hashes.SHA256):  # noqa: SLF001
        raise UsageError("PSS with another MGF than MGF1 over SHA-256 isn't what Kalshi verifies", hint=_HINT)
    salt = padding._salt_length  # noqa: SLF001
    if isinstance(salt, _DIGEST_LENGTH) or salt == SALT_LENGTH:
        return
    if isinstance(salt, _MAX_LENGTH) or salt == paddings.calculate_max_pss_salt_length(key, hashes.SHA256()):
        _note_shorter_salt(name)
        return
    shown = salt if isinstance(salt, int) else type(salt).__name__
    raise UsageError(f"a PSS salt of {shown} isn't the 32 bytes that Kalshi verifies", hint=_HINT)


@cache
def _note_shorter_salt(name: str) -> None:
    _log.warning(
        "a program asks for the longest PSS salt for %r and gets one of 32 bytes, the length that Kalshi documents",
        name,
    )


class Ed25519KeyInStore(_InStore, Ed25519PrivateKey):
    """An ``Ed25519PrivateKey`` that signs in the store.

    Args:
        key: The key in the store.
    """

    def __init__(self, key: KeyInStore) -> None:
        public_key = key.public_key()
        if not isinstance(public_key, Ed25519PublicKey):
            raise UsageError(f"the key {key.name!r} is no Ed25519 key", hint=_KINDS)
        self._key = key
        self._public_key = public_key

    def public_key(self) -> Ed25519PublicKey:
        """Return the public half."""
        return self._public_key

    def sign(self, data: Any) -> bytes:
        """Return the signature (RFC 8032), made in the store.

        Raises:
            HsmKeysError: Whatever the store raises when it can't sign.
        """
        return self._key.sign(_bytes(data))

    def private_bytes_raw(self) -> NoReturn:
        """Refuse: the private half doesn't leave its store."""
        self._refuse("exported")


def private_key_of(key: KeyInStore) -> RSAKeyInStore | Ed25519KeyInStore:
    """Return the key as an object of cryptography's, of the type that fits."""
    return Ed25519KeyInStore(key) if isinstance(key.public_key(), Ed25519PublicKey) else RSAKeyInStore(key)
