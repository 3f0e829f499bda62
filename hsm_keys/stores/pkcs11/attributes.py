"""Reading attributes of objects, tolerantly: modules leave some out, and what they do say is their word, not proof."""

from __future__ import annotations

import struct
from typing import Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.attributes import AttributeMapper
from pkcs11.constants import Attribute

__all__ = ["NOT_SAID", "Mapper", "read", "read_or_none"]

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
