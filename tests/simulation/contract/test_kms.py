"""KMS: the double's client and botocore's at ministack, asked by the same calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # botocore has no annotations
from cryptography.hazmat.primitives.serialization import load_der_public_key

if TYPE_CHECKING:
    from collections.abc import Callable

ALIAS = "alias/hsm-keys/prod"
OTHER_ALIAS = "alias/hsm-keys/prod/next"
NOBODYS = "00000000-0000-4000-8000-00000000abcd"
SPEC = "ECC_NIST_EDWARDS25519"


def make(kms: Any, name: str = "prod", **options: Any) -> dict[str, Any]:
    tags = [{"TagKey": "hsm-keys:name", "TagValue": name}]
    made: dict[str, Any] = kms.create_key(KeySpec=SPEC, KeyUsage="SIGN_VERIFY", Tags=tags, **options)["KeyMetadata"]
    return made


def code_of(call: Callable[..., object], **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return str(caught.value.response["Error"]["Code"])


def aliases(kms: Any) -> dict[str, str]:
    listed = kms.list_aliases()["Aliases"]
    return {each["AliasName"]: each["TargetKeyId"] for each in listed if each["AliasName"].startswith("alias/hsm-keys")}


def tags(kms: Any, key_id: str) -> dict[str, str]:
    return {each["TagKey"]: each["TagValue"] for each in kms.list_resource_tags(KeyId=key_id)["Tags"]}


def test_a_key_is_described_as_it_was_made(kms_client: Any) -> None:
    made = make(kms_client)
    expected = {
        "KeyState": "Enabled",
        "Origin": "AWS_KMS",
        "KeySpec": SPEC,
        "KeyUsage": "SIGN_VERIFY",
        "MultiRegion": False,
        "KeyManager": "CUSTOMER",
    }
    described = kms_client.describe_key(KeyId=made["Arn"])["KeyMetadata"]
    assert described["Arn"].endswith(f":key/{made['KeyId']}")
    assert {name: described[name] for name in expected} == expected == {name: made[name] for name in expected}
    assert tags(kms_client, made["KeyId"]) == {"hsm-keys:name": "prod"}
    assert made["KeyId"] in {each["KeyId"] for each in kms_client.list_keys(Limit=1000)["Keys"]}


def test_a_key_signs_and_shows_its_public_half_by_id_arn_and_alias(kms_client: Any) -> None:
    made = make(kms_client)
    kms_client.create_alias(AliasName=ALIAS, TargetKeyId=made["KeyId"])
    for reference in (made["KeyId"], made["Arn"], ALIAS):
        shown = kms_client.get_public_key(KeyId=reference)
        assert (shown["KeyId"], shown["KeySpec"], shown["KeyUsage"]) == (made["Arn"], SPEC, "SIGN_VERIFY")
        load_der_public_key(shown["PublicKey"])
        signed = kms_client.sign(
            KeyId=reference, Message=b"text", MessageType="RAW", SigningAlgorithm="ED25519_SHA_512"
        )
        assert len(signed["Signature"]) == 64


def test_an_unknown_key_is_not_found_by_any_call(kms_client: Any) -> None:
    for reference in (NOBODYS, ALIAS):
        for call in (kms_client.describe_key, kms_client.get_public_key):
            assert code_of(call, KeyId=reference) == "NotFoundException"
    sign = {"Message": b"text", "MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"}
    assert code_of(kms_client.sign, KeyId=NOBODYS, **sign) == "NotFoundException"
    assert code_of(kms_client.list_resource_tags, KeyId=NOBODYS) == "NotFoundException"
    assert code_of(kms_client.create_alias, AliasName=ALIAS, TargetKeyId=NOBODYS) == "NotFoundException"
    assert code_of(kms_client.schedule_key_deletion, KeyId=NOBODYS, PendingWindowInDays=7) == "NotFoundException"
    tag = [{"TagKey": "hsm-keys:name", "TagValue": "x"}]
    assert code_of(kms_client.tag_resource, KeyId=NOBODYS, Tags=tag) == "NotFoundException"


def test_an_alias_leads_to_one_key_and_a_key_may_have_several(kms_client: Any) -> None:
    one, other = make(kms_client)["KeyId"], make(kms_client, "prod+next")["KeyId"]
    kms_client.create_alias(AliasName=ALIAS, TargetKeyId=one)
    with pytest.raises(kms_client.exceptions.AlreadyExistsException):
        kms_client.create_alias(AliasName=ALIAS, TargetKeyId=other)
    with pytest.raises(kms_client.exceptions.AlreadyExistsException):
        kms_client.create_alias(AliasName=ALIAS, TargetKeyId=one)  # also where it leads there already
    kms_client.create_alias(AliasName=OTHER_ALIAS, TargetKeyId=one)
    assert aliases(kms_client) == {ALIAS: one, OTHER_ALIAS: one}


def test_an_alias_is_moved_and_removed_if_it_is_there(kms_client: Any) -> None:
    one, other = make(kms_client)["KeyId"], make(kms_client, "prod+next")["KeyId"]
    assert code_of(kms_client.update_alias, AliasName=ALIAS, TargetKeyId=one) == "NotFoundException"
    assert code_of(kms_client.delete_alias, AliasName=ALIAS) == "NotFoundException"
    kms_client.create_alias(AliasName=ALIAS, TargetKeyId=one)
    kms_client.update_alias(AliasName=ALIAS, TargetKeyId=other)
    kms_client.update_alias(AliasName=ALIAS, TargetKeyId=other)
    assert aliases(kms_client) == {ALIAS: other}
    kms_client.delete_alias(AliasName=ALIAS)
    assert aliases(kms_client) == {}
    assert kms_client.describe_key(KeyId=other)["KeyMetadata"]["KeyState"] == "Enabled"


def test_tags_are_added_and_written_over(kms_client: Any) -> None:
    key_id = make(kms_client)["KeyId"]
    both = [{"TagKey": "hsm-keys:name", "TagValue": "other"}, {"TagKey": "hsm-keys:environment", "TagValue": "demo"}]
    kms_client.tag_resource(KeyId=key_id, Tags=both)
    assert tags(kms_client, key_id) == {"hsm-keys:name": "other", "hsm-keys:environment": "demo"}


def test_a_key_whose_deletion_is_scheduled_can_only_be_looked_at(kms_client: Any) -> None:
    """TagResource, CreateAlias and a second ScheduleKeyDeletion, which KMS and the double refuse, ministack takes."""
    made = make(kms_client)
    key_id = made["KeyId"]
    kms_client.create_alias(AliasName=ALIAS, TargetKeyId=key_id)
    kms_client.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    assert kms_client.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert tags(kms_client, key_id) == {"hsm-keys:name": "prod"}
    assert aliases(kms_client) == {ALIAS: key_id}
    sign = {"Message": b"text", "MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"}
    assert code_of(kms_client.sign, KeyId=key_id, **sign) == "KMSInvalidStateException"
    kms_client.delete_alias(AliasName=ALIAS)
    assert aliases(kms_client) == {}


def test_a_key_without_material_waits_for_it(kms_client: Any) -> None:
    made = make(kms_client, Origin="EXTERNAL")
    key_id = made["KeyId"]
    assert (made["KeyState"], made["Origin"]) == ("PendingImport", "EXTERNAL")
    kms_client.create_alias(AliasName=ALIAS, TargetKeyId=key_id)
    kms_client.tag_resource(KeyId=key_id, Tags=[{"TagKey": "hsm-keys:environment", "TagValue": "demo"}])
    sign = {"Message": b"text", "MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"}
    assert code_of(kms_client.sign, KeyId=key_id, **sign) == "KMSInvalidStateException"
    parameters = kms_client.get_parameters_for_import(
        KeyId=key_id, WrappingAlgorithm="RSA_AES_KEY_WRAP_SHA_256", WrappingKeySpec="RSA_4096"
    )
    assert load_der_public_key(parameters["PublicKey"]).key_size == 4096  # type: ignore[union-attr]
    kms_client.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    assert kms_client.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"] == "PendingDeletion"
