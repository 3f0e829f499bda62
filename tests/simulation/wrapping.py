"""Wrapping for KMS and Vault that costs nothing: the private half goes as it is, marked as wrapped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import PrivateKey

# Nobody has its private half, and no factors are known: it is only looked at.
_WRAPPING_KEY: Final = RSAPublicNumbers(65537, (1 << 4095) + 3).public_key()
_FORM: Final = PublicFormat.SubjectPublicKeyInfo
WRAPPING_DER: Final = _WRAPPING_KEY.public_bytes(Encoding.DER, _FORM)
WRAPPING_PEM: Final = _WRAPPING_KEY.public_bytes(Encoding.PEM, _FORM).decode()
_MARK: Final = b"wrapped:"


def wrap(private_key: PrivateKey, wrapping_key: object, digest: object) -> Any:
    """Stand in for ``hsm_keys.signing.wrapping.wrap``."""
    assert isinstance(private_key, Ed25519PrivateKey)
    return SimpleNamespace(aes_key=_MARK, private_key=private_key.private_bytes_raw())


def unwrapped(wrapped: bytes) -> bytes:
    """Return the public half of what was wrapped."""
    assert wrapped.startswith(_MARK)
    private_key = Ed25519PrivateKey.from_private_bytes(wrapped.removeprefix(_MARK))
    return private_key.public_key().public_bytes_raw()
