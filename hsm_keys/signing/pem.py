"""A private key in memory: the bootstrap key, with which an account starts before a key lives in hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hsm_keys.errors import UsageError
from hsm_keys.signing.algorithms import SALT_LENGTH, key_type_of
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.signing.pem_forms import PemFault, fault_in
from hsm_keys.values import Secret, hides_its_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.signing.algorithms import KeyType, PrivateKey, PublicKey

    Pem: TypeAlias = str | bytes | Secret

__all__ = ["PemKey", "load_private_key"]

_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=SALT_LENGTH)


class PemKey:
    """Signs with a private key in memory; shows nothing of it, and can't be pickled.

    Args:
        api_key_id: The id that Kalshi knows the key by.
        pem: PKCS#1 or PKCS#8 PEM of an RSA or Ed25519 key, encrypted or not.
        passphrase: Gives the passphrase; called only if the PEM is encrypted.

    Raises:
        UsageError: If the PEM can't be read, Kalshi takes no such key, or the id can't go into a header.
    """

    name = "bootstrap key"

    @hides_its_arguments
    def __init__(self, api_key_id: str, pem: Pem, passphrase: Callable[[], str] | None = None) -> None:
        self.api_key_id = check_api_key_id(api_key_id)
        self._key = load_private_key(pem, passphrase)

    @property
    def key_type(self) -> KeyType:
        """The key's type."""
        return key_type_of(self._key.public_key())

    def public_key(self) -> PublicKey:
        """Return the public half."""
        return self._key.public_key()

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature: RSASSA-PSS with SHA-256 and a salt of 32 bytes, or Ed25519."""
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(message)
        return self._key.sign(message, _PSS, hashes.SHA256())

    def __repr__(self) -> str:
        return f"PemKey(api_key_id={self.api_key_id!r})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a private key can't be pickled or copied")


def _bytes(secret: Pem) -> bytes:
    text = secret.reveal() if isinstance(secret, Secret) else secret
    # surrogateescape: text from the environment or a prompt goes back to the bytes that it was made of. The error
    # that encode() raises without it would carry the whole secret.
    return text if isinstance(text, bytes) else text.encode(errors="surrogateescape")


@hides_its_arguments
def load_private_key(pem: Pem, passphrase: Callable[[], str] | None = None) -> PrivateKey:
    """Return the private key in a PEM; no error shows anything of it.

    Args:
        pem: PKCS#1 or PKCS#8 PEM of an RSA or Ed25519 key, encrypted or not.
        passphrase: Gives the passphrase; called only if the PEM is encrypted.

    Raises:
        UsageError: If the PEM can't be read, or Kalshi takes no such key.
    """
    content = _bytes(pem)
    encrypted = b"ENCRYPTED" in content
    if encrypted and passphrase is None:
        raise UsageError("the private key is encrypted", hint="set KALSHI_PRIVATE_KEY_PASSPHRASE")
    password = _bytes(passphrase()) if encrypted and passphrase else None
    try:
        key = load_pem_private_key(content, password)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        # cryptography's message is dropped: it may quote the key.
        fault = fault_in(content)
        if encrypted and "damaged" in fault.what:
            fault = PemFault("wrong passphrase, or a damaged PEM", "see KALSHI_PRIVATE_KEY_PASSPHRASE")
        raise UsageError(f"the private key can't be read: {fault.what}", hint=fault.hint) from None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise UsageError(f"Kalshi takes no keys of the kind {type(key).__name__}", hint="use RSA or Ed25519")
    key_type_of(key.public_key())
    return key
