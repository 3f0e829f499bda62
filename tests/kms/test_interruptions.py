"""Making, binding, replicating and ending keys over a network that loses answers; ministack does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType
from hsm_keys.errors import HsmKeysError, KeyBusyError, NetworkError, OutcomeUnknownError
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.errors import (
    AwsAccessDeniedError,
    AwsThrottledError,
    KmsGarbledAnswerError,
    KmsKeyNotFoundError,
)
from hsm_keys.stores.awskms.tags import KeyCreation
from tests.support.kms_faults import Body, Fault, FaultyKms, Lost, Refuse, Reset
from tests.support.ministack import OTHER_REGION, REGION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.awskms.store import AwsKmsStore

pytestmark = pytest.mark.kms

URI = f"awskms:///?region={REGION}"
API_KEY_ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"


@pytest.fixture
def store(real_kms: FaultyKms) -> Iterator[AwsKmsStore]:
    with open_kms(URI) as opened:
        yield opened


def key_ids(store: AwsKmsStore, region: str = REGION) -> list[str]:
    listed: Any = store.caller().manage(region).list_keys()
    return [entry["KeyId"] for entry in listed["Keys"]]


def test_a_lost_answer_to_create_key_is_not_repeated_and_the_next_run_takes_the_key(
    store: AwsKmsStore, real_kms: FaultyKms
) -> None:
    real_kms.fault("CreateKey", Lost())
    with pytest.raises(OutcomeUnknownError, match="CreateKey was carried out isn't known") as caught:
        store.generate("prod")
    assert caught.value.exit_code == 7
    assert len(real_kms.of("CreateKey")) == 1
    (made,) = key_ids(store)
    key = store.generate("prod")
    assert store.key("prod").arn.endswith(made)
    assert key_ids(store) == [made]
    assert len(key.sign(b"m")) == 256


AFTER_CREATE_KEY: list[tuple[str, Fault, type[HsmKeysError]]] = [
    ("CreateAlias", Reset(), NetworkError),
    ("CreateAlias", Refuse("ThrottlingException"), AwsThrottledError),
    ("CreateAlias", Refuse("AccessDeniedException"), AwsAccessDeniedError),
    ("CreateAlias", Lost(), NetworkError),
    ("GetPublicKey", Refuse("AccessDeniedException"), AwsAccessDeniedError),
    ("GetPublicKey", Body(b"{}"), KmsGarbledAnswerError),
    ("ListResourceTags", Refuse("AccessDeniedException"), AwsAccessDeniedError),
]


@pytest.mark.parametrize(("operation", "fault", "kind"), AFTER_CREATE_KEY)
def test_wherever_making_a_key_stops_the_next_run_goes_on_with_that_key(
    store: AwsKmsStore, real_kms: FaultyKms, operation: str, fault: Fault, kind: type[HsmKeysError]
) -> None:
    real_kms.always(operation, fault)
    with pytest.raises(kind):
        store.generate("prod", KeyType.ED25519)
    real_kms.always(operation, None)
    (made,) = key_ids(store)
    try:  # as the enroll workflow does it: what has a name is used, what hasn't is made
        key = store.key("prod")
    except HsmKeysError:
        store.generate("prod", KeyType.ED25519)
        key = store.key("prod")
    assert key.arn.endswith(made)
    assert key_ids(store) == [made]
    assert len(real_kms.of("CreateKey")) == 1


@pytest.mark.parametrize("operation", ["ListAliases", "ListKeys"])
def test_what_cannot_be_looked_up_first_is_not_made(store: AwsKmsStore, real_kms: FaultyKms, operation: str) -> None:
    real_kms.always(operation, Refuse("AccessDeniedException"))
    with pytest.raises(AwsAccessDeniedError, match=operation) as caught:
        store.generate("prod", KeyType.ED25519)
    assert "--for enroll" in caught.value.hint
    assert real_kms.of("CreateKey") == []


def test_a_key_whose_tags_are_secret_does_not_hinder(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    store.caller().manage(REGION).create_key()
    real_kms.fault("ListResourceTags", Refuse("AccessDeniedException"))
    assert store.generate("prod", KeyType.ED25519).name == "prod"


def test_listings_are_read_to_their_last_page(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    tag = {"TagKey": "hsm-keys:name", "TagValue": "prod"}
    left = store.caller().manage(REGION).create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY", Tags=[tag])
    first = b'{"%s": [], "Truncated": true, "NextMarker": "page 2"}'
    for operation, items in (("ListAliases", b"Aliases"), ("ListKeys", b"Keys"), ("ListResourceTags", b"Tags")):
        real_kms.fault(operation, Body(first % items))
    store.generate("prod")
    assert store.key("prod").arn == left["KeyMetadata"]["Arn"]
    assert [seen.parameters.get("Marker") for seen in real_kms.of("ListKeys")] == [None, "page 2"]


def test_a_page_that_says_there_is_more_and_not_where_is_garbled(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    real_kms.always("ListAliases", Body(b'{"Aliases": [], "Truncated": true}'))
    with pytest.raises(KmsGarbledAnswerError, match="NextMarker"):
        store.keys()


def test_an_alias_that_somebody_else_took_meanwhile_is_left_alone(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    by_hand: Any = store.caller().manage(REGION)
    theirs = by_hand.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]
    by_hand.create_alias(AliasName="alias/hsm-keys/prod", TargetKeyId=theirs["KeyId"])
    real_kms.fault("ListAliases", Body(b'{"Aliases": []}'))
    with pytest.raises(KeyBusyError, match="somebody else made a key 'prod'"):
        store.generate("prod", KeyType.ED25519)
    assert store.key("prod").arn == theirs["Arn"]
    ours = {key["KeyId"] for key in by_hand.list_keys()["Keys"]} - {theirs["KeyId"]}
    states = [by_hand.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"] for key_id in ours]
    assert states == ["PendingDeletion"]


def test_a_name_is_waited_for_until_all_of_kms_knows_it(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    real_kms.fault("GetPublicKey", Refuse("NotFoundException"))
    real_kms.fault("CreateAlias", Refuse("NotFoundException"))
    assert len(store.generate("prod").sign(b"m")) == 256
    assert len(real_kms.of("CreateKey")) == 1


@pytest.mark.parametrize("fault", [Lost(), Reset()])
def test_binding_can_be_run_again(store: AwsKmsStore, real_kms: FaultyKms, fault: Fault) -> None:
    key = store.generate("prod", KeyType.ED25519)
    real_kms.fault("TagResource", fault)
    with pytest.raises(NetworkError):
        store.bind(key, API_KEY_ID, "prod")
    store.bind(store.key("prod"), API_KEY_ID, "prod")
    assert store.key("prod").api_key_id == API_KEY_ID


def test_a_key_that_is_gone_is_not_taken_for_bound(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    key = store.generate("prod", KeyType.ED25519)
    real_kms.fault("TagResource", Refuse("NotFoundException"))
    with pytest.raises(KmsKeyNotFoundError):
        store.bind(key, API_KEY_ID, "prod")


def test_a_replica_that_is_not_there_yet_does_not_hinder_binding(real_kms: FaultyKms) -> None:
    creation = KeyCreation(multi_region=True)
    with open_kms(f"awskms:///?region={REGION},{OTHER_REGION}", creation=creation) as store:
        store.bind(store.generate("prod", KeyType.ED25519), API_KEY_ID, "prod")
        assert store.key("prod").api_key_id == API_KEY_ID
    assert [seen.region for seen in real_kms.of("TagResource")] == [REGION, OTHER_REGION]


@pytest.mark.parametrize("operation", ["GetKeyPolicy", "ReplicateKey", "DescribeKey", "TagResource", "CreateAlias"])
@pytest.mark.parametrize("fault", [Lost(), Reset()], ids=["lost", "reset"])
def test_replicating_can_be_run_again(real_kms: FaultyKms, operation: str, fault: Fault) -> None:
    with open_kms(f"{URI}&attempts=1", creation=KeyCreation(multi_region=True)) as store:
        store.bind(store.generate("prod", KeyType.ED25519), API_KEY_ID, "prod")
        real_kms.fault(operation, fault)
        with pytest.raises(NetworkError):
            store.replicate("prod", OTHER_REGION)
        store.replicate("prod", OTHER_REGION)
        assert len(key_ids(store, OTHER_REGION)) == 1
    with open_kms(f"awskms:///?region={OTHER_REGION}") as other:
        assert other.key("prod").api_key_id == API_KEY_ID


def test_a_deletion_that_is_scheduled_already_is_finished(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    key = store.generate("prod", KeyType.ED25519)
    real_kms.fault("ScheduleKeyDeletion", Refuse("KMSInvalidStateException", "arn is pending deletion."))
    store.destroy(key)
    assert store.keys() == []


@pytest.mark.parametrize("operation", ["ScheduleKeyDeletion", "ListAliases", "DeleteAlias"])
@pytest.mark.parametrize("fault", [Lost(), Reset()], ids=["lost", "reset"])
def test_destroying_can_be_run_again(store: AwsKmsStore, real_kms: FaultyKms, operation: str, fault: Fault) -> None:
    key = store.generate("prod", KeyType.ED25519)
    real_kms.fault(operation, fault)
    with pytest.raises(NetworkError):
        store.destroy(key)
    store.destroy(key)
    assert store.keys() == []
    assert store.key(store.key(key_ids(store)[0]).arn).attributes()["key_state"] == "PendingDeletion"
