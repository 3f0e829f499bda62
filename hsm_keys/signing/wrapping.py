"""Wraps a private key for its import into a store, so that only the owner of the store's RSA key can unwrap it.

The scheme is CKM_RSA_AES_KEY_WRAP (PKCS#11 v2.40, section 2.1.21), which KMS calls RSA_AES_KEY_WRAP: an AES key made
for this one use is encrypted with RSAES-OAEP (RFC 8017, section 7.1), and wraps the key's PKCS#8 with AES key wrap
with padding (RFC 5649).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from hsm_keys.signing.algorithms import PrivateKey

__all__ = ["Wrapped", "wrap"]

_AES_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A private key, wrapped.

    Args:
        aes_key: The AES key, encrypted with RSAES-OAEP: as long as the RSA modulus.
        private_key: The PKCS#8 (RFC 5958, DER), wrapped with the AES key.
    """

    aes_key: bytes = field(repr=False)
    private_key: bytes = field(repr=False)


def wrap(private_key: PrivateKey, wrapping_key: RSAPublicKey, digest: hashes.HashAlgorithm) -> Wrapped:
    """Wrap a private key for the holder of an RSA key.

    Args:
        private_key: What is to be wrapped.
        wrapping_key: The holder's public half.
        digest: The hash of OAEP and of its MGF1.
    """
    aes_key = os.urandom(_AES_BYTES)
    pkcs8 = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return Wrapped(
        aes_key=wrapping_key.encrypt(aes_key, padding.OAEP(padding.MGF1(digest), digest, None)),
        private_key=aes_key_wrap_with_padding(aes_key, pkcs8),
    )
