"""Names that go from key to key, as a rotation needs it, in a real token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import AttributeReadOnly

from hsm_keys import KeyType, open_store
from hsm_keys.errors import KeyBusyError, KeyExistsError, KeyNotFoundError, StoreError
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.key_names import RETIRED, SUCCESSOR
from hsm_keys.stores.pkcs11.key_pairs import make_pair
from hsm_keys.stores.pkcs11.marks import passing_id, read_mark
from hsm_keys.stores.pkcs11.objects import Objects
from tests.support.oddkeys import session_of

if TYPE_CHECKING:
    from hsm_keys import KeyStore, StoredKey
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm

OLD_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NEW_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


def pair(store: KeyStore, key_type: KeyType = KeyType.ED25519) -> tuple[StoredKey, StoredKey]:
    old = store.bind(store.generate("prod", key_type), OLD_ID, "prod")
    return old, store.bind(store.generate_like(old, "prod" + SUCCESSOR), NEW_ID, "prod")


def labels(store: KeyStore) -> dict[str, str | None]:
    return {key.name: key.api_key_id for key in store.keys()}


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_the_successor_gets_the_name_and_both_go_on_signing(store: KeyStore, key_type: KeyType) -> None:
    old, new = pair(store, key_type)
    taken, left = RenamesKeys.of(store).hand_over("prod", taker=new, leaver=old, mark=RETIRED)
    assert (taken.name, taken.api_key_id, taken.key_type) == ("prod", NEW_ID, key_type)
    assert (left.name, left.api_key_id) == ("prod+retired", OLD_ID)
    assert labels(store) == {"prod": NEW_ID, "prod+retired": OLD_ID}
    assert (taken.public_pem(), left.public_pem()) == (new.public_pem(), old.public_pem())
    for key in (old, new, taken, left):  # those that were opened before, too
        assert key.sign(b"message")
    publics = {
        (obj[Attribute.LABEL], read_mark(bytes(obj[Attribute.ID])).api_key_id)
        for obj in session_of(store).get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})
    }
    assert publics == {("prod", NEW_ID), ("prod+retired", OLD_ID)}


def test_a_key_opened_before_is_found_by_its_public_half_in_a_new_session(token: TestToken, store: KeyStore) -> None:
    old, new = pair(store)
    with open_store(token.uri) as elsewhere:
        opened_before = elsewhere.key("prod")
        RenamesKeys.of(store).hand_over("prod", taker=new, leaver=old, mark=RETIRED)
        assert opened_before.sign(b"message")  # its first signature: looked up now
        assert opened_before.current().api_key_id == NEW_ID


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
@pytest.mark.parametrize("writes", range(4))
def test_killed_at_any_write_the_name_is_found_and_the_rest_can_be_done(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, key_type: KeyType, writes: int
) -> None:
    old, new = pair(store, key_type)
    left = [writes]

    def stop() -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1

    def rename_pair(objects: Objects, private: Any, label: str, _former: str) -> bool:
        publics = objects.public_objects(private)
        stop()
        objects.write(private, Attribute.LABEL, label)
        stop()
        for public in publics:
            public[Attribute.LABEL] = label
        return True

    with monkeypatch.context() as patched:
        patched.setattr("hsm_keys.stores.pkcs11.store.rename_pair", rename_pair)
        with pytest.raises(KeyboardInterrupt):
            RenamesKeys.of(store).hand_over("prod", taker=new, leaver=old, mark=RETIRED)
    assert store.key("prod").api_key_id in {OLD_ID, NEW_ID}
    assert store.key("prod").sign(b"message")
    by_id = {key.api_key_id: key for key in store.keys()}
    assert set(by_id) == {OLD_ID, NEW_ID}
    RenamesKeys.of(store).hand_over("prod", taker=by_id[NEW_ID], leaver=by_id[OLD_ID], mark=RETIRED)
    assert labels(store) == {"prod": NEW_ID, "prod+retired": OLD_ID}


def private_of(store: KeyStore, key: StoredKey) -> tuple[Objects, Any]:
    shown: Objects = store._connection.objects  # type: ignore[attr-defined]  # of PKCS#11
    return shown, next(private for private in shown.private_keys() if shown.fits(private, key.public_key()))


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_of_two_keys_of_a_name_the_one_has_it_whose_public_object_says_so(store: KeyStore, key_type: KeyType) -> None:
    """The other one's machine was killed before it saw that another machine had given the name back."""
    old, new = pair(store, key_type)
    shown, private = private_of(store, new)
    shown.write(private, Attribute.LABEL, "prod")
    assert store.key("prod").api_key_id == OLD_ID
    assert labels(store) == {"prod": OLD_ID, "prod+next": NEW_ID}
    with pytest.raises(KeyBusyError, match=r"'prod\+next' keeps its own"):
        RenamesKeys.of(store).rename(new, "prod")
    assert private[Attribute.LABEL] == "prod+next"
    shown.write(private, Attribute.LABEL, "prod")
    store.mend("prod")
    assert private[Attribute.LABEL] == "prod+next"
    assert (store.key("prod").api_key_id, store.key("prod+next").api_key_id) == (OLD_ID, NEW_ID)
    RenamesKeys.of(store).hand_over("prod", taker=new, leaver=old, mark=RETIRED)
    assert labels(store) == {"prod": NEW_ID, "prod+retired": OLD_ID}


def test_two_keys_that_were_being_given_a_name_have_their_own_again(store: KeyStore) -> None:
    old, new = pair(store)
    RenamesKeys.of(store).rename(old, "prod+retired")
    for key in (old, new):
        shown, private = private_of(store, key)
        shown.write(private, Attribute.LABEL, "prod")
    store.mend("prod")
    assert labels(store) == {"prod+retired": OLD_ID, "prod+next": NEW_ID}


def test_a_key_that_is_destroyed_while_it_is_renamed_leaves_nothing(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair(store)
    write = Objects.write

    def and_destroy(shown: Objects, private: Any, attribute: Attribute, value: Any) -> None:
        write(shown, private, attribute, value)
        private.destroy()

    monkeypatch.setattr(Objects, "write", and_destroy)
    with pytest.raises(KeyNotFoundError, match="somebody else is destroying"):
        RenamesKeys.of(store).rename(new, "prod+aborting")
    assert {obj[Attribute.LABEL] for obj in session_of(store).get_objects()} == {old.name}


def test_a_public_object_that_can_not_be_renamed_leaves_the_private_one_its_name(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = pair(store)
    public = MagicMock()
    public.__setitem__.side_effect = AttributeReadOnly
    monkeypatch.setattr(Objects, "public_objects", lambda *_: [public])
    with pytest.raises(StoreError, match="doesn't let the label"):
        RenamesKeys.of(store).rename(old, "prod+retired")
    assert store.key("prod").api_key_id == OLD_ID


def test_the_way_back(store: KeyStore) -> None:
    old, new = pair(store)
    taken, left = RenamesKeys.of(store).hand_over("prod", taker=new, leaver=old, mark=RETIRED)
    RenamesKeys.of(store).hand_over("prod", taker=left, leaver=taken, mark=SUCCESSOR)
    assert labels(store) == {"prod": OLD_ID, "prod+next": NEW_ID}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "without its public half"])
def test_a_key_that_is_being_made_meanwhile_hides_none_of_the_two(store: KeyStore, whole: bool) -> None:
    """Another machine's maker gives way, or was killed before it did; its public object may have been removed."""
    old, _ = pair(store)
    RenamesKeys.of(store).rename(old, "prod" + RETIRED)
    made = store._connection.objects  # type: ignore[attr-defined]  # of PKCS#11
    stray = make_pair(made, "prod", KeyType.ED25519, passing_id("prod"))[0]
    if not whole:
        made.public_objects(stray)[0].destroy()
        made.proofs.clear()
    assert store.key("prod").api_key_id == NEW_ID


def test_a_name_that_is_taken_is_refused(store: KeyStore) -> None:
    store.generate("taken", KeyType.ED25519)
    key = store.generate("prod", KeyType.ED25519)
    with pytest.raises(KeyExistsError):
        RenamesKeys.of(store).rename(key, "taken")
    assert set(labels(store)) == {"prod", "taken"}


def test_no_key_of_a_rotation_under_way_answers_to_another_name(store: KeyStore) -> None:
    store.generate("prod" + SUCCESSOR)
    with pytest.raises(KeyNotFoundError):
        store.key("prod")  # a successor alone was never proved
