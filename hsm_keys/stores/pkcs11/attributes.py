"""Reads attributes of objects. Modules may leave some out, and the values that they give aren't proof."""

from __future__ import annotations

import struct
from typing import Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.attributes import AttributeMapper
from pkcs11.constants import Attribute

__all__ = ["ED25519_OID", "NOT_SAID", "OCTET_STRING_32", "Mapper", "read", "read_or_none"]

ED25519_OID: Final = bytes.fromhex("06032b6570")
"""CKA_EC_PARAMS of an Ed25519 key: 1.3.101.112 (RFC 8410, section 3) in DER."""

OCTET_STRING_32: Final = b"\x04\x20"
"""What comes before 32 bytes in DER: CKA_EC_POINT is such a string (PKCS#11 v3.0, section 2.3.5)."""

NOT_SAID: Final = (
    ckr.AttributeSensitive,
    ckr.AttributeTypeInvalid,
    ckr.AttributeValueInvalid,
    ckr.FunctionFailed,
    ckr.FunctionNotSupported,
    NotImplementedError,
    ValueError,  # a value that isn't of the attribute's type: an unknown enum
    struct.error,
)


class Mapper(AttributeMapper):
    """What a session reads and writes attributes by: python-pkcs11's, but for labels that aren't UTF-8.

    Their bytes are kept as Python keeps those of file names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_handler(
            Attribute.LABEL,
            lambda text: text.encode(errors="surrogateescape"),
            lambda value: value.decode(errors="surrogateescape"),
        )


def read(obj: Any, attribute: Attribute) -> Any:
    """Return the attribute's value; None where the module doesn't say."""
    try:
        return obj[attribute]
    except NOT_SAID:
        return None


def read_or_none(obj: Any, attribute: Attribute) -> Any:
    """Return the attribute's value; None also where the object can't be read at all, as one among many others."""
    try:
        return read(obj, attribute)
    except ckr.PKCS11Error:
        return None
