"""A PIV card (NIST SP 800-73-4) in Python: as much of its applet as signing needs, and nothing that a card wouldn't do.

It holds RSA-2048 and P-256 keys with self-signed certificates, and answers SELECT, GET DATA, VERIFY, GENERAL
AUTHENTICATE and GET RESPONSE. Of Yubico's own commands it knows version and serial number, which ykcs11 asks for.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PIN: Final = "123456"
SIZE: Final = 256

_AID: Final = bytes.fromhex("A00000030800001000")
_TRIES: Final = 3
_CERTIFICATES: Final = {"5FC105": 0x9A, "5FC10A": 0x9C, "5FC10B": 0x9D, "5FC101": 0x9E}
_CHUID: Final = "5FC102"
_DISCOVERY: Final = "7E"

_RSA_2048: Final = 0x07

# Status words of ISO 7816-4 and SP 800-73-4, part 2.
_OK: Final = 0x9000
_NOT_SATISFIED: Final = 0x6982
_BLOCKED: Final = 0x6983
_WRONG_DATA: Final = 0x6A80
_NOT_FOUND: Final = 0x6A82
_WRONG_P1_P2: Final = 0x6A86
_UNKNOWN_INS: Final = 0x6D00


@cache
def private_keys() -> dict[int, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]:
    """Return the card's keys by slot: authentication, signature, key management, card authentication."""
    return {
        0x9A: rsa.generate_private_key(65537, 2048),
        0x9C: rsa.generate_private_key(65537, 2048),
        0x9D: ec.generate_private_key(ec.SECP256R1()),
        0x9E: rsa.generate_private_key(65537, 2048),
    }


def _tlv(tag: str, value: bytes) -> bytes:
    length = len(value)
    if length < 0x80:
        head = bytes([length])
    elif length < 0x100:
        head = bytes([0x81, length])
    else:
        head = bytes([0x82]) + length.to_bytes(2)
    return bytes.fromhex(tag) + head + value


def _parse(data: bytes) -> dict[int, bytes]:
    """Return the values of a row of BER-TLV objects with one-byte tags."""
    values = {}
    while data:
        tag, length, data = data[0], data[1], data[2:]
        if length > 0x80:
            size = length - 0x80
            length, data = int.from_bytes(data[:size]), data[size:]
        values[tag], data = data[:length], data[length:]
    return values


@cache
def certificate(slot: int) -> bytes:
    """Return the slot's certificate (DER)."""
    key = private_keys()[slot]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"slot {slot:02X}")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(slot)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


@dataclass
class PivCard:
    """One card. ``power`` resets it, ``transmit`` answers a command APDU (ISO 7816-4, short or extended length)."""

    pin: str = PIN
    tries: int = _TRIES
    signatures: dict[int, int] = field(default_factory=dict)
    verifications: int = 0
    _verified: bool = False
    _fresh: bool = False
    """Whether the PIN was verified by the command right before: what slot 9C asks for each time."""
    _rest: bytes = b""
    _chained: bytes = b""

    atr: ClassVar[bytes] = bytes.fromhex("3B80800101")

    def power(self) -> None:
        """Reset the card: nothing is verified any more."""
        self._verified = self._fresh = False
        self._rest = self._chained = b""

    def transmit(self, apdu: bytes) -> bytes:
        """Answer one command."""
        chaining, ins = bool(apdu[0] & 0x10), apdu[1]
        p1, p2 = apdu[2], apdu[3]
        data = _body(apdu)
        if ins == 0xC0:  # GET RESPONSE
            return self._answer(self._rest, _OK)
        if chaining:
            self._chained += data
            return _OK.to_bytes(2)
        data, self._chained = self._chained + data, b""
        fresh, self._fresh = self._fresh, False
        if ins == 0x20:
            return self._answer(b"", self._verify(p2, data))
        content, status = self._do(ins, p1, p2, data, fresh=fresh)
        return self._answer(content, status)

    def _do(self, ins: int, p1: int, p2: int, data: bytes, *, fresh: bool) -> tuple[bytes, int]:
        if ins == 0xA4:
            return self._select(data)
        if ins == 0xCB:
            return self._get_data(data)
        if ins == 0x87:
            return self._authenticate(p1, p2, data, fresh=fresh)
        if ins == 0xFD:  # Yubico: version
            return bytes([5, 2, 7]), _OK
        if ins == 0xF8:  # Yubico: serial number
            return (12345678).to_bytes(4), _OK
        return b"", _UNKNOWN_INS

    def _answer(self, content: bytes, status: int) -> bytes:
        piece, self._rest = content[:SIZE], content[SIZE:]
        if self._rest:
            return piece + bytes([0x61, len(self._rest) if len(self._rest) < SIZE else 0])  # 0: at least 256
        return piece + status.to_bytes(2)

    def _select(self, aid: bytes) -> tuple[bytes, int]:
        if not aid or not _AID.startswith(aid[:5]):
            return b"", _NOT_FOUND
        authority = _tlv("79", _tlv("4F", _AID[:5]))
        return _tlv("61", _tlv("4F", _AID[5:] + b"\1\0") + authority), _OK

    def _get_data(self, data: bytes) -> tuple[bytes, int]:
        tag = _parse(data).get(0x5C, b"").hex().upper()
        if tag == _DISCOVERY:
            return _tlv("7E", _tlv("4F", _AID + b"\1\0") + _tlv("5F2F", b"\x40\0")), _OK
        if tag == _CHUID:
            fascn, guid = bytes.fromhex("D4E739DA739CED39CE739D836858210842108421C84210C3EB"), bytes(range(1, 17))
            chuid = _tlv("30", fascn) + _tlv("34", guid) + _tlv("35", b"20351231") + _tlv("3E", b"") + _tlv("FE", b"")
            return _tlv("53", chuid), _OK
        if tag in _CERTIFICATES:
            der = certificate(_CERTIFICATES[tag])
            return _tlv("53", _tlv("70", der) + _tlv("71", b"\0") + _tlv("FE", b"")), _OK
        return b"", _NOT_FOUND

    def _verify(self, reference: int, data: bytes) -> int:
        if reference != 0x80:
            return _WRONG_P1_P2
        if not self.tries:
            return _BLOCKED
        if not data:
            return _OK if self._verified else 0x63C0 + self.tries
        self.verifications += 1
        self._verified = self._fresh = data == self.pin.encode().ljust(8, b"\xff")
        self.tries = _TRIES if self._verified else self.tries - 1
        return _OK if self._verified else 0x63C0 + self.tries

    def _authenticate(self, algorithm: int, slot: int, data: bytes, *, fresh: bool) -> tuple[bytes, int]:
        key = private_keys().get(slot)
        challenge = _parse(_parse(data).get(0x7C, b"")).get(0x81)
        if key is None or challenge is None:
            return b"", _WRONG_DATA
        allowed = {0x9C: fresh, 0x9E: True}.get(slot, self._verified)
        if not allowed:
            return b"", _NOT_SATISFIED
        # The key on a curve is there to be seen, not to sign with.
        if not isinstance(key, rsa.RSAPrivateKey) or algorithm != _RSA_2048 or len(challenge) != SIZE:
            return b"", _WRONG_DATA
        numbers = key.private_numbers()
        answer = pow(int.from_bytes(challenge), numbers.d, numbers.public_numbers.n).to_bytes(SIZE)
        self.signatures[slot] = self.signatures.get(slot, 0) + 1
        return _tlv("7C", _tlv("82", answer)), _OK


def _body(apdu: bytes) -> bytes:
    """Return a command's data, without the length that it expects back."""
    if len(apdu) <= 5:  # no data
        return b""
    if apdu[4]:
        return apdu[5 : 5 + apdu[4]]
    return apdu[7 : 7 + int.from_bytes(apdu[5:7])]
