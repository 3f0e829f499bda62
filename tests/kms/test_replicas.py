"""Multi-Region keys on a real KMS server (ministack): replicas, and what reaches every Region."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import botocore.session  # type: ignore[import-untyped]  # botocore has no annotations
import pytest

from hsm_keys import KeyType
from hsm_keys.errors import KeyExistsError
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.errors import KmsKeyUnsuitableError
from hsm_keys.stores.awskms.tags import KeyCreation
from tests.support.ministack import OTHER_REGION, REGION, account
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kms, pytest.mark.usefixtures("account")]

__all__ = ["account"]  # pytest finds the fixture here

URI = f"awskms:///?region={REGION}"
BOTH = f"awskms:///?region={REGION},{OTHER_REGION}"
MESSAGE = b"1703123456789GET/trade-api/v2/portfolio/balance"
API_KEY_ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"
POLICY = json.dumps({"Version": "2012-10-17", "Statement": []})


def multi_region_key() -> None:
    with open_kms(URI, creation=KeyCreation(multi_region=True, policy=POLICY)) as store:
        store.bind(store.generate("prod", KeyType.ED25519), API_KEY_ID, "prod")
        store.replicate("prod", OTHER_REGION)


def test_a_replica_has_alias_tags_policy_and_signs(account: str, tmp_path: Path) -> None:
    multi_region_key()
    with open_kms(URI) as store, open_kms(f"awskms:///?region={OTHER_REGION}") as other:
        key, replica = store.key("prod"), other.key("prod")
        assert (key.attributes()["replica_regions"], replica.attributes()["multi_region_type"]) == (
            OTHER_REGION,
            "REPLICA",
        )
        assert replica.api_key_id == API_KEY_ID
        assert other.caller().manage(OTHER_REGION).get_key_policy(KeyId=replica.arn)["Policy"] == POLICY
        assert openssl_verifies(tmp_path, key.public_pem(), MESSAGE, replica.sign(MESSAGE))


def test_replicating_again_repairs_what_is_missing(account: str) -> None:
    multi_region_key()
    there = botocore.session.Session().create_client("kms", region_name=OTHER_REGION)
    key_id = there.describe_key(KeyId="alias/hsm-keys/prod")["KeyMetadata"]["KeyId"]
    there.delete_alias(AliasName="alias/hsm-keys/prod")
    there.untag_resource(KeyId=key_id, TagKeys=["hsm-keys:api-key-id"])
    with open_kms(URI) as store:
        store.replicate("prod", OTHER_REGION)
        store.replicate("prod", OTHER_REGION)
    with open_kms(f"awskms:///?region={OTHER_REGION}") as other:
        assert other.key("prod").api_key_id == API_KEY_ID
    there.close()


def test_a_replica_is_not_made_where_the_alias_is_taken(account: str) -> None:
    with open_kms(f"awskms:///?region={OTHER_REGION}") as other:
        other.generate("prod", KeyType.ED25519)
    with open_kms(URI, creation=KeyCreation(multi_region=True)) as store:
        key = store.generate("prod", KeyType.ED25519)
        with pytest.raises(KeyExistsError, match="belongs to another key"):
            store.replicate("prod", OTHER_REGION)
        assert key.attributes()["replica_regions"] is None


def test_a_key_of_one_region_cannot_be_replicated_or_stand_in_several(account: str) -> None:
    with open_kms(URI) as store:
        store.generate("prod", KeyType.ED25519)
        with pytest.raises(KmsKeyUnsuitableError, match="made for one Region") as caught:
            store.replicate("prod", OTHER_REGION)
    assert "--multi-region" in caught.value.hint
    with open_kms(BOTH) as both, pytest.raises(KmsKeyUnsuitableError, match="several Regions"):
        both.key("prod")


def test_binding_and_destroying_reach_every_region(account: str) -> None:
    multi_region_key()
    with open_kms(BOTH) as store:
        store.bind(store.key("prod"), "another-id", "prod")
    with open_kms(f"awskms:///?region={OTHER_REGION}") as other, open_kms(URI) as store:
        assert other.key("prod").api_key_id == "another-id"
        replica = other.key("prod")
        store.destroy(store.key("prod"))
        assert (store.keys(), other.keys()) == ([], [])
        assert replica.attributes()["key_state"] == "PendingDeletion"
