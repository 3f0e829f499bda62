"""Reading key objects: labels, ids and public halves.

Everything is read tolerantly: modules leave attributes out, and what they do say is their word, not proof.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from pkcs11 import _pkcs11
from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType as CkKeyType

from hsm_keys.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.signing.algorithms import PublicKey

__all__ = [
    "NOT_SAID",
    "Pair",
    "find",
    "pairs",
    "private_keys",
    "public_key_of",
    "public_objects",
    "read",
    "required",
]

_LOOKS: Final = 3
_BATCH: Final = 10
_ED25519_LENGTH: Final = 32
_OCTET_STRING_32: Final = b"\x04\x20"
_ED25519_PARAMS: Final = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")

NOT_SAID: Final = (
    ckr.AttributeSensitive,
    ckr.AttributeTypeInvalid,
    ckr.AttributeValueInvalid,
    ckr.FunctionFailed,
    ckr.FunctionNotSupported,
    NotImplementedError,
    ValueError,  # a value that isn't of the attribute's type: text that isn't UTF-8, an unknown enum
    struct.error,
)


def read(obj: Any, attribute: Attribute) -> Any:
    """Return the attribute's value; None where the module doesn't say."""
    try:
        return obj[attribute]
    except NOT_SAID:
        return None


def find(session: Any, template: dict[Attribute, Any]) -> list[Any]:
    """Return all matching objects; hold the module's mutex. An iterator left half-used blocks other threads.

    Another program may destroy an object while they are listed; then they are listed again.
    """
    for _ in range(_LOOKS):
        with suppress(ckr.ObjectHandleInvalid):
            return _searched(session, template)
    return _searched(session, template)


def _drop(search: Any) -> None:
    with suppress(ckr.PKCS11Error):
        search._finalize()  # noqa: SLF001 - its own destructor calls nothing else


# A search that is dropped half done, because the module went away, raises where Python can only print it.
_SearchIter: Any = vars(_pkcs11)["SearchIter"]
_Search: Any = type("_Search", (_SearchIter,), {"__del__": _drop})


def _searched(session: Any, template: dict[Attribute, Any]) -> list[Any]:
    with _Search(session, template, _BATCH) as search:
        return [found for batch in search for found in batch]


def private_keys(session: Any, label: str | None = None) -> list[Any]:
    """Return the private keys, of that label if one is given; hold the module's mutex."""
    template: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
    if label is not None:
        template[Attribute.LABEL] = label
    return find(session, template)


def public_key_of(session: Any, private: Any) -> PublicKey | None:
    """Return the public half of a private key object; hold the module's mutex.

    An RSA private key object holds modulus and exponent itself. Where it doesn't, and for Ed25519, the public
    object with the same CKA_ID is read, else the one of the same label.

    Returns:
        The public key; None if it isn't to be found, or isn't of a type that Kalshi takes.
    """
    key_type = read(private, Attribute.KEY_TYPE)
    if key_type not in {CkKeyType.RSA, CkKeyType.EC_EDWARDS}:
        return None
    decode = _rsa_public_key if key_type == CkKeyType.RSA else _ed25519_public_key
    candidates = [private] if key_type == CkKeyType.RSA else []
    for candidate in [*candidates, *public_objects(session, private, key_type)]:
        public_key = decode(candidate)
        if public_key is not None:
            return public_key
    return None


def public_objects(session: Any, private: Any, key_type: CkKeyType) -> list[Any]:
    """Return the public key objects that belong to a private one: by CKA_ID, else by label.

    A crash while a key is renamed leaves two labels and one CKA_ID; one while it is bound, the reverse.
    """
    kind: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: key_type}
    private_id, label = read(private, Attribute.ID), read(private, Attribute.LABEL)
    same_id = find(session, {**kind, Attribute.ID: private_id}) if private_id else []
    return same_id or find(session, {**kind, Attribute.LABEL: label})


def _rsa_public_key(obj: Any) -> PublicKey | None:
    modulus, exponent = read(obj, Attribute.MODULUS), read(obj, Attribute.PUBLIC_EXPONENT)
    if not modulus or not exponent:
        return None
    try:
        return RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    except ValueError:
        return None


def _ed25519_public_key(obj: Any) -> PublicKey | None:
    if read(obj, Attribute.EC_PARAMS) not in _ED25519_PARAMS:
        return None
    # PKCS#11 v3.0 wants the point as a DER octet string; some modules give it bare.
    point = read(obj, Attribute.EC_POINT) or b""
    if len(point) == _ED25519_LENGTH + len(_OCTET_STRING_32):
        point = point.removeprefix(_OCTET_STRING_32)
    return Ed25519PublicKey.from_public_bytes(point) if len(point) == _ED25519_LENGTH else None


@dataclass(frozen=True, slots=True)
class Pair:
    """What a token holds of a key pair: the private object's label and CKA_ID, and the public half if it is shown."""

    label: str | None
    cka_id: bytes | None
    public_key: PublicKey | None


def pairs(session: Any, label: str | None = None) -> Iterator[Pair]:
    """Yield the pairs, of that label if one is given, without those that vanish meanwhile; hold the module's mutex."""
    for private in private_keys(session, label):
        with suppress(ckr.ObjectHandleInvalid):
            yield Pair(read(private, Attribute.LABEL), read(private, Attribute.ID), public_key_of(session, private))


def required(public_key: PublicKey | None, name: str) -> PublicKey:
    """Return the public half.

    Raises:
        StoreError: If the token doesn't show it.
    """
    if public_key is None:
        raise StoreError(
            f"the token holds a private key {name!r}, but no public half that Kalshi takes",
            hint="Kalshi takes RSA (2048, 3072, 4096 bits) and Ed25519; destroy the key and enroll anew",
        )
    return public_key
