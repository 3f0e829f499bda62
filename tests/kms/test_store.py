"""Keys in a real KMS server (ministack), over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC
from typing import TYPE_CHECKING, Any

import botocore.session  # type: ignore[import-untyped]  # botocore has no annotations
import pytest

from hsm_keys import KeyState, KeyType
from hsm_keys.errors import (
    CustodyError,
    KeyExistsError,
    KeyNotFoundError,
    KeyProblemError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from hsm_keys.inspecting.custody import prove_custody
from hsm_keys.signing.environments import environment_name
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.custody_facts import custody_facts_of
from hsm_keys.stores.awskms.errors import (
    AwsCredentialsError,
    AwsRegionError,
    KmsKeyDisabledError,
    KmsKeyNotFoundError,
    KmsKeyPendingDeletionError,
    KmsKeyUnsuitableError,
)
from hsm_keys.stores.awskms.tags import KeyCreation
from hsm_keys.stores.custody_verdicts import CustodyVerdict
from tests.support.cli import failed_json
from tests.support.ministack import OTHER_REGION, REGION, account
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.stores.awskms.store import AwsKmsStore

pytestmark = [pytest.mark.kms, pytest.mark.usefixtures("account")]

__all__ = ["account"]  # pytest finds the fixture here

URI = f"awskms:///?region={REGION}"
MESSAGE = b"1703123456789GET/trade-api/v2/portfolio/balance"
API_KEY_ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"


@pytest.fixture
def store(account: str) -> Iterator[AwsKmsStore]:
    with open_kms(URI) as opened:
        yield opened


@pytest.fixture
def by_hand(account: str) -> Iterator[Any]:
    """Another client of the same account."""
    client = botocore.session.Session().create_client("kms", region_name=REGION)
    yield client
    client.close()


def tags_of(client: Any, key_id: str) -> dict[str, str]:
    return {tag["TagKey"]: tag["TagValue"] for tag in client.list_resource_tags(KeyId=key_id)["Tags"]}


@pytest.mark.parametrize("key_type", list(KeyType))
def test_each_key_type_signs_what_openssl_verifies(store: AwsKmsStore, key_type: KeyType, tmp_path: Path) -> None:
    key = store.generate("prod", key_type)
    assert key.key_type is key_type
    signature = key.sign(MESSAGE)
    assert openssl_verifies(tmp_path, key.public_pem(), MESSAGE, signature)
    assert not openssl_verifies(tmp_path, key.public_pem(), MESSAGE + b"x", signature)


def test_the_salt_is_exactly_32_bytes(store: AwsKmsStore, tmp_path: Path) -> None:
    key = store.generate("prod")
    signature, pem = key.sign(MESSAGE), key.public_pem()
    by_salt = {salt: openssl_verifies(tmp_path, pem, MESSAGE, signature, salt=salt) for salt in (0, 31, 32, 33, 222)}
    assert by_salt == {0: False, 31: False, 32: True, 33: False, 222: False}


def test_a_new_key_is_minted_with_alias_tag_and_description(store: AwsKmsStore, by_hand: Any) -> None:
    key = store.generate("prod")
    assert (key.state, key.api_key_id) == (KeyState.MINTED, None)
    metadata = by_hand.describe_key(KeyId="alias/hsm-keys/prod")["KeyMetadata"]
    assert (metadata["KeySpec"], metadata["KeyUsage"], metadata["Origin"]) == ("RSA_2048", "SIGN_VERIFY", "AWS_KMS")
    assert metadata["Description"] == "Kalshi API key prod, made by hsm-keys"
    assert metadata["MultiRegion"] is False
    assert tags_of(by_hand, metadata["KeyId"]) == {"hsm-keys:name": "prod"}


def test_binding_tags_the_key_and_any_machine_reads_it(store: AwsKmsStore, by_hand: Any) -> None:
    bound = store.bind(store.generate("prod", KeyType.ED25519), API_KEY_ID, "prod")
    assert (bound.state, bound.api_key_id) == (KeyState.REGISTERED, API_KEY_ID)
    store.close()
    with open_kms(URI) as again:
        assert again.key("prod").api_key_id == API_KEY_ID
        assert [key.api_key_id for key in again.keys()] == [API_KEY_ID]


def test_whoever_saw_a_key_minted_binds_it_to_no_other_id_than_somebody_else_has(store: AwsKmsStore) -> None:
    minted = store.generate("prod", KeyType.ED25519)
    for _ in range(2):
        bound = store.bind(minted, API_KEY_ID, "prod")  # what is done stays done
    with pytest.raises(KmsKeyNotFoundError, match="somebody else has registered"):
        store.bind(minted, "1b6b7a3c-5f5e-4c3a-9d43-0d1a5a1b2c3d", "prod")
    assert store.bind(bound, "2b6b7a3c-5f5e-4c3a-9d43-0d1a5a1b2c3d", "prod").api_key_id != API_KEY_ID


def test_an_id_that_no_tag_can_hold_is_refused_before_anything_is_sent(store: AwsKmsStore) -> None:
    key = store.generate("prod", KeyType.ED25519)
    with pytest.raises(StoreError, match="tag"):
        store.bind(key, "id#1", "prod")
    assert store.key("prod").api_key_id is None


def test_keys_are_sorted_and_only_ours_that_can_sign(store: AwsKmsStore, by_hand: Any) -> None:
    for name in ("b", "a", "team/c"):
        store.generate(name.replace("/", "-"), KeyType.ED25519)
    foreign = by_hand.create_key()["KeyMetadata"]["KeyId"]
    by_hand.create_alias(AliasName="alias/hsm-keys/symmetric", TargetKeyId=foreign)
    by_hand.create_alias(AliasName="alias/other", TargetKeyId=foreign)
    keys = store.keys()
    assert [key.name for key in keys] == ["a", "b", "team-c"]
    assert keys[0].uri == f"awskms:///alias/hsm-keys/a?region={REGION}"
    assert store.describe() == f"AWS KMS in {REGION}"


def test_a_uri_of_a_key_opens_that_key_alone(store: AwsKmsStore) -> None:
    store.generate("prod", KeyType.ED25519)
    store.generate("staging", KeyType.ED25519)
    with open_kms(store.key("prod").uri) as one:
        assert [key.name for key in one.keys()] == ["prod"]
        assert one.key("").name == one.key("prod").name == one.key("alias/hsm-keys/prod").name == "prod"
        with pytest.raises(KeyNotFoundError, match="names the key 'prod'"):
            one.key("staging")
        with pytest.raises(UsageError):
            one.generate("third", KeyType.ED25519)


def test_a_key_made_elsewhere_is_found_by_alias_id_and_arn(store: AwsKmsStore, by_hand: Any, tmp_path: Path) -> None:
    made = by_hand.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]
    by_hand.create_alias(AliasName="alias/trading/kalshi", TargetKeyId=made["KeyId"])
    for reference in ("alias/trading/kalshi", made["KeyId"], made["Arn"]):
        key = store.key(reference)
        assert (key.name, key.state) == (reference, KeyState.FOREIGN)
        assert openssl_verifies(tmp_path, key.public_pem(), MESSAGE, key.sign(MESSAGE))
        with open_kms(key.uri) as one:
            assert one.key("").public_pem() == key.public_pem()
    store.bind(store.key("alias/trading/kalshi"), API_KEY_ID, "prod")
    assert store.key("alias/trading/kalshi").api_key_id == API_KEY_ID


@pytest.mark.parametrize("name", ["nope", "with.dot", "prod+other", "", "a b"])
def test_an_unknown_name_is_an_error_of_key_and_of_aws(store: AwsKmsStore, name: str) -> None:
    with pytest.raises(KmsKeyNotFoundError) as caught:
        store.key(name)
    assert isinstance(caught.value, KeyNotFoundError)
    assert caught.value.exit_code == 8
    assert caught.value.hint


def test_a_symmetric_key_is_refused(store: AwsKmsStore, by_hand: Any) -> None:
    symmetric = by_hand.create_key()["KeyMetadata"]["KeyId"]
    by_hand.create_alias(AliasName="alias/hsm-keys/prod", TargetKeyId=symmetric)
    with pytest.raises(KmsKeyUnsuitableError, match="isn't made for this") as caught:
        store.key("prod")
    assert "SIGN_VERIFY" in caught.value.hint


@pytest.mark.parametrize(("spec", "usage"), [("RSA_2048", "ENCRYPT_DECRYPT"), ("ECC_NIST_P256", "SIGN_VERIFY")])
def test_a_key_for_something_else_is_refused(store: AwsKmsStore, by_hand: Any, spec: str, usage: str) -> None:
    key_id = by_hand.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["KeyId"]
    with pytest.raises(KmsKeyUnsuitableError, match=f"it is {spec} for {usage}"):
        store.key(key_id)


def test_a_key_of_another_account_is_refused_clearly(store: AwsKmsStore) -> None:
    with pytest.raises(KmsKeyNotFoundError) as caught:
        store.key(f"arn:aws:kms:{REGION}:999988887777:key/1234abcd-12ab-34cd-56ef-1234567890ab")
    assert "account" in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", ["with.dot", "", "-x", "a/b", "prod+other", "x" * 65])
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(store: AwsKmsStore, by_hand: Any, name: str) -> None:
    with pytest.raises(UsageError):
        store.generate(name)
    assert by_hand.list_keys()["Keys"] == []


def test_a_taken_name_is_refused_and_nothing_is_made(store: AwsKmsStore, by_hand: Any) -> None:
    store.generate("prod", KeyType.ED25519)
    with pytest.raises(KeyExistsError, match="already has the alias"):
        store.generate("prod", KeyType.ED25519)
    assert len(by_hand.list_keys()["Keys"]) == 1


def test_a_disabled_key_says_so_and_still_shows_its_state(store: AwsKmsStore, by_hand: Any) -> None:
    key = store.generate("prod", KeyType.ED25519)
    by_hand.disable_key(KeyId="alias/hsm-keys/prod")
    with pytest.raises(KmsKeyDisabledError, match="disabled"):
        key.sign(MESSAGE)
    shown = store.key("prod").attributes()
    assert (shown["key_state"], shown["deletion_date"]) == ("Disabled", None)


def test_attributes_tell_state_origin_dates_and_regions(store: AwsKmsStore, by_hand: Any) -> None:
    shown = store.generate("prod", KeyType.ED25519).attributes()
    metadata = by_hand.describe_key(KeyId="alias/hsm-keys/prod")["KeyMetadata"]
    assert shown["creation_date"] == metadata["CreationDate"].astimezone(UTC).isoformat()
    assert (shown["key_id"], shown["arn"]) == (metadata["KeyId"], metadata["Arn"])
    assert "ED25519_SHA_512" in str(shown["signing_algorithms"])
    assert {name: shown[name] for name in ("key_state", "origin", "key_spec", "multi_region", "primary_region")} == {
        "key_state": "Enabled",
        "origin": "AWS_KMS",
        "key_spec": "ECC_NIST_EDWARDS25519",
        "multi_region": False,
        "primary_region": None,
    }


def test_destroy_schedules_the_deletion_and_frees_the_name(store: AwsKmsStore, by_hand: Any) -> None:
    key = store.generate("prod", KeyType.ED25519)
    old = store.key("prod")
    store.destroy(key)
    metadata = by_hand.describe_key(KeyId=old.arn)["KeyMetadata"]
    assert metadata["KeyState"] == "PendingDeletion"
    assert 6 <= (metadata["DeletionDate"] - metadata["CreationDate"]).days <= 7
    assert store.keys() == []
    with pytest.raises(KmsKeyPendingDeletionError) as caught:
        old.sign(MESSAGE)
    assert "cancel-key-deletion" in caught.value.hint
    assert store.key(old.arn).attributes()["deletion_date"] == metadata["DeletionDate"].astimezone(UTC).isoformat()
    assert store.key(store.generate("prod", KeyType.ED25519).name).public_pem() != old.public_pem()


def test_destroy_can_be_run_again(store: AwsKmsStore, by_hand: Any) -> None:
    key = store.generate("prod", KeyType.ED25519)
    by_hand.schedule_key_deletion(KeyId="alias/hsm-keys/prod", PendingWindowInDays=7)  # killed before the alias went
    store.destroy(key)
    assert by_hand.list_aliases()["Aliases"] == []


def test_a_key_that_an_interrupted_run_left_without_alias_is_picked_up(store: AwsKmsStore, by_hand: Any) -> None:
    mine = {"TagKey": "hsm-keys:name", "TagValue": "prod"}
    others = {"TagKey": "hsm-keys:name", "TagValue": "staging"}
    by_hand.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY", Tags=[others])
    by_hand.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
    dying = by_hand.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY", Tags=[mine])["KeyMetadata"]["KeyId"]
    by_hand.schedule_key_deletion(KeyId=dying, PendingWindowInDays=7)
    used = by_hand.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY", Tags=[mine])["KeyMetadata"]["KeyId"]
    by_hand.create_alias(AliasName="alias/in-use", TargetKeyId=used)
    left = by_hand.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY", Tags=[mine])["KeyMetadata"]
    before = len(by_hand.list_keys()["Keys"])
    store.generate("prod")
    assert store.key("prod").arn == left["Arn"]
    assert len(by_hand.list_keys()["Keys"]) == before


def test_a_left_over_key_of_another_type_is_not_taken_and_nothing_is_made(store: AwsKmsStore, by_hand: Any) -> None:
    mine = {"TagKey": "hsm-keys:name", "TagValue": "prod"}
    left = by_hand.create_key(KeySpec="RSA_3072", KeyUsage="SIGN_VERIFY", Tags=[mine])["KeyMetadata"]["KeyId"]
    with pytest.raises(KeyProblemError, match="RSA_3072") as caught:
        store.generate("prod", KeyType.ED25519)
    assert left in caught.value.hint
    assert len(by_hand.list_keys()["Keys"]) == 1


def test_a_registered_key_that_lost_its_alias_is_neither_picked_up_nor_cleared(
    store: AwsKmsStore, by_hand: Any
) -> None:
    tags = {"hsm-keys:name": "prod", "hsm-keys:api-key-id": "id", "hsm-keys:environment": "demo"}
    living = by_hand.create_key(
        KeySpec="RSA_2048",
        KeyUsage="SIGN_VERIFY",
        Tags=[{"TagKey": tag, "TagValue": value} for tag, value in tags.items()],
    )["KeyMetadata"]["KeyId"]
    assert not store.clear("prod")
    assert store.generate("prod", KeyType.ED25519).arn.rpartition("/")[2] != living
    assert by_hand.describe_key(KeyId=living)["KeyMetadata"]["KeyState"] == "Enabled"


def test_a_key_policy_and_multi_region_reach_the_key(account: str, by_hand: Any) -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    with open_kms(URI, creation=KeyCreation(multi_region=True, policy=policy)) as store:
        shown = store.generate("prod", KeyType.ED25519).attributes()
    assert (shown["multi_region"], shown["multi_region_type"], shown["primary_region"]) == (True, "PRIMARY", REGION)
    assert by_hand.get_key_policy(KeyId="alias/hsm-keys/prod")["Policy"] == policy


@pytest.mark.parametrize("policy", ["", "{", "[]", "{}", '"Statement"', '{"Statement": "' + "x" * 33000 + '"}'])
def test_what_is_no_key_policy_is_refused_before_anything_is_opened(policy: str) -> None:
    with pytest.raises(UsageError, match="key policy"):
        KeyCreation(policy=policy)


def test_custody_of_a_key_made_in_kms(store: AwsKmsStore) -> None:
    report = prove_custody(store.generate("prod", KeyType.ED25519)).as_dict()
    assert (report["verdict"], report["problems"]) == ("in custody", [])
    assert (report["origin"], report["key_usage"], report["key_manager"]) == ("AWS_KMS", "SIGN_VERIFY", "CUSTOMER")
    assert report["private_half_readable"] is False
    assert report["signature_verified"] is True


ORIGINS = [
    ("AWS_KMS", False, CustodyVerdict.GOOD),
    ("EXTERNAL", False, CustodyVerdict.BAD),
    ("EXTERNAL", True, CustodyVerdict.UNKNOWN),
    ("AWS_CLOUDHSM", True, CustodyVerdict.UNKNOWN),
    ("EXTERNAL_KEY_STORE", False, CustodyVerdict.UNKNOWN),
    (None, False, CustodyVerdict.UNKNOWN),
]


@pytest.mark.parametrize(("origin", "accept", "verdict"), ORIGINS)
def test_where_the_private_half_came_from_is_judged(origin: str | None, accept: bool, verdict: CustodyVerdict) -> None:
    facts = {fact.name: fact for fact in custody_facts_of({"Origin": origin}, accept_imported=accept)}
    assert facts["origin"].verdict is verdict
    assert facts["origin"].note or verdict is CustodyVerdict.GOOD
    assert facts["key_usage"].verdict is CustodyVerdict.UNKNOWN


def test_a_key_that_aws_manages_is_not_in_custody() -> None:
    facts = custody_facts_of({"KeyManager": "AWS", "KeyUsage": "ENCRYPT_DECRYPT"}, accept_imported=False)
    verdicts = {fact.name: fact.verdict for fact in facts}
    assert (verdicts["key_manager"], verdicts["key_usage"]) == (CustodyVerdict.BAD, CustodyVerdict.BAD)


def test_an_imported_key_is_not_in_custody(store: AwsKmsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    key = store.generate("prod", KeyType.ED25519)
    said = store.describe_key(store.key("prod"))
    monkeypatch.setattr(store, "describe_key", lambda _: {**said, "Origin": "EXTERNAL"})
    with pytest.raises(CustodyError, match="origin=EXTERNAL"):
        prove_custody(key)


def test_a_region_comes_from_awss_own_variables(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", OTHER_REGION)
    with open_kms("awskms:///") as store:
        assert store.uri == f"awskms:///?region={OTHER_REGION}"
    monkeypatch.setenv("AWS_REGION", REGION)
    with open_kms("awskms:///") as store:
        assert store.uri == URI


def test_no_region_is_an_error_that_says_where_to_name_one(account: str) -> None:
    with pytest.raises(AwsRegionError) as caught:
        open_kms("awskms:///")
    assert caught.value.exit_code == 8
    assert "AWS_REGION" in caught.value.hint


def test_no_credentials_are_an_error_before_anything_is_sent(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AwsCredentialsError, match="no AWS credentials") as caught:
        open_kms(URI)
    assert caught.value.exit_code == 8


def test_half_a_pair_of_credentials_and_an_unknown_profile_are_errors(
    account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AwsCredentialsError, match="no such profile"):
        open_kms(URI + "&profile=nobody")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        AwsCredentialsError, match=r"AWS's credentials are incomplete: 'AWS_SECRET_ACCESS_KEY' is missing"
    ):
        open_kms(URI)


def test_an_endpoint_that_is_no_url_is_a_usage_error(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "not a url")
    with pytest.raises(UsageError, match="endpoint"):
        open_kms(URI)


def test_a_closed_store_signs_nothing_and_closes_twice(store: AwsKmsStore) -> None:
    key = store.generate("prod", KeyType.ED25519)
    store.close()
    store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        key.sign(MESSAGE)


def test_two_stores_share_a_connection_and_the_last_one_closes_it(store: AwsKmsStore) -> None:
    key = store.generate("prod")
    with open_kms(URI) as second:
        assert second.caller()._connection is store.caller()._connection
    assert len(key.sign(MESSAGE)) == 256


def test_botocore_is_imported_when_a_store_is_opened_and_not_before() -> None:
    code = "import sys, hsm_keys.stores.awskms, hsm_keys.stores.awskms.uri; print('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_botocore_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['botocore'] = None\n"
        "from hsm_keys.errors import StoreError\n"
        "from hsm_keys.stores.awskms import open_kms\n"
        "try: open_kms('awskms:///?region=us-east-1')\n"
        "except StoreError as error: print(error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "pip install 'hsm-keys[kms]'\n"


def test_keys_that_kms_is_about_to_delete_ask_kalshi_nothing(
    store: AwsKmsStore, by_hand: Any, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no other key left, commands say that, and not that the key can't sign."""
    environment = environment_name(sandbox.base_url)
    store.bind(store.generate("prod", KeyType.ED25519), "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", environment)
    by_hand.schedule_key_deletion(KeyId="alias/hsm-keys/prod", PendingWindowInDays=7)
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY", "KALSHI_PRIVATE_KEY_PATH"):
        monkeypatch.delenv(name, raising=False)
    error = failed_json(5, "reconcile", "--store", store.uri, "--base-url", sandbox.base_url)
    assert error["code"] == "key_not_registered"
    assert "isn't about to be deleted" in error["message"]
    assert "KALSHI_KEY_ID" in error["hint"]
