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
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey

from hsm_keys import KeyType, open_store
from hsm_keys.errors import CustodyError, KeyNotRegisteredError, SigningError, UsageError
from hsm_keys.signing.private_key import _note_shorter_salt
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pss: pickle.loads(pickle.dumps(pss))])  # noqa: S301
@pytest.mark.parametrize("salt", [padding.PSS.DIGEST_LENGTH, padding.PSS.MAX_LENGTH])
def test_a_padding_that_was_copied_is_the_same_padding(
    rsa: StoredKey, salt: Any, copied: Callable[[padding.PSS], padding.PSS], tmp_path: Path
) -> None:
    pss = copied(padding.PSS(MGF, salt))
    assert pss._salt_length is not salt
    signature = rsa.private_key("rsa").sign(b"m", pss, SHA256)
    assert openssl_verifies(tmp_path, rsa.public_pem(), b"m", signature)


@pytest.mark.parametrize("salt", [padding.PSS.MAX_LENGTH, 222])
def test_the_longest_salt_is_signed_with_32_bytes_and_that_is_said_once(
    token: TestToken, salt: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _note_shorter_salt.cache_clear()
    with open_store(token.uri) as store:
        stored = store.generate("longest")
        key, pss = stored.private_key("rsa"), padding.PSS(MGF, salt)
        signatures = [key.sign(b"m", pss, SHA256) for _ in range(3)]
    for signature in signatures:
        assert openssl_verifies(tmp_path, stored.public_pem(), b"m", signature)
        # As whoever asks for it verifies: with no length in mind.
        key.public_key().verify(signature, b"m", padding.PSS(MGF, padding.PSS.AUTO), SHA256)
    assert [record.getMessage().count("'longest'") for record in caplog.records] == [1]
    assert "32 bytes" in caplog.text


@pytest.mark.parametrize(
    ("key_type", "scheme"), [(KeyType.RSA_2048, "rsassa-pss-sha256"), (KeyType.ED25519, "ed25519")]
)
def test_securesystemslib_signs_with_it(token: TestToken, key_type: KeyType, scheme: str) -> None:
    """Its CryptoSigner copies its padding for each signature."""
    with open_store(token.uri) as store:
        private_key = store.generate("prod", key_type).private_key()
        public = SSlibKey.from_crypto(private_key.public_key(), scheme=scheme)
        signature = CryptoSigner(private_key, public).sign(b"metadata")
    public.verify_signature(signature, b"metadata")


def test_a_program_can_say_which_kind_it_takes(rsa: StoredKey, token: TestToken) -> None:
    assert rsa.private_key("rsa").key_size == 2048
    with pytest.raises(UsageError, match="'prod' is no Ed25519 key"):
        rsa.private_key("ed25519")
    with pytest.raises(KeyNotRegisteredError, match="has no API key id"):
        rsa.registered()


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
        padding.PSS(MGF, 20),
        padding.PSS(MGF, 221),
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

    monkeypatch.setattr(rsa._store._connection, "offered", {Mechanism.SHA256_RSA_PKCS_PSS})  # type: ignore[attr-defined]  # PKCS#11's
    with pytest.raises(Exception, match="RSA_PKCS_PSS"):
        rsa.sign_digest(bytes(32))


def test_a_store_that_takes_no_digest_says_so(rsa: StoredKey) -> None:
    from hsm_keys import StoredKey as Base

    with pytest.raises(SigningError, match="whole messages"):
        Base.sign_digest(rsa, bytes(32))
