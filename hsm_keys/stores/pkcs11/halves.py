"""Public halves as a token holds them, and the proof that one belongs to a private key.

A label and a CKA_ID prove nothing: two pairs can have the same, and whoever may write public objects can replace
the right one. So the key itself tells which public half belongs to it: an RSA private object has its modulus; for
Ed25519 a random text is signed, and the signature is verified with each public half that could be the right one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType as CkKeyType

from hsm_keys.errors import PinError, PinMissingError
from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.pkcs11.attributes import ED25519_OID, OCTET_STRING_32, read
from hsm_keys.stores.pkcs11.errors import is_gone, pin_problem, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hsm_keys.signing.algorithms import PublicKey

__all__ = ["NO_HALF", "Unpaired", "big_integer", "proved_half", "public_half", "public_template", "said_half"]

_DOMAIN: Final = b"hsm-keys pairing\0"  # Kalshi's messages begin with a digit: this can't be taken for a request
NO_HALF: Final = "the token holds no public half of it"
"""How the reason begins, where the token signs with a private key and nothing in it verifies that."""

_ED25519_LENGTH: Final = 32
_BIT_STRING_32: Final = bytes.fromhex("032100")
_SPKI_HEAD: Final = bytes.fromhex("302a3005") + ED25519_OID + _BIT_STRING_32  # RFC 8410, section 4
_BEFORE_POINT: Final = (b"", OCTET_STRING_32, _BIT_STRING_32, _SPKI_HEAD)
"""How modules write the point: bare, as a DER octet string (PKCS#11 v3.0), as a bit string, as SubjectPublicKeyInfo."""


class Unpaired(Exception):  # noqa: N818 - a state, not an error
    """A private key has no public half that was proved to be its own; the text says why.

    Args:
        reason: Why.
        pin_error: What to raise to whoever wants this very key, if it is the PIN that the proof fails for.
    """

    def __init__(self, reason: str, pin_error: PinError | None = None) -> None:
        super().__init__(reason)
        self.pin_error = pin_error


def public_half(obj: Any) -> PublicKey | None:
    """Return the public key that a public object or a certificate holds; None if it is no RSA or Ed25519 key."""
    if read(obj, Attribute.CLASS) == ObjectClass.CERTIFICATE:
        return _of_certificate(read(obj, Attribute.VALUE))
    return said_half(obj)


def public_template(public_key: PublicKey) -> dict[Attribute, Any]:
    """Return what a public object is created with, but for its names."""
    half: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass.PUBLIC_KEY}
    if isinstance(public_key, Ed25519PublicKey):
        half |= {Attribute.KEY_TYPE: CkKeyType.EC_EDWARDS, Attribute.EC_PARAMS: ED25519_OID}
        return {**half, Attribute.EC_POINT: OCTET_STRING_32 + public_key.public_bytes_raw()}
    numbers = public_key.public_numbers()
    return {
        **half,
        Attribute.KEY_TYPE: CkKeyType.RSA,
        Attribute.MODULUS: big_integer(numbers.n),
        Attribute.PUBLIC_EXPONENT: big_integer(numbers.e),
    }


def big_integer(number: int) -> bytes:
    """Return a Big integer of PKCS#11: most significant byte first, no leading zeros."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def said_half(obj: Any) -> PublicKey | None:
    """Return the public key that a key object says of itself; an Ed25519 private one usually doesn't."""
    if read(obj, Attribute.KEY_TYPE) == CkKeyType.RSA:
        return _rsa(read(obj, Attribute.MODULUS), read(obj, Attribute.PUBLIC_EXPONENT))
    return _ed25519(read(obj, Attribute.EC_POINT))


def _rsa(modulus: bytes | None, exponent: bytes | None) -> PublicKey | None:
    if not modulus or not exponent:
        return None
    try:
        return RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    except ValueError:
        return None


def _ed25519(point: bytes | None) -> PublicKey | None:
    # The curve's name isn't looked at: there are three spellings of it, and the signature tells.
    for before in _BEFORE_POINT if point else ():
        if point and len(point) == len(before) + _ED25519_LENGTH and point.startswith(before):
            return Ed25519PublicKey.from_public_bytes(point[len(before) :])
    return None


def _of_certificate(der: bytes | None) -> PublicKey | None:
    from cryptography import x509  # half of this module's time to load, for few tokens

    with suppress(ValueError, UnsupportedAlgorithm):
        key = x509.load_der_x509_certificate(der or b"").public_key()
        return key if isinstance(key, RSAPublicKey | Ed25519PublicKey) else None
    return None


def proved_half(private: Any, candidates: Iterable[PublicKey], sign: Callable[[Any, bytes], bytes]) -> PublicKey:
    """Return the candidate whose private half this is, by one signature of the token's.

    Args:
        private: The private object.
        candidates: Public keys, the likeliest first; they are asked for one by one.
        sign: Signs a text with a private object, as Kalshi wants it.

    Raises:
        Unpaired: If it is none of them, or the key doesn't sign.
        PKCS11Error: If the token is gone.
    """
    text, signature = _DOMAIN + os.urandom(32), None
    for candidate in candidates:
        if signature is None:
            signature = _signed(private, text, sign)
        if verifies(candidate, text, signature):
            return candidate
    raise Unpaired(NO_HALF + ("" if signature is None else " that fits it"))


def _signed(private: Any, text: bytes, sign: Callable[[Any, bytes], bytes]) -> bytes:
    if not hasattr(private, "sign"):  # python-pkcs11 leaves it out where CKA_SIGN is false
        raise Unpaired("the token says that it can't sign")
    try:
        return sign(private, text)
    except PinMissingError as error:
        raise Unpaired(error.message, error) from None
    except ckr.PKCS11Error as error:
        if is_gone(error):
            raise
        raise Unpaired(f"the token doesn't sign with it: {reason(error)}", pin_problem(error, "the token")) from None
