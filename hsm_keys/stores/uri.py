"""PKCS#11 URIs (RFC 7512): parsed strictly, and written so that parsing them gives the same URI again.

A URI chooses the token that signs for real money, so nothing in it is guessed or ignored: an unknown attribute
is refused, even where RFC 7512 allows to ignore a vendor's extension (``toekn=prod`` must not match every token).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from hsm_keys.errors import UsageError
from hsm_keys.values import Secret, hides_its_arguments

__all__ = ["LibraryVersion", "Pkcs11Uri"]

_SCHEME: Final = "pkcs11:"
_MAX_LENGTH: Final = 4096
_EXAMPLE: Final = "pkcs11:token=kalshi?module-path=/usr/lib/softhsm/libsofthsm2.so"

# RFC 7512, section 2.3: what may stand unencoded in a value, beside letters, digits and "-._~".
_PATH_SAFE: Final = ":[]@!$'()*+,=&"
_QUERY_SAFE: Final = ":[]@!$'()*+,=/?|"
_QUERY_ATTRIBUTES: Final = frozenset({"pin_source", "pin_value", "module_name", "module_path"})
_ANY_BYTES: Final = frozenset({"object", "module-path", "pin-source"})
"""Attributes that name what may have any bytes in its name: paths, and labels that other programs wrote."""

_PADDED: Final = frozenset(
    {
        "token",
        "manufacturer",
        "serial",
        "model",
        "library-manufacturer",
        "library-description",
        "slot-description",
        "slot-manufacturer",
    }
)
"""Attributes that are fields of a fixed length in a module's answers."""

_TYPES: Final = ("public", "private", "cert", "secret-key", "data")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LIBRARY_VERSION = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?")
_MAX_SLOT_ID: Final = 2**64 - 1


class LibraryVersion(NamedTuple):
    """The version of a PKCS#11 module; a text without a minor number means 0 (RFC 7512, section 2.3)."""

    major: int
    minor: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A PKCS#11 URI; None stands for an attribute that isn't there.

    Neither ``str()`` nor ``repr()`` shows the PIN.
    """

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_description: str | None = None
    library_version: LibraryVersion | None = None
    object: str | None = None
    type: str | None = None
    id: bytes | None = None
    slot_description: str | None = None
    slot_manufacturer: str | None = None
    slot_id: int | None = None
    pin_source: str | None = None
    pin_value: Secret | None = None
    module_name: str | None = None
    module_path: str | None = None

    @classmethod
    @hides_its_arguments
    def parse(cls, text: str | Secret) -> Pkcs11Uri:
        """Return the URI that the text holds; a text with a PIN in it may come as a secret.

        Raises:
            UsageError: If it isn't a PKCS#11 URI, or holds a contradiction. The message names the attribute at
                fault, and never holds a value: one of them may be a PIN.
        """
        text = text.reveal() if isinstance(text, Secret) else text
        if len(text) > _MAX_LENGTH:
            raise _bad(f"is longer than {_MAX_LENGTH} characters")
        if text[: len(_SCHEME)].lower() != _SCHEME:
            raise _bad(f"doesn't begin with {_SCHEME}")
        path, mark, query = text[len(_SCHEME) :].partition("?")
        if mark and not query:
            raise _bad("ends in an empty query")
        values = _attributes(path, ";", _PATH_SAFE, query=False)
        values.update(_attributes(query, "&", _QUERY_SAFE, query=True))
        if "pin_source" in values and "pin_value" in values:
            raise _bad("has both pin-source and pin-value", "give one of them")
        if "module_name" in values and "module_path" in values:
            raise _bad("has both module-name and module-path", "give one of them")
        return cls(**values)

    def __str__(self) -> str:
        path = [self._pair(name, _PATH_SAFE) for name in self._given() if name not in _QUERY_ATTRIBUTES]
        query = [self._pair(name, _QUERY_SAFE) for name in self._given() if name in _QUERY_ATTRIBUTES - {"pin_value"}]
        return _SCHEME + ";".join(path) + ("?" + "&".join(query) if query else "")

    def __repr__(self) -> str:
        return f"Pkcs11Uri({str(self)!r})"

    def _given(self) -> list[str]:
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def _pair(self, name: str, safe: str) -> str:
        value = getattr(self, name)
        if isinstance(value, bytes):
            written = "".join(f"%{byte:02X}" for byte in value)
        else:
            written = quote(str(value), safe=safe, errors="surrogateescape")
        return f"{name.replace('_', '-')}={written}"


_NAMES: Final = frozenset(field.name for field in fields(Pkcs11Uri))


def _bad(what: str, hint: str = f"it looks like {_EXAMPLE}") -> UsageError:
    return UsageError(f"the PKCS#11 URI {what}", hint=hint)


def _attributes(part: str, separator: str, safe: str, *, query: bool) -> dict[str, Any]:
    allowed = re.compile(rf"(?:[A-Za-z0-9\-._~%{re.escape(safe)}])*")
    values: dict[str, Any] = {}
    for pair in part.split(separator) if part else []:
        name, equals, value = pair.partition("=")
        field = name.replace("-", "_")
        if not equals or field not in _NAMES or "_" in name or (field in _QUERY_ATTRIBUTES) is not query:
            # An '&' that a PIN should have written as %26 makes the rest of that PIN look like an attribute.
            raise _unknown(name if equals and "pin_value" not in values else "", query=query)
        if field in values:
            raise _bad(f"has the attribute {name} twice")
        if not allowed.fullmatch(value) or _BAD_ESCAPE.search(value):
            raise _bad(f"has a bad character or percent-escape in {name}", "encode it as %XX, in UTF-8")
        values[field] = _decoded(name, unquote_to_bytes(value))
    return values


def _unknown(name: str, *, query: bool) -> UsageError:
    plain = re.fullmatch(r"[a-z][a-z-]{0,30}", name)
    what = f"has {name!r}, which is no attribute" if plain else "has something that is no attribute"
    place = "after the '?'" if query else "before the '?'"
    names = ", ".join(sorted(n.replace("_", "-") for n in _NAMES if (n in _QUERY_ATTRIBUTES) is query))
    return _bad(f"{what} {place}", f"known there are {names}")


def _decoded(name: str, value: bytes) -> Any:
    if name == "id":
        return value
    try:
        text = value.decode("utf-8", errors="surrogateescape" if name in _ANY_BYTES else "strict")
    except UnicodeDecodeError:
        raise _bad(f"has text that isn't UTF-8 in {name}") from None
    text = _without_padding(text) if name in _PADDED else text
    if "\0" in text:
        raise _bad(f"has a NUL character in {name}")
    if name == "slot-id":
        if not (text.isascii() and text.isdigit() and int(text) <= _MAX_SLOT_ID):
            raise _bad("has a slot-id that is no slot number")
        return int(text)
    if name == "pin-value":
        return Secret(text)
    if name == "type" and text not in _TYPES:
        raise _bad("has a type that is none", f"known are {', '.join(_TYPES)}")
    if name == "library-version":
        return _version(text)
    if name == "module-path" and not PurePosixPath(text).is_absolute():
        raise _bad("has a relative module-path", "a relative path would load whatever lies in the working folder")
    return text


def _without_padding(text: str) -> str:
    """Return what a field of a token says, whose module fills it with NUL rather than with blanks.

    Other tools write such a field into a URI with its padding.
    """
    head, nul, rest = text.partition("\0")
    return head.rstrip() if nul and not rest.strip("\0 ") else text


def _version(text: str) -> LibraryVersion:
    if not _LIBRARY_VERSION.fullmatch(text):
        raise _bad("has a library-version that is none", "it looks like 2 or 2.6")
    return LibraryVersion(*map(int, text.split(".")))
