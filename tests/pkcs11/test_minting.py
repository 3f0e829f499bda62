"""Two makers of one name: whoever sees two keys gives way."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import pytest
from pkcs11.constants import Attribute, ObjectClass

from hsm_keys import KeyType, open_store
from hsm_keys.errors import KeyBusyError, KeyNotFoundError
from hsm_keys.stores.pkcs11 import attributes, halves, key_pairs, minting, objects
from hsm_keys.stores.pkcs11 import store as pkcs11_store
from hsm_keys.stores.pkcs11.key_pairs import make_pair, mend_pair, write_id
from hsm_keys.stores.pkcs11.marks import minted_id, passing_id, registered_id, registering_id
from hsm_keys.stores.pkcs11.objects import Objects, Pair
from tests.support.oddkeys import session_of

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm

PUBLIC = {Attribute.CLASS: ObjectClass.PUBLIC_KEY}


def test_a_maker_that_sees_another_ones_pair_destroys_its_own(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs: list[Any] = []

    def after_somebody_else(objects: Objects, name: str, key_type: KeyType, mark: bytes) -> tuple[Any, Any]:
        theirs.append(make_pair(objects, name, key_type, passing_id())[1])
        return make_pair(objects, name, key_type, mark)

    monkeypatch.setattr(minting, "make_pair", after_somebody_else)
    with open_store(token.uri) as store:
        with pytest.raises(KeyBusyError, match="this one is destroyed"):
            store.generate("prod", KeyType.ED25519)
        assert [key.public_key() for key in store.keys()] == theirs


def test_repairing_a_pair_does_not_disturb_the_run_that_is_writing_its_id(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way in which the maker's two writes can fall between what the other one reads."""
    mark, reads = passing_id(), 0
    due: dict[int, list[Any]] = {}
    original = attributes.read

    def read(obj: Any, attribute: Attribute) -> Any:
        nonlocal reads
        for written in due.pop(reads, []):
            written[Attribute.ID] = right
        reads += 1
        return original(obj, attribute)

    with open_store(token.uri) as store:
        session = session_of(store)
        shown = store._connection.objects  # type: ignore[attr-defined]  # of PKCS#11
        private, public_key = make_pair(shown, "prod", KeyType.ED25519, mark)
        (public,) = session.get_objects(PUBLIC)
        right = minted_id(public_key)
        for module in (attributes, halves, key_pairs, objects):
            monkeypatch.setattr(module, "read", read)
        mend_pair(shown, private)
        places = range(reads + 1)
        assert len(places) > 8
        for first, second in combinations_with_replacement(places, 2):
            private[Attribute.ID] = public[Attribute.ID] = mark
            reads, due = 0, {first: [private]}
            due.setdefault(second, []).append(public)
            mend_pair(shown, private)
            for left in list(due.values()):  # raises if the other one has destroyed it
                for written in left:
                    written[Attribute.ID] = right
            assert list(session.get_objects(PUBLIC)) == [public], (first, second)
            assert {original(half, Attribute.ID) for half in (private, public)} == {right}, (first, second)


def test_a_maker_whose_public_half_was_taken_leaves_nothing_behind(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Ed25519 private object alone can't be registered, and takes the name."""

    def after_somebody_else(shown: Objects, private: Any, cka_id: bytes) -> None:
        original = Objects.public_objects

        def without_it(*given: Any) -> list[Any]:
            publics = original(*given)
            for public in publics:
                public.destroy()
            return publics

        with monkeypatch.context() as patched:
            patched.setattr(Objects, "public_objects", without_it)
            write_id(shown, private, cka_id)

    monkeypatch.setattr(minting, "write_id", after_somebody_else)
    with open_store(token.uri) as store:
        with pytest.raises(KeyBusyError, match="it was destroyed again"):
            store.generate("prod", KeyType.ED25519)
        assert list(session_of(store).get_objects()) == []


@pytest.mark.parametrize("key_type", [KeyType.ED25519, KeyType.RSA_2048])
def test_a_maker_whose_pair_was_destroyed_before_it_looked_says_so(
    token: TestToken, monkeypatch: pytest.MonkeyPatch, key_type: KeyType
) -> None:
    original = Objects.public_key_of

    def after_somebody_else(shown: Objects, private: Any) -> Any:
        monkeypatch.undo()
        key_pairs.destroy_pair(shown, private)
        return original(shown, private)

    with open_store(token.uri) as store:
        monkeypatch.setattr(Objects, "public_key_of", after_somebody_else)
        with pytest.raises(KeyBusyError, match="it was destroyed again"):
            store.generate("prod", key_type)
        assert list(session_of(store).get_objects()) == []


def test_a_pair_that_somebody_begins_to_register_is_not_destroyed(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that falls between the look at the mark and the end: by then the public object says what goes on."""
    original = key_pairs.write_id

    def destroy(shown: Objects, private: Any, check: Any) -> None:
        for public in shown.public_objects(private):
            public[Attribute.LABEL] = "+destroyed"
        original(shown, private, registering_id(key.public_key(), "prod"))
        key_pairs.destroy_pair(shown, private, check)

    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        monkeypatch.setattr(pkcs11_store, "destroy_pair", destroy)
        with pytest.raises(KeyBusyError, match="nothing was destroyed"):
            store.destroy(key)
        labels = {obj[Attribute.LABEL] for obj in session_of(store).get_objects()}
        assert (labels, store.key("prod").registering) == ({"prod"}, True)


def test_a_pair_that_is_being_destroyed_or_was_bound_meanwhile_is_not_registered(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = key_pairs.write_id

    def destroying(shown: Objects, private: Any, cka_id: bytes) -> None:
        original(shown, private, cka_id)
        for public in shown.public_objects(private):
            public[Attribute.LABEL] = "+destroyed"

    def bound(shown: Objects, private: Any, cka_id: bytes) -> None:
        original(shown, private, cka_id)
        original(shown, private, registered_id("3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", "prod"))

    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        for meanwhile in (destroying, bound):
            with monkeypatch.context() as patched:
                patched.setattr(pkcs11_store, "write_id", meanwhile)
                with pytest.raises(KeyBusyError):
                    store.begin_registration(key, "prod")
            store.mend("prod")
        monkeypatch.setattr(pkcs11_store, "write_id", destroying)
        with pytest.raises(KeyNotFoundError, match="destroying"):
            store.bind(key, "1b6b7a3c-5f5e-4c3a-9d43-0d1a5a1b2c3d", "prod")


def test_a_pair_that_somebody_is_removing_is_no_broken_one(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    original, half = Objects.pairs, [Pair(1, "prod", b"id", None)]

    def pairs(shown: Objects, label: str | None = None) -> list[Pair]:
        return [half.pop()] if half else original(shown, label)

    with open_store(token.uri) as store:
        monkeypatch.setattr(Objects, "pairs", pairs)
        with pytest.raises(KeyNotFoundError):
            store.key("prod")


def test_half_a_pair_is_said_to_be_left_over_and_can_be_cleared_away(token: TestToken) -> None:
    with open_store(token.uri) as store:
        whole = store.generate("prod", KeyType.ED25519)
        half = store.generate("prod+next", KeyType.ED25519)
        registered = store.bind(store.generate("bot", KeyType.ED25519), "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", "prod")
        for key in (half, registered):
            for public in session_of(store).get_objects(PUBLIC):
                if public[Attribute.LABEL] == key.name:
                    public.destroy()
    with open_store(token.uri) as store:
        assert {each.name: each.left_over for each in store.contents().unusable} == {"prod+next": True, "bot": False}
        assert [store.clear(name) for name in ("prod", "prod+next", "prod+next", "bot")] == [False, True, False, False]
        assert [key.name for key in store.keys()] == [whole.name]
        assert [each.name for each in store.contents().unusable] == ["bot"]


def test_two_pairs_of_which_neither_maker_came_to_its_end_go_with_the_next_command(token: TestToken) -> None:
    with open_store(token.uri) as store:
        shown = store._connection.objects  # type: ignore[attr-defined]  # of PKCS#11
        for _ in range(2):
            make_pair(shown, "prod", KeyType.ED25519, passing_id("prod"))
        store.mend("prod")
        assert list(session_of(store).get_objects()) == []
