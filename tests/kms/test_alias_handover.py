"""Aliases and tags in a rotation, on a real KMS server (ministack)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType
from hsm_keys.errors import KeyExistsError
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.tags import KeyCreation, alias_of, name_of_alias
from hsm_keys.stores.key_names import RETIRED, SUCCESSOR
from tests.support.ministack import OTHER_REGION, REGION, account

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys import StoredKey
    from hsm_keys.stores.awskms.store import AwsKmsStore

pytestmark = [pytest.mark.kms, pytest.mark.usefixtures("account")]

__all__ = ["account"]  # pytest finds the fixture here

URI = f"awskms:///?region={REGION}"
OLD_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NEW_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@pytest.fixture
def store(account: str) -> Iterator[AwsKmsStore]:
    with open_kms(URI) as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("prod", "alias/hsm-keys/prod"),
        ("prod+next", "alias/hsm-keys/prod/next"),
        ("prod+retired", "alias/hsm-keys/prod/retired"),
        ("prod+kept-0f8fad5b", "alias/hsm-keys/prod/kept-0f8fad5b"),
    ],
)
def test_a_mark_is_a_part_of_the_alias(name: str, alias: str) -> None:
    assert alias_of(name) == alias
    assert name_of_alias(alias) == name


def test_an_alias_with_a_folder_of_its_own_keeps_its_name() -> None:
    assert name_of_alias("alias/hsm-keys/team/prod") == "team/prod"


def test_the_alias_moves_and_both_keys_go_on_signing(store: AwsKmsStore) -> None:
    old = store.bind(store.generate("prod", KeyType.ED25519), OLD_ID, "prod")
    new = store.bind(store.generate_like(old, "prod" + SUCCESSOR), NEW_ID, "prod")
    taken, left = store.hand_over("prod", taker=new, leaver=old, mark=RETIRED)
    assert (taken.name, taken.api_key_id, left.name, left.api_key_id) == ("prod", NEW_ID, "prod+retired", OLD_ID)
    assert {key.name: key.api_key_id for key in store.keys()} == {"prod": NEW_ID, "prod+retired": OLD_ID}
    assert old.current().api_key_id == NEW_ID
    assert all(key.sign(b"message") for key in (old, new, taken, left))
    store.hand_over("prod", taker=left, leaver=taken, mark=SUCCESSOR)
    assert {key.name: key.api_key_id for key in store.keys()} == {"prod": OLD_ID, "prod+next": NEW_ID}


def test_after_a_kill_between_any_two_calls_the_name_has_a_key_and_the_rest_can_be_done(
    store: AwsKmsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hsm_keys.stores.awskms import alias_handover
    from hsm_keys.stores.awskms.error_mapping import ask as real

    def stopping_after(calls: int) -> Any:
        left = [calls]

        def ask(*args: Any, **parameters: Any) -> Any:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*args, **parameters)

        return ask

    old: StoredKey = store.bind(store.generate("prod", KeyType.ED25519), OLD_ID, "prod")
    stopped = 0
    new: StoredKey
    while True:
        new = store.bind(store.generate_like(old, "prod" + SUCCESSOR), NEW_ID, "prod")
        stopping = stopping_after(stopped)
        monkeypatch.setattr(alias_handover, "ask", stopping)
        try:
            store.hand_over("prod", taker=new, leaver=old, mark=RETIRED)
        except KeyboardInterrupt:
            finished = False
        else:
            finished = True
        monkeypatch.setattr(alias_handover, "ask", real)
        assert store.key("prod").sign(b"message")
        assert {key.api_key_id for key in store.keys()} == {OLD_ID, NEW_ID}
        new, old = store.hand_over("prod", taker=new, leaver=old, mark=RETIRED)
        assert {key.name: key.api_key_id for key in store.keys()} == {"prod": NEW_ID, "prod+retired": OLD_ID}
        if finished:
            break
        store.destroy(new)
        old = store.rename(old, "prod")
        stopped += 1
    assert stopped == 5  # TagResource for the old key's word, UpdateAlias, two times TagResource, DeleteAlias


def test_a_multi_region_key_is_handed_over_everywhere(account: str) -> None:
    with open_kms(URI, creation=KeyCreation(multi_region=True)) as store:
        old = store.bind(store.generate("prod", KeyType.ED25519), OLD_ID, "prod")
        store.replicate("prod", OTHER_REGION)
        new = store.bind(store.generate_like(old, "prod" + SUCCESSOR), NEW_ID, "prod")
        assert new.attributes()["multi_region"] is True
        store.hand_over("prod", taker=new, leaver=old, mark=RETIRED)
    for region in (REGION, OTHER_REGION):
        with open_kms(f"awskms:///?region={region}") as there:
            assert {key.name: key.api_key_id for key in there.keys()} == {"prod": NEW_ID, "prod+retired": OLD_ID}
            assert there.key("prod").sign(b"message")


def test_the_successor_has_the_same_key_policy(store: AwsKmsStore) -> None:
    policy = '{"Version": "2012-10-17", "Statement": []}'
    with open_kms(URI, creation=KeyCreation(policy=policy)) as creating:
        old = creating.generate("prod", KeyType.ED25519)
    new = store.generate_like(old, "prod" + SUCCESSOR)
    client = store.caller().manage(REGION)
    assert client.get_key_policy(KeyId=new.arn)["Policy"] == policy


def test_an_alias_that_is_taken_is_refused(store: AwsKmsStore) -> None:
    store.generate("taken", KeyType.ED25519)
    key = store.generate("prod", KeyType.ED25519)
    with pytest.raises(KeyExistsError):
        store.rename(key, "taken")
    assert [found.name for found in store.keys()] == ["prod", "taken"]
