"""The headers: the right message, the right time, a signature that others verify."""

from __future__ import annotations

import base64
import pickle
import traceback
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hsm_keys import KeyType, RequestSigner
from hsm_keys.errors import KeyNotRegisteredError, UsageError
from hsm_keys.signing.algorithms import key_type_of, public_key_pem, verifies
from hsm_keys.signing.headers import TIMESTAMP_HEADER
from hsm_keys.signing.pem import PemKey
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

RSA = rsa.generate_private_key(65537, 2048)
ED25519 = Ed25519PrivateKey.generate()
KEYS = [pytest.param(RSA, id="rsa"), pytest.param(ED25519, id="ed25519")]
PASSPHRASE = "passphrase-canary-99"


def pem_of(
    key: rsa.RSAPrivateKey | Ed25519PrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey,
    passphrase: str | None = None,
) -> str:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


@pytest.mark.parametrize("key", KEYS)
def test_the_headers_carry_a_signature_that_openssl_verifies(
    key: rsa.RSAPrivateKey | Ed25519PrivateKey, tmp_path: Path
) -> None:
    signer = RequestSigner(PemKey("id-1", pem_of(key)), clock=lambda: 1703123456789)
    headers = signer.headers("get", "/trade-api/v2/markets?limit=50")
    assert headers["KALSHI-ACCESS-KEY"] == "id-1"
    assert headers["KALSHI-ACCESS-TIMESTAMP"] == "1703123456789"
    signature = base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"], validate=True)
    pem = public_key_pem(key.public_key())
    assert openssl_verifies(tmp_path, pem, b"1703123456789GET/trade-api/v2/markets", signature)


def test_the_clock_is_read_right_before_signing() -> None:
    events: list[str] = []

    class Key:
        name, api_key_id = "k", "id"

        def sign(self, message: bytes, /) -> bytes:
            events.append(f"sign {message.decode()}")
            return b""

    def clock() -> int:
        events.append("clock")
        return 42

    signer = RequestSigner(Key(), clock=clock)
    assert events == []
    signer.headers("GET", "/x")
    assert events[:2] == ["clock", "sign 42GET/x"]
    events.clear()
    signer.headers("GET", "/x", timestamp_ms=7)
    assert events == ["sign 7GET/x"]


def test_a_key_without_an_id_makes_no_signer_unless_one_is_given() -> None:
    class Minted:
        name, api_key_id = "prod", None

        def sign(self, message: bytes, /) -> bytes:
            return message

    with pytest.raises(KeyNotRegisteredError, match="'prod'"):
        RequestSigner(Minted())
    assert RequestSigner(Minted(), api_key_id="id").api_key_id == "id"


@pytest.mark.parametrize("salt", [0, 20, 31, 33, 222])
def test_a_salt_of_any_other_length_does_not_verify(salt: int) -> None:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    assert not verifies(RSA.public_key(), b"m", RSA.sign(b"m", pss, hashes.SHA256()))
    assert verifies(RSA.public_key(), b"m", PemKey("i", pem_of(RSA)).sign(b"m"))


@pytest.mark.parametrize("key", KEYS)
def test_an_encrypted_pem_is_opened_with_its_passphrase(key: rsa.RSAPrivateKey | Ed25519PrivateKey) -> None:
    pem = pem_of(key, PASSPHRASE)
    opened = PemKey("id", pem, lambda: PASSPHRASE)
    assert verifies(key.public_key(), b"m", opened.sign(b"m"))
    with pytest.raises(UsageError, match="encrypted"):
        PemKey("id", pem)
    with pytest.raises(UsageError, match="wrong passphrase") as caught:
        PemKey("id", pem, lambda: PASSPHRASE + "x")
    assert PASSPHRASE not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("key", KEYS)
def test_a_pem_key_shows_nothing_of_itself(key: rsa.RSAPrivateKey | Ed25519PrivateKey) -> None:
    pem = pem_of(key)
    secret = pem.splitlines()[1][:20]
    opened = PemKey("id", pem)
    assert secret not in f"{opened!r}{opened}{RequestSigner(opened)!r}"
    with pytest.raises(TypeError):
        pickle.dumps(opened)
    with pytest.raises(UsageError) as caught:
        PemKey("id", pem[:-60])
    assert secret not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "pem",
    ["", "rubbish", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", public_key_pem(RSA.public_key())],
)
def test_what_is_no_private_key_is_refused(pem: str) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        PemKey("id", pem)


def test_key_types_that_kalshi_does_not_take_are_refused() -> None:
    with pytest.raises(UsageError, match="no keys of the kind"):
        PemKey("id", pem_of(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(UsageError, match="1024"):
        key_type_of(rsa.generate_private_key(65537, 1024).public_key())  # noqa: S505 - weak, and so refused
    assert key_type_of(ED25519.public_key()) is KeyType.ED25519
    assert key_type_of(RSA.public_key()) is KeyType.RSA_2048


def test_a_signature_that_took_long_is_made_again_for_the_time_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed = [0.0]
    signed: list[bytes] = []
    monkeypatch.setattr("hsm_keys.signing.signer.time.monotonic", lambda: elapsed[0])

    class Key:
        name, api_key_id = "k", "id"

        def sign(self, message: bytes, /) -> bytes:
            signed.append(message)
            elapsed[0] += 3.1
            return b""

    headers = RequestSigner(Key(), clock=lambda: 10_000 + int(elapsed[0] * 1000)).headers("GET", "/x")
    assert signed == [b"10000GET/x", b"13100GET/x"]  # once more, however long that takes
    assert headers[TIMESTAMP_HEADER] == "13100"


@pytest.mark.parametrize("set_by_ms", [-60_000, 60_000])
def test_a_clock_that_was_set_during_a_signature_is_read_again(set_by_ms: int) -> None:
    """Also what a suspend looks like: the monotonic clock doesn't count it."""
    now = [1_000_000]

    class Key:
        name, api_key_id = "k", "id"

        def sign(self, message: bytes, /) -> bytes:
            if message.startswith(b"1000000"):
                now[0] += set_by_ms
            return message

    headers = RequestSigner(Key(), clock=lambda: now[0]).headers("GET", "/x")
    assert headers[TIMESTAMP_HEADER] == str(1_000_000 + set_by_ms)
