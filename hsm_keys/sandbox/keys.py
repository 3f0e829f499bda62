"""Key material: reading public keys, making pairs, verifying. Only ``cryptography`` decides."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from typing import Final, Literal, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

__all__ = [
    "KEY_TYPES",
    "KeyType",
    "PublicKey",
    "generate_pair",
    "key_type_of",
    "parse_public_key",
    "public_pem",
    "verifies",
]

PublicKey: TypeAlias = rsa.RSAPublicKey | Ed25519PublicKey
KeyType: TypeAlias = Literal["rsa", "ed25519"]

KEY_TYPES: Final[tuple[KeyType, ...]] = ("rsa", "ed25519")
"""The OpenAPI's ApiKeyType."""

_RSA_BITS: Final = frozenset({2048, 3072, 4096})
"""Kalshi documents 2048. Whether it takes the larger ones is unknown; here they pass."""

_PEM: Final = re.compile(r"\s*-----BEGIN PUBLIC KEY-----\r?\n([A-Za-z0-9+/=\r\n]+?)\r?\n-----END PUBLIC KEY-----\s*")


def parse_public_key(pem: str) -> PublicKey:
    """Read a SubjectPublicKeyInfo PEM (RFC 7468, section 13) of an RSA or Ed25519 key, and nothing else.

    Raises:
        ValueError: With what is wrong, and never any of the text: it may be a private key.
    """
    match = _PEM.fullmatch(pem)
    if match is None:
        raise ValueError("public_key must be one PEM block that begins with -----BEGIN PUBLIC KEY-----")
    try:
        der = b64decode("".join(match[1].split()), validate=True)
        key = load_der_public_key(der)
    except (Base64Error, ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("public_key doesn't hold a public key") from None
    if not isinstance(key, PublicKey):
        raise ValueError("public_key must be an RSA or an Ed25519 key")  # noqa: TRY004 - it is the value that is wrong
    if isinstance(key, rsa.RSAPublicKey) and key.key_size not in _RSA_BITS:
        raise ValueError("an RSA public_key must have 2048, 3072 or 4096 bits")
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != der:
        # PKCS#1 under the wrong label, the RSASSA-PSS identifier, trailing bytes: other parsers refuse these.
        raise ValueError("public_key isn't a plain SubjectPublicKeyInfo of an RSA or Ed25519 key")
    return key


def public_pem(key: PublicKey) -> str:
    """Return the SubjectPublicKeyInfo PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def key_type_of(key: PublicKey) -> KeyType:
    """Return Kalshi's word for the kind of key."""
    return "rsa" if isinstance(key, rsa.RSAPublicKey) else "ed25519"


def generate_pair(key_type: KeyType) -> tuple[str, PublicKey]:
    """Make a pair as Kalshi's generate does; about 100 ms for RSA.

    Returns:
        The private key as PEM, PKCS#1 for RSA-2048 and PKCS#8 for Ed25519, and the public key.
    """
    private: rsa.RSAPrivateKey | Ed25519PrivateKey
    if key_type == "rsa":
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        encoding = PrivateFormat.TraditionalOpenSSL
    else:
        private = Ed25519PrivateKey.generate()
        encoding = PrivateFormat.PKCS8
    return private.private_bytes(Encoding.PEM, encoding, NoEncryption()).decode("ascii"), private.public_key()


def verifies(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Tell whether a signature is good: RSASSA-PSS with SHA-256, MGF1-SHA-256 and a salt of exactly 32, or Ed25519."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
            key.verify(signature, message, pss, hashes.SHA256())
        else:
            key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
