"""Keys in a token where a program expects cryptography's own."""

from __future__ import annotations

import copy
import hashlib
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from hsm_keys import KeyType, open_store
from hsm_keys.errors import CustodyError, SigningError, UsageError
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys import StoredKey
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm

SHA256 = hashes.SHA256()
MGF = padding.MGF1(hashes.SHA256())


@pytest.fixture
def rsa(token: TestToken) -> Iterator[StoredKey]:
    with open_store(token.uri) as store:
        yield store.generate("prod")


@pytest.fixture
def ed25519(token: TestToken) -> Iterator[StoredKey]:
    with open_store(token.uri) as store:
        yield store.generate("prod", KeyType.ED25519)


@pytest.mark.parametrize("salt", [padding.PSS.DIGEST_LENGTH, 32])
def test_it_signs_as_kalshis_sdks_ask_for_it(rsa: StoredKey, salt: Any, tmp_path: Path) -> None:
    key = rsa.private_key()
    assert isinstance(key, RSAPrivateKey)
    assert key.key_size == 2048
    assert key.public_key() == rsa.public_key()
    signature = key.sign(b"1700000000000GET/x", padding.PSS(MGF, salt), SHA256)
    assert openssl_verifies(tmp_path, rsa.public_pem(), b"1700000000000GET/x", signature)


def test_it_signs_a_digest_where_the_token_can(rsa: StoredKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = rsa.private_key()
    assert isinstance(key, RSAPrivateKey)
    pss = padding.PSS(MGF, 32)
    signature = key.sign(hashlib.sha256(b"m").digest(), pss, Prehashed(SHA256))
    assert openssl_verifies(tmp_path, rsa.public_pem(), b"m", signature)
    with pytest.raises(UsageError, match="32 bytes"):
        key.sign(b"m", pss, Prehashed(SHA256))
    with pytest.raises(UsageError, match="hash"):
        key.sign(bytes(48), pss, Prehashed(hashes.SHA384()))


def test_ed25519_signs_the_message_as_it_is(ed25519: StoredKey, tmp_path: Path) -> None:
    key = ed25519.private_key()
    assert isinstance(key, Ed25519PrivateKey)
    assert openssl_verifies(tmp_path, ed25519.public_pem(), b"m", key.sign(b"m"))
    assert key.public_key() == ed25519.public_key()


@pytest.mark.parametrize(
    "wrong",
    [
        padding.PSS(MGF, padding.PSS.AUTO),
        padding.PSS(MGF, padding.PSS.MAX_LENGTH),
        padding.PSS(MGF, 20),
        padding.PSS(MGF, 0),
        padding.PSS(padding.MGF1(hashes.SHA1()), 32),  # noqa: S303 - it is refused
        padding.PKCS1v15(),
        padding.OAEP(MGF, hashes.SHA256(), None),
    ],
)
def test_every_other_padding_is_refused(rsa: StoredKey, wrong: Any) -> None:
    key = rsa.private_key()
    assert isinstance(key, RSAPrivateKey)
    with pytest.raises(UsageError) as caught:
        key.sign(b"m", wrong, SHA256)
    assert "PSS.DIGEST_LENGTH" in caught.value.hint


@pytest.mark.parametrize("wrong", [hashes.SHA512(), hashes.SHA1(), hashes.SHA3_256()])  # noqa: S303 - refused
def test_every_other_hash_is_refused(rsa: StoredKey, wrong: Any) -> None:
    key = rsa.private_key()
    assert isinstance(key, RSAPrivateKey)
    with pytest.raises(UsageError, match="hash"):
        key.sign(b"m", padding.PSS(MGF, 32), wrong)


@pytest.mark.parametrize("message", ["text", 5, None])
def test_only_bytes_are_signed(rsa: StoredKey, message: Any) -> None:
    key = rsa.private_key()
    assert isinstance(key, RSAPrivateKey)
    with pytest.raises(TypeError, match="bytes"):
        key.sign(message, padding.PSS(MGF, 32), SHA256)


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_nothing_leaves_the_token(token: TestToken, key_type: KeyType) -> None:
    with open_store(token.uri) as store:
        key: Any = store.generate("prod", key_type).private_key()
        pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        with pytest.raises(CustodyError, match="doesn't leave its store"):
            key.private_bytes(pem, pkcs8, plain)
        if key_type is KeyType.ED25519:
            refused = [key.private_bytes_raw]
        else:
            refused = [key.private_numbers, lambda: key.decrypt(bytes(256), padding.PKCS1v15())]
        for attempt in refused:
            with pytest.raises(CustodyError):
                attempt()
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(key)
        assert copy.copy(key) is key
        assert copy.deepcopy([key])[0] is key
        assert repr(key).endswith("KeyInStore(name='prod')")


def test_a_token_without_pss_over_a_digest_says_so(rsa: StoredKey, monkeypatch: pytest.MonkeyPatch) -> None:
    from pkcs11.mechanisms import Mechanism

    monkeypatch.setattr(rsa._store._link, "offered", {Mechanism.SHA256_RSA_PKCS_PSS})  # type: ignore[attr-defined]  # PKCS#11's
    with pytest.raises(Exception, match="RSA_PKCS_PSS"):
        rsa.sign_digest(bytes(32))


def test_a_store_that_takes_no_digest_says_so(rsa: StoredKey) -> None:
    from hsm_keys import StoredKey as Base

    with pytest.raises(SigningError, match="whole messages"):
        Base.sign_digest(rsa, bytes(32))
