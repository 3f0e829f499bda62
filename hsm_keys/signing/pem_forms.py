"""Recognises other forms in which a private key is given instead of a PEM, and says how to convert them."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Final, NamedTuple

__all__ = ["PemFault", "fault_in"]

_WANTED: Final = "give a PEM that begins with -----BEGIN PRIVATE KEY----- or -----BEGIN RSA PRIVATE KEY-----"
_ARMOUR: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]{40,}={0,2}\s*")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff", b"-\x00-\x00", b"\x00-\x00-")
_SEQUENCE: Final = b"\x30"  # the outermost tag of PKCS#1 and PKCS#8
_SHORTEST_DER: Final = 40  # bytes; an Ed25519 key has 48


class PemFault(NamedTuple):
    """What a text is in place of a private key's PEM, to follow "the private key can't be read: "; what to do next."""

    what: str
    hint: str


def fault_in(content: bytes) -> PemFault:
    """Return what is wrong with a text that is no PEM of a private key; nothing of the text."""
    return _not_text(content) or _without_armour(content) or _in_armour(content)


def _not_text(content: bytes) -> PemFault | None:
    if not content.strip():
        return PemFault("there is nothing in it", _WANTED)
    if content.startswith(_UTF16):
        return PemFault(
            "it is in UTF-16, as PowerShell's > writes it",
            "write it in UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW, or Set-Content -Encoding ascii in PowerShell",
        )
    if _is_der(content):
        return PemFault("it is in DER, not PEM", "convert it: openssl pkey -inform DER -in OLD -out NEW")
    return None


def _is_der(content: bytes) -> bool:
    """Tell whether it is one SEQUENCE from the first byte to the last: an Ed25519 key begins with plain characters."""
    if not content.startswith(_SEQUENCE) or len(content) < _SHORTEST_DER:
        return False
    size = content[1] & 0x7F if content[1] & 0x80 else 0  # X.690, 8.1.3: of a long length, how many bytes it has
    length = int.from_bytes(content[2 : 2 + size], "big") if size else content[1]
    return len(content) == 2 + size + length


def _without_armour(content: bytes) -> PemFault | None:
    if b"-----BEGIN" in content:
        return None
    if content.startswith(b"PuTTY-User-Key-File"):
        return PemFault("it is in PuTTY's format", "convert it: puttygen OLD -O private-openssh -o NEW")
    if _BASE64.fullmatch(content):
        if b"-----BEGIN" in _decoded(content):
            return PemFault("it is base64 of a PEM", "decode it once: base64 -d OLD > NEW")
        return PemFault(
            "it is base64 without the lines before and after it",
            "put -----BEGIN PRIVATE KEY----- (Kalshi's RSA keys: -----BEGIN RSA PRIVATE KEY-----) on a line before it, "
            "and the same with END after it",
        )
    return PemFault("it is no PEM", _WANTED)


def _decoded(content: bytes) -> bytes:
    try:
        return b64decode(content)
    except ValueError:
        return b""


def _in_armour(content: bytes) -> PemFault:
    armour = _ARMOUR.search(content)
    label = armour[1] if armour else b""
    if label == b"CERTIFICATE" or label.endswith(b"PUBLIC KEY"):
        kind = "certificate" if label == b"CERTIFICATE" else "public key"
        return PemFault(f"it is a {kind}", "give the private key that it was made with")
    if label == b"OPENSSH PRIVATE KEY":
        return PemFault("it is in OpenSSH's format", "convert a copy: ssh-keygen -p -m PKCS8 -f COPY")
    if rb"\n" in content:
        return PemFault(
            r"it has \n, written out, where its lines should end", r"make them ends: sed 's/\\n/\n/g' OLD > NEW"
        )
    if b"-----END" not in content:
        return PemFault("it is cut off: its line -----END is missing", "copy the whole file")
    return PemFault("the PEM is damaged", _WANTED)
