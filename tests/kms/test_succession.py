"""An alias that leads to another key: followed after a rotation, and by nobody's word but the old key's."""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.errors import KmsKeyNotPinnedError
from hsm_keys.stores.awskms.tags import VOUCHER_TAGS, KeyCreation
from hsm_keys.stores.key_names import RETIRED, SUCCESSOR
from tests.support.ministack import OTHER_REGION, REGION, account

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.awskms.key import AwsKmsKey
    from hsm_keys.stores.awskms.store import AwsKmsStore

pytestmark = [pytest.mark.kms, pytest.mark.usefixtures("account")]

__all__ = ["account"]  # pytest finds the fixture here

URI = f"awskms:///?region={REGION}"
OLD_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NEW_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
PATH = "/trade-api/v2/portfolio/balance"


@pytest.fixture
def store(account: str) -> Iterator[AwsKmsStore]:
    with open_kms(URI) as opened:
        yield opened


def bound(store: AwsKmsStore, name: str, api_key_id: str, key_type: KeyType = KeyType.ED25519) -> AwsKmsKey:
    return store.bind(store.generate(name, key_type), api_key_id, "prod")


def point(store: AwsKmsStore, name: str, key: AwsKmsKey) -> None:
    """Do what whoever may write aliases can do."""
    store.caller().manage(REGION).update_alias(AliasName=f"alias/hsm-keys/{name}", TargetKeyId=key.arn)


def tag(store: AwsKmsStore, key: AwsKmsKey, tags: dict[str, str]) -> None:
    pairs = [{"TagKey": name, "TagValue": value} for name, value in tags.items()]
    store.caller().manage(REGION).tag_resource(KeyId=key.arn, Tags=pairs)


def vouchers(store: AwsKmsStore, key: AwsKmsKey) -> dict[str, str]:
    return {name: value for name, value in store.tags_of(key).items() if name in VOUCHER_TAGS}


@pytest.mark.parametrize("key_type", list(KeyType))
def test_a_rotation_is_followed_and_so_is_its_abort(store: AwsKmsStore, key_type: KeyType) -> None:
    old = bound(store, "prod", OLD_ID, key_type)
    signer = old.signer()
    new = store.bind(store.generate_like(old, "prod" + SUCCESSOR), NEW_ID, "prod")
    taken, left = store.hand_over("prod", taker=new, leaver=old, mark=RETIRED)
    assert signer.moved_on(OLD_ID)
    assert signer.api_key_id == NEW_ID
    following = store.key("prod").signer()
    store.hand_over("prod", taker=left, leaver=taken, mark=SUCCESSOR)
    assert following.moved_on(NEW_ID)
    assert following.api_key_id == OLD_ID


def test_a_signer_follows_rotation_after_rotation(store: AwsKmsStore) -> None:
    signer = bound(store, "prod", OLD_ID).signer()
    for before, after in ((OLD_ID, NEW_ID), (NEW_ID, OLD_ID)):
        leaver = store.key("prod")
        new = store.bind(store.generate_like(leaver, "prod" + SUCCESSOR), after, "prod")
        _, left = store.hand_over("prod", taker=new, leaver=leaver, mark=RETIRED)
        store.destroy(left)
        assert signer.moved_on(before)
        assert signer.api_key_id == after


def test_a_rotation_to_another_type_is_followed_and_followed_on(store: AwsKmsStore) -> None:
    keys = [bound(store, "prod", OLD_ID, KeyType.RSA_4096)]
    for key_type in (KeyType.ED25519, KeyType.RSA_2048):
        new = store.bind(store.generate("prod" + SUCCESSOR, key_type), NEW_ID, "prod")
        taken, left = store.hand_over("prod", taker=new, leaver=keys[-1], mark=RETIRED)
        assert keys[-1].current().public_pem() == taken.public_pem()
        store.destroy(left)
        keys.append(store.key("prod"))


def test_an_alias_that_somebody_points_elsewhere_is_not_followed(
    store: AwsKmsStore, caplog: pytest.LogCaptureFixture
) -> None:
    old, other = bound(store, "prod", OLD_ID), bound(store, "other", NEW_ID)
    signer = old.signer()
    point(store, "prod", other)
    with caplog.at_level(logging.WARNING):
        assert not signer.moved_on(OLD_ID)
        assert not signer.moved_on(OLD_ID)
    assert signer.headers("GET", PATH)["KALSHI-ACCESS-KEY"] == OLD_ID
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "signed no succession: signing goes on with the old key" in warnings[0]


def test_what_another_key_or_about_another_key_was_signed_vouches_for_nothing(store: AwsKmsStore) -> None:
    old, other = bound(store, "prod", OLD_ID), bound(store, "other", NEW_ID)
    theirs = store.bind(store.generate_like(other, "other" + SUCCESSOR), NEW_ID, "prod")
    theirs, _ = store.hand_over("other", taker=theirs, leaver=other, mark=RETIRED)
    point(store, "prod", theirs)
    assert old.current() is old  # vouched for, by a key that has nothing to say here
    ours = store.bind(store.generate("prod" + SUCCESSOR, KeyType.ED25519), NEW_ID, "prod")
    point(store, "prod", old)
    ours, _ = store.hand_over("prod", taker=ours, leaver=old, mark=RETIRED)
    assert old.current().public_pem() == ours.public_pem()
    tag(store, theirs, vouchers(store, ours))
    point(store, "prod", theirs)
    assert old.current() is old


@pytest.mark.parametrize("garbage", [{}, {VOUCHER_TAGS[0]: "="}, {VOUCHER_TAGS[0]: "AAAA"}, {VOUCHER_TAGS[1]: "AAAA"}])
def test_tags_that_hold_no_signature_vouch_for_nothing(store: AwsKmsStore, garbage: dict[str, str]) -> None:
    old, other = bound(store, "prod", OLD_ID, KeyType.RSA_2048), bound(store, "other", NEW_ID)
    if garbage:
        tag(store, other, garbage)
    point(store, "prod", other)
    assert old.current() is old


def test_another_id_of_the_same_pair_is_followed(store: AwsKmsStore) -> None:
    old = bound(store, "prod", OLD_ID)
    store.bind(old, NEW_ID, "prod")
    assert old.current().api_key_id == NEW_ID


def test_a_rotation_is_followed_in_every_region(account: str) -> None:
    with open_kms(URI, creation=KeyCreation(multi_region=True)) as store:
        bound(store, "prod", OLD_ID)
        store.replicate("prod", OTHER_REGION)
        with open_kms(f"awskms:///?region={OTHER_REGION}") as there:
            old = there.key("prod")
            new = store.bind(store.generate_like(store.key("prod"), "prod" + SUCCESSOR), NEW_ID, "prod")
            store.hand_over("prod", taker=new, leaver=store.key("prod"), mark=RETIRED)
            assert old.current().api_key_id == NEW_ID


def sha256_of(key: AwsKmsKey) -> str:
    public_key = load_pem_public_key(key.public_pem().encode())
    return sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def test_a_uri_pins_the_api_key_id_or_the_public_half(store: AwsKmsStore, caplog: pytest.LogCaptureFixture) -> None:
    old, other = bound(store, "prod", OLD_ID), bound(store, "other", NEW_ID)
    for pin in (f"api-key-id={OLD_ID}", f"public-key-sha256={sha256_of(old)}"):
        point(store, "prod", old)
        with open_kms(f"awskms:///alias/hsm-keys/prod?region={REGION}&{pin}") as pinned:
            key = pinned.key("")
            assert key.api_key_id == OLD_ID
            point(store, "prod", other)
            assert key.current() is key
            assert "the store's URI pins" in caplog.text
            caplog.clear()
            with pytest.raises(KmsKeyNotPinnedError) as caught:
                pinned.key("")
        assert caught.value.exit_code == 8
