"""Keys in KMS that another program made: an alias of ours may lead to one, and makes it no key of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]  # boto3 has no annotations
import pytest

from hsm_keys import KeyState, KeyType
from hsm_keys.errors import ForeignKeyError, KeyNotRegisteredError
from hsm_keys.lifecycle.enroll import adopt, enroll_offline
from hsm_keys.lifecycle.rotation_marks import Stage
from hsm_keys.stores.awskms import open_kms
from tests.lifecycle.person import Person
from tests.support.ministack import REGION, account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys import StoredKey
    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.stores.awskms.store import AwsKmsStore

pytestmark = [pytest.mark.kms, pytest.mark.usefixtures("account")]

__all__ = ["account"]  # pytest finds the fixture here


@pytest.fixture
def store(account: str) -> Iterator[AwsKmsStore]:
    with open_kms(f"awskms:///?region={REGION}") as opened:
        yield opened


@pytest.fixture
def client(account: str) -> Any:
    return boto3.session.Session().client("kms", region_name=REGION)


@pytest.fixture
def foreign(client: Any) -> str:
    """A key that boto3 made, with an alias of ours and no tag; its id."""
    made = client.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY", MultiRegion=True)["KeyMetadata"]
    client.create_alias(AliasName="alias/hsm-keys/alpha", TargetKeyId=made["KeyId"])
    return str(made["KeyId"])


def seen(client: Any, key_id: str) -> tuple[Any, ...]:
    """Return all that hsm-keys could have changed of a key."""
    metadata = client.describe_key(KeyId=key_id)["KeyMetadata"]
    aliases = [alias["AliasName"] for alias in client.list_aliases(KeyId=key_id)["Aliases"]]
    tags = client.list_resource_tags(KeyId=key_id)["Tags"]
    return metadata["KeyState"], metadata["MultiRegionConfiguration"], aliases, tags


CHANGES: dict[str, Callable[[AwsKmsStore, StoredKey], object]] = {
    "destroy": lambda store, key: store.destroy(key),
    "rename": lambda store, key: store.rename(key, "beta"),
    "hand_over to it": lambda store, key: store.hand_over("prod", taker=key, leaver=store.key("prod"), mark="+retired"),
    "hand_over from it": lambda store, key: store.hand_over(
        "alpha", taker=store.key("prod"), leaver=key, mark="+retired"
    ),
    "replicate": lambda store, key: store.replicate(key.name, "us-west-2"),
    "enroll": lambda store, key: enroll_offline(store, key.name, None, lambda _: None, environment="demo"),
    "rotate": lambda store, key: Stage.read(store, key.name),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_never_ended_renamed_or_bound(store: AwsKmsStore, client: Any, foreign: str, change: str) -> None:
    store.generate("prod", KeyType.ED25519)
    before, key = seen(client, foreign), store.key("alpha")
    with pytest.raises(ForeignKeyError, match="alpha"):
        CHANGES[change](store, key)
    assert seen(client, foreign) == before
    assert store.key("prod").ours


def test_it_signs_where_an_id_is_given_and_is_adopted_by_adopt_alone(
    store: AwsKmsStore, foreign: str, sandbox: SandboxServer
) -> None:
    person = Person(sandbox, store)
    key = store.key("alpha")
    assert (key.state, key.api_key_id) == (KeyState.FOREIGN, None)
    with pytest.raises(KeyNotRegisteredError, match="isn't ours"):
        key.signer()
    api_key_id = sandbox.add_key("alpha", key.public_pem()).api_key_id
    with person.connect(key.signer(api_key_id=api_key_id)) as signed:
        assert signed.get_json("/portfolio/balance")
    adopt(store, "alpha", api_key_id, environment=person.environment, connect=person.connect, report=person.said.append)
    found = store.key("alpha")
    assert (found.state, found.api_key_id, found.environment) == (
        KeyState.REGISTERED,
        api_key_id,
        person.environment,
    )
    store.destroy(found)
