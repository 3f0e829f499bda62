"""The statement that an old key signs about its successor, in stores where other users may change names.

Whoever may change which key a name means could make a running program sign with another key. So in a rotation the old
key signs a statement about the new public half, and a program that has the old public half verifies it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import PublicKey

__all__ = ["spki", "statement_about"]

_PREFIX: Final = b"hsm-keys successor\0"  # Kalshi's messages begin with a digit: this can't be taken for a request


def spki(public_key: PublicKey) -> bytes:
    """Return a public half as SubjectPublicKeyInfo (RFC 5280, DER)."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def statement_about(successor: PublicKey) -> bytes:
    """Return what the old key signs about the public half of the new one."""
    return _PREFIX + spki(successor)
