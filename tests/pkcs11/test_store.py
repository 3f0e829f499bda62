"""Keys in a real SoftHSM token."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import AttributeReadOnly
from pkcs11.mechanisms import Mechanism

from hsm_keys import KeyState, KeyType, open_store
from hsm_keys.errors import (
    KeyAmbiguousError,
    KeyExistsError,
    KeyNotFoundError,
    SigningError,
    StoreUnavailableError,
    UsageError,
)
from hsm_keys.stores.pkcs11.objects import Objects
from hsm_keys.stores.pkcs11.store import Pkcs11Key
from tests.support.oddkeys import OUR_MARK, make_twin, session_of
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys import KeyStore
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm


@pytest.mark.parametrize("key_type", list(KeyType))
def test_each_key_type_signs_what_openssl_verifies(store: KeyStore, key_type: KeyType, tmp_path: Path) -> None:
    key = store.generate("prod", key_type)
    assert key.key_type is key_type
    signature = key.sign(b"1703123456789GET/trade-api/v2/markets")
    pem = key.public_pem()
    assert pem.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert openssl_verifies(tmp_path, pem, b"1703123456789GET/trade-api/v2/markets", signature)
    assert not openssl_verifies(tmp_path, pem, b"1703123456789GET/trade-api/v2/market", signature)


def test_the_salt_is_exactly_32_bytes(store: KeyStore, tmp_path: Path) -> None:
    key = store.generate("prod")
    signature = key.sign(b"message")
    by_salt = {
        salt: openssl_verifies(tmp_path, key.public_pem(), b"message", signature, salt=salt)
        for salt in (0, 20, 31, 32, 33, 222)
    }
    assert by_salt == {0: False, 20: False, 31: False, 32: True, 33: False, 222: False}


def test_a_new_key_is_minted_and_carries_the_sha1_of_its_public_bits(store: KeyStore) -> None:
    key = store.generate("prod", KeyType.ED25519)
    assert isinstance(key, Pkcs11Key)
    assert key.state is KeyState.MINTED
    assert key.api_key_id is None
    assert key.cka_id == b"kalshi:minted:" + key.fingerprint
    assert len(key.fingerprint) == 20
    ids = {
        bytes(obj[Attribute.ID]) for obj in session_of(store).get_objects({Attribute.LABEL: "prod"})
    }  # private and public object
    assert ids == {key.cka_id}


@pytest.mark.parametrize("api_key_id", ["0f8fad5b-d9cb-469f-a165-70867728950e", "not-a-uuid_1"])
def test_binding_writes_the_api_key_id_beside_the_private_half(
    store: KeyStore, token: TestToken, api_key_id: str
) -> None:
    bound = store.bind(store.generate("prod", KeyType.ED25519), api_key_id, "prod")
    assert (bound.state, bound.api_key_id, bound.environment) == (KeyState.REGISTERED, api_key_id, "prod")
    store.close()
    with open_store(token.uri) as again:
        key = again.key("prod")
        assert (key.api_key_id, key.environment, key.ours) == (api_key_id, "prod", True)
        ids = {bytes(obj[Attribute.ID]) for obj in session_of(again).get_objects({Attribute.LABEL: "prod"})}
        assert len(ids) == 1


def test_where_a_crash_left_two_ids_the_private_one_counts(store: KeyStore) -> None:
    store.bind(store.generate("prod", KeyType.ED25519), "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", "prod")
    (public,) = session_of(store).get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})
    public[Attribute.ID] = b"left over"
    assert store.key("prod").api_key_id == "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"


def test_a_taken_name_is_refused_and_nothing_is_made(store: KeyStore) -> None:
    before = store.generate("prod", KeyType.ED25519).public_pem()
    with pytest.raises(KeyExistsError, match="already has a key called 'prod'"):
        store.generate("prod", KeyType.ED25519)
    assert [key.public_pem() for key in store.keys()] == [before]


@pytest.mark.parametrize("name", ["", "a/b", "prod+other", "-x", "a b", "ü", "x" * 65, "a\n"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(store: KeyStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.generate(name)
    assert store.keys() == []


def test_an_unknown_name_says_which_there_are(store: KeyStore) -> None:
    store.generate("prod", KeyType.ED25519)
    with pytest.raises(KeyNotFoundError) as caught:
        store.key("prud")
    assert "'prod'" in caught.value.hint


def test_two_private_keys_of_one_name_are_an_error_that_lists_them(store: KeyStore) -> None:
    key = store.generate("prod", KeyType.ED25519)
    assert isinstance(key, Pkcs11Key)
    twin = make_twin(store, "prod")
    with pytest.raises(KeyAmbiguousError) as caught:
        store.key("prod")
    assert key.fingerprint.hex() in caught.value.message
    assert twin.hex() in caught.value.message


def test_a_pair_whose_run_was_killed_before_it_gave_way_is_removed(store: KeyStore) -> None:
    make_twin(store, "prod", OUR_MARK)
    assert [key.name for key in store.keys()] == ["prod"]  # alone it is what an interrupted run has made
    settled = make_twin(store, "prod")
    key = store.key("prod")
    assert isinstance(key, Pkcs11Key)
    assert key.cka_id == settled
    assert len(store.keys()) == 1
    store.mend("prod")
    privates = session_of(store).get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
    assert [private[Attribute.ID] for private in privates] == [settled]


def test_of_pairs_that_may_all_be_in_use_none_goes(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that fixes CKA_ID says of a key in use what another one says of a key that is being made."""
    for _ in range(2):
        make_twin(store, "prod", OUR_MARK)
    monkeypatch.setattr(Objects, "write", Mock(side_effect=AttributeReadOnly))
    store.mend("prod")
    assert len(list(session_of(store).get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))) == 2
    with pytest.raises(KeyAmbiguousError):
        store.key("prod")


def test_of_two_private_keys_of_one_name_the_one_that_is_ours_is_meant(store: KeyStore) -> None:
    key = store.generate("prod", KeyType.ED25519)
    make_twin(store, "prod", b"\x01")
    assert store.key("prod").public_key() == key.public_key()
    assert [(each.name, each.ours) for each in store.keys()] == [("prod", True), ("prod", False)]


def test_a_key_that_is_doubled_meanwhile_still_signs_with_its_own_half(store: KeyStore, tmp_path: Path) -> None:
    key = store.generate("prod", KeyType.ED25519)
    make_twin(store, "prod")
    store.bind(key, "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", "prod")
    assert openssl_verifies(tmp_path, key.public_pem(), b"m", key.sign(b"m"))


def test_an_orphan_public_object_is_removed_when_the_key_is_repaired(store: KeyStore) -> None:
    store.generate("prod", KeyType.ED25519)
    (private,) = session_of(store).get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
    private.destroy()
    key = store.generate("prod", KeyType.ED25519)
    assert store.key("prod").public_key() == key.public_key()
    store.mend("prod")
    publics = list(session_of(store).get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY}))
    assert len(publics) == 1
    assert isinstance(key.public_key(), Ed25519PublicKey)


def test_an_rsa_key_without_its_public_object_is_still_whole(store: KeyStore, tmp_path: Path) -> None:
    store.generate("prod")
    (public,) = session_of(store).get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})
    public.destroy()
    key = store.key("prod")
    assert isinstance(key.public_key(), RSAPublicKey)
    assert openssl_verifies(tmp_path, key.public_pem(), b"m", key.sign(b"m"))


def test_a_failed_generate_leaves_nothing_behind(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objects, "public_key_of", lambda *_: None)
    with pytest.raises(Exception, match="doesn't show its public half"):
        store.generate("prod", KeyType.ED25519)
    assert list(session_of(store).get_objects()) == []


def test_destroy_removes_both_halves(store: KeyStore) -> None:
    store.destroy(store.generate("prod", KeyType.ED25519))
    assert list(session_of(store).get_objects()) == []


def test_a_destroyed_key_says_so_when_it_is_asked_to_sign(store: KeyStore) -> None:
    key = store.generate("prod", KeyType.ED25519)
    store.destroy(store.key("prod"))
    with pytest.raises(KeyNotFoundError, match="no longer in"):
        key.sign(b"m")


def test_keys_are_sorted_and_carry_an_rfc_7512_uri(store: KeyStore, token: TestToken) -> None:
    for name in ("b", "a"):
        store.generate(name, KeyType.ED25519)
    keys = store.keys()
    assert [key.name for key in keys] == ["a", "b"]
    assert keys[0].uri.startswith(f"pkcs11:token={token.label};")
    assert ";object=a;type=private?module-path=/" in keys[0].uri
    assert "pin" not in keys[0].uri


def test_only_bytes_are_signed(store: KeyStore) -> None:
    key = store.generate("prod", KeyType.ED25519)
    for message in ("text", bytearray(b"x"), memoryview(b"x")):
        with pytest.raises(TypeError, match="bytes"):
            key.sign(message)  # type: ignore[arg-type]  # what a caller gets wrong


def test_a_first_signature_that_does_not_verify_is_never_handed_out(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.stores.pkcs11.cryptoki.SALT_LENGTH", 20)
    with pytest.raises(SigningError, match="doesn't verify"):
        store.generate("prod").sign(b"m")


def test_pss_over_a_digest_where_the_token_cannot_hash(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = store.generate("prod", KeyType.ED25519)
    monkeypatch.setattr(store._connection, "offered", {Mechanism.RSA_PKCS_PSS})  # type: ignore[attr-defined]  # of PKCS#11
    assert openssl_verifies(tmp_path, key.public_pem(), b"m", key.sign(b"m"))


def test_a_closed_store_signs_nothing_and_closes_twice(store: KeyStore) -> None:
    key = store.generate("prod", KeyType.ED25519)
    key.sign(b"m")
    store.close()
    store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        key.sign(b"m")
