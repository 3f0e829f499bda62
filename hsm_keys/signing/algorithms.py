"""The key types that Kalshi accepts, and the strict check of a signature.

RSA signs RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of exactly 32 bytes (RFC 8017, section 8.1);
Ed25519 signs the message as it is (RFC 8032, section 5.1).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from hsm_keys.errors import UsageError

__all__ = [
    "SALT_LENGTH",
    "KeyType",
    "PrivateKey",
    "PublicKey",
    "key_type_of",
    "public_key_pem",
    "signature_length",
    "verifies",
]

PublicKey: TypeAlias = RSAPublicKey | Ed25519PublicKey
PrivateKey: TypeAlias = RSAPrivateKey | Ed25519PrivateKey

SALT_LENGTH: Final = 32
"""Bytes of PSS salt: the length of a SHA-256 digest, and the only length that Kalshi documents."""

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=SALT_LENGTH)
_PREHASHED = Prehashed(hashes.SHA256())


class KeyType(StrEnum):
    """A key type; the value is its name on the command line."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    ED25519 = "ed25519"

    @property
    def rsa_bits(self) -> int | None:
        """Bits of the RSA modulus; None for Ed25519."""
        return None if self is KeyType.ED25519 else int(self.value.removeprefix("rsa-"))


def key_type_of(public_key: object) -> KeyType:
    """Return the type of a public key of ``cryptography``.

    Raises:
        UsageError: If Kalshi doesn't accept such a key.
    """
    if isinstance(public_key, Ed25519PublicKey):
        return KeyType.ED25519
    if isinstance(public_key, RSAPublicKey):
        try:
            return KeyType(f"rsa-{public_key.key_size}")
        except ValueError:
            raise UsageError(
                f"Kalshi takes no RSA keys of {public_key.key_size} bits",
                hint="use one of " + ", ".join(KeyType),
            ) from None
    raise UsageError(f"Kalshi takes no keys of the kind {type(public_key).__name__}", hint="use RSA or Ed25519")


def signature_length(public_key: PublicKey) -> int:
    """Return the length of a signature by this key's private half, in bytes."""
    return 64 if isinstance(public_key, Ed25519PublicKey) else (public_key.key_size + 7) // 8


def public_key_pem(public_key: PublicKey) -> str:
    """Return the SubjectPublicKeyInfo PEM (RFC 5280, section 4.1.2.7; RFC 7468, section 13)."""
    return public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode(
        "ascii"
    )


def verifies(public_key: PublicKey, message: bytes, signature: bytes, *, digest: bool = False) -> bool:
    """Tell whether a signature is valid and Kalshi accepts it: for RSA, with a salt of exactly 32 bytes.

    Args:
        public_key: The public half.
        message: The signed message; its SHA-256 digest if ``digest`` (RSA only).
        signature: The signature.
        digest: Whether ``message`` is a digest.
    """
    try:
        if isinstance(public_key, Ed25519PublicKey):
            public_key.verify(signature, message)
        else:
            public_key.verify(signature, message, _PSS, _PREHASHED if digest else hashes.SHA256())
    except InvalidSignature:
        return False
    return True
