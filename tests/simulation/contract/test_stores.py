"""Stores, through their own code: what the workflows rely on, on the doubles and on the real parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import KeyBusyError, KeyExistsError, KeyNotFoundError
from hsm_keys.inspecting.proof_of_possession import can_sign
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.base import KeyState
from hsm_keys.stores.key_names import RETIRED, SUCCESSOR
from hsm_keys.stores.marks import UNNAMED, Claim, Intent
from tests.simulation.pairs import Pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.stores.base import KeyStore

    Opened = Callable[[], KeyStore]

ID = "0b6b7a3c-5f5e-4c3a-9d43-0d1a5a1b2c3d"
OTHER_ID = "1b6b7a3c-5f5e-4c3a-9d43-0d1a5a1b2c3d"


def read(store: KeyStore) -> list[tuple[str, str | None, str | None, KeyState]]:
    return [(key.name, key.api_key_id, key.environment, key.state) for key in store.keys()]


def test_a_key_is_made_found_and_bound(opened: Opened) -> None:
    with opened() as store:
        assert store.keys() == []
        assert not store.holds("prod")
        made = store.generate("prod", KeyType.ED25519)
        store.confirm(made)
        assert made.key_type is KeyType.ED25519
        assert read(store) == [("prod", None, None, KeyState.MINTED)]
        assert store.holds("prod")
        bound = store.bind(made, ID, "demo")
        assert (bound.name, bound.api_key_id, bound.environment) == ("prod", ID, "demo")
    with opened() as store:
        assert read(store) == [("prod", ID, "demo", KeyState.REGISTERED)]
        key = store.key("prod")
        assert key.public_key() == made.public_key()
        assert can_sign(key)


def test_a_key_says_from_its_first_moment_for_which_environment_it_was_made(opened: Opened) -> None:
    with opened() as store:
        made = store.generate("prod", KeyType.ED25519, "demo")
        store.confirm(made)
        for key in (made, store.key("prod")):
            assert (key.state, key.environment, key.registering) == (KeyState.MINTED, "demo", False)
        begun = store.begin_registration(made, "demo")
        for key in (begun, store.key("prod")):
            assert (key.environment, key.registering, key.claim) == ("demo", True, None)
        offered = store.generate("bot", KeyType.ED25519, UNNAMED)
        for key in (offered, store.key("bot")):
            assert (key.environment, key.registering, key.offered) == (None, False, True)


def test_a_key_says_where_it_is_about_to_be_registered_until_it_is(opened: Opened) -> None:
    with opened() as store:
        made = store.generate("prod", KeyType.ED25519)
        begun = store.begin_registration(made, "demo")
        for key in (begun, store.key("prod")):
            assert (key.state, key.environment, key.registering) == (KeyState.MINTED, "demo", True)
        again = store.begin_registration(begun, "prod")
        assert (again.environment, again.registering) == ("prod", True)
        for claim in (Claim(Intent.TAKES, ID), Claim(Intent.LEAVES, "key-1"), None):
            claimed = store.begin_registration(again, "prod", claim)
            for key in (claimed, store.key("prod")):
                assert (key.state, key.environment, key.registering, key.claim) == (
                    KeyState.MINTED,
                    "prod",
                    True,
                    claim,
                )
        store.begin_registration(again, "prod", Claim(Intent.TAKES, ID))
        store.bind(again, ID, "prod")
        with pytest.raises(KeyBusyError):
            store.begin_registration(again, "demo")
        key = store.key("prod")
        assert (key.state, key.environment, key.registering) == (KeyState.REGISTERED, "prod", False)
        assert key.claim is None
        assert can_sign(key)


def test_a_key_says_that_nobody_said_where_it_is_to_be_registered(opened: Opened) -> None:
    with opened() as store:
        offered = store.begin_registration(store.generate("prod", KeyType.ED25519), UNNAMED)
        for key in (offered, store.key("prod")):
            assert (key.state, key.environment, key.registering, key.offered) == (KeyState.MINTED, None, False, True)
        store.bind(offered, ID, "prod")
        key = store.key("prod")
        assert (key.state, key.environment, key.offered) == (KeyState.REGISTERED, "prod", False)


def test_a_name_is_given_once(opened: Opened) -> None:
    with opened() as store, opened() as other:
        made = store.generate("prod", KeyType.ED25519)
        for each in (store, other):
            with pytest.raises(KeyExistsError):
                each.generate("prod", KeyType.ED25519)
        assert [key.public_key() for key in other.keys()] == [made.public_key()]


def test_what_is_not_there_is_not_found(opened: Opened) -> None:
    with opened() as store, opened() as other:
        with pytest.raises(KeyNotFoundError):
            store.key("prod")
        store.generate("bot", KeyType.ED25519)  # a token that seems to be empty isn't believed
        made = store.generate("prod", KeyType.ED25519)
        seen = other.key("prod")
        store.destroy(made)
        if not store.deletion_days:
            with pytest.raises(KeyNotFoundError):
                other.bind(seen, ID, "prod")
            with pytest.raises(KeyNotFoundError):
                seen.sign(b"text")
        with pytest.raises(KeyNotFoundError):
            other.key("prod")
        assert [key.name for key in other.keys()] == ["bot"]


def test_a_key_that_is_gone_is_neither_renamed_nor_bound(opened: Opened) -> None:
    """In KMS it waits for its deletion: that refuses aliases and tags then, and ministack doesn't."""
    with opened() as store:
        store.generate("bot", KeyType.ED25519)
        made = store.generate("prod", KeyType.ED25519)
        store.destroy(made)
        if store.deletion_days:
            assert not can_sign(made)
            return
        with pytest.raises(KeyNotFoundError):
            store.bind(made, ID, "prod")
        with pytest.raises(KeyNotFoundError):
            store.rename(made, "prod+ending")  # type: ignore[attr-defined]


def test_a_name_that_was_given_up_is_free_again(opened: Opened) -> None:
    with opened() as store:
        first = store.bind(store.generate("prod", KeyType.ED25519), ID, "prod")
        store.destroy(first)
        second = store.generate("prod", KeyType.ED25519)
        assert second.public_key() != first.public_key()
        assert read(store) == [("prod", None, None, KeyState.MINTED)]


def test_renaming_keeps_what_is_known_and_takes_no_name_that_is_taken(opened: Opened) -> None:
    with opened() as store:
        key = store.bind(store.generate("prod", KeyType.ED25519), ID, "prod")
        store.generate("bot", KeyType.ED25519)
        with pytest.raises(KeyExistsError):
            store.rename(key, "bot")  # type: ignore[attr-defined]
        renamed = store.rename(key, "prod+ending")  # type: ignore[attr-defined]
        assert (renamed.name, renamed.api_key_id, renamed.public_key()) == ("prod+ending", ID, key.public_key())
        assert [each.name for each in store.keys()] == ["bot", "prod+ending"]
        with pytest.raises(KeyNotFoundError):
            store.key("prod")
        again = store.rename(renamed, "prod")  # type: ignore[attr-defined]
        assert read(store) == [
            ("bot", None, None, KeyState.MINTED),
            ("prod", ID, "prod", KeyState.REGISTERED),
        ]
        assert can_sign(again)


def test_a_name_is_handed_over_and_back(opened: Opened) -> None:
    with opened() as store:
        old = store.bind(store.generate("prod", KeyType.ED25519), ID, "prod")
        new = store.bind(store.generate_like(old, "prod" + SUCCESSOR), OTHER_ID, "prod")
        taken, left = RenamesKeys.of(store).hand_over("prod", taker=new, leaver=old, mark=RETIRED)
        assert (taken.name, taken.api_key_id) == ("prod", OTHER_ID)
        assert (left.name, left.api_key_id) == ("prod" + RETIRED, ID)
        with opened() as other:
            assert other.key("prod").public_key() == new.public_key()
            assert [key.name for key in other.keys()] == ["prod", "prod" + RETIRED]
        again = RenamesKeys.of(store).hand_over("prod", taker=taken, leaver=left, mark=RETIRED)
        assert [key.name for key in again] == ["prod", "prod" + RETIRED]  # what is done stays done
        RenamesKeys.of(store).hand_over("prod", taker=left, leaver=taken, mark=SUCCESSOR)
        assert read(store) == [
            ("prod", ID, "prod", KeyState.REGISTERED),
            ("prod" + SUCCESSOR, OTHER_ID, "prod", KeyState.REGISTERED),
        ]


def test_a_key_that_was_handed_over_is_destroyed_alone(opened: Opened) -> None:
    with opened() as store:
        old = store.bind(store.generate("prod", KeyType.ED25519), ID, "prod")
        new = store.bind(store.generate_like(old, "prod" + SUCCESSOR), OTHER_ID, "prod")
        _, left = RenamesKeys.of(store).hand_over("prod", taker=new, leaver=old, mark=RETIRED)
        store.destroy(left)
        for mark in ("", SUCCESSOR, RETIRED):
            store.mend("prod" + mark)
            assert not store.clear("prod" + mark)
        assert read(store) == [("prod", OTHER_ID, "prod", KeyState.REGISTERED)]
        assert can_sign(store.key("prod"))


def test_a_successor_has_its_environment_from_its_first_moment(opened: Opened) -> None:
    with opened() as store:
        old = store.bind(store.generate("prod", KeyType.ED25519), ID, "demo")
        new = store.generate_like(old, "prod" + SUCCESSOR)
        store.confirm(new)
        for key in (new, store.key("prod" + SUCCESSOR)):
            assert (key.state, key.environment, key.registering) == (KeyState.MINTED, "demo", False)


def test_what_was_made_elsewhere_is_put_in_under_a_mark(opened: Opened) -> None:
    imported = Pair(1).private_key
    with opened() as store:
        imports = store.imports()  # type: ignore[attr-defined]
        imports.prepare("prod", KeyType.ED25519, "prod")
        assert imports.pending("prod").environment == "prod"
        for _ in range(2):
            imports.end("prod")
            assert imports.pending("prod") is None
            assert not store.holds("prod")
        imports.prepare("prod", KeyType.ED25519, "demo")
        pending = imports.pending("prod")
        assert (pending.key_type, pending.key, pending.environment) == (KeyType.ED25519, None, "demo")
        key = imports.put("prod", imported, ID, "demo")
        assert key.public_key() == imported.public_key()
        assert can_sign(key)
        pending = imports.pending("prod")
        assert (pending.key if pending else store.key("prod")).public_key() == imported.public_key()
        bound = store.bind(key, ID, "demo")
        imports.end("prod")
        assert imports.pending("prod") is None
        assert read(store) == [("prod", ID, "demo", KeyState.REGISTERED)]
        with pytest.raises(KeyExistsError):
            imports.prepare("prod", KeyType.ED25519, "demo")
        store.destroy(bound)
        assert store.keys() == []


def test_the_mark_of_an_import_belongs_to_the_run_that_took_it_over_last(opened: Opened) -> None:
    with opened() as store:
        first, second, third = (store.imports() for _ in range(3))  # type: ignore[attr-defined]
        assert third.pending("prod") is None
        first.prepare("prod", KeyType.ED25519, "demo")
        with pytest.raises(KeyBusyError):
            third.prepare("prod", KeyType.ED25519, "demo")
        assert not first.is_taken_over("prod")
        assert second.pending("prod").key is None
        second.prepare("prod", KeyType.ED25519, "demo")
        assert first.is_taken_over("prod")
        assert not second.is_taken_over("prod")
        first.end("prod")
        assert second.pending("prod").key is None
        with pytest.raises(KeyBusyError):
            first.put("prod", Pair(1).private_key, ID, "demo")
        first.withdraw("prod")
        key = store.bind(second.put("prod", Pair(2).private_key, OTHER_ID, "demo"), OTHER_ID, "demo")
        second.end("prod")
        assert read(store) == [("prod", OTHER_ID, "demo", KeyState.REGISTERED)]
        assert key.public_key() == Pair(2).private_key.public_key()
        assert can_sign(store.key("prod"))


def test_a_mark_isnt_taken_over_once_the_key_is_in(opened: Opened) -> None:
    with opened() as store:
        first, second = (store.imports() for _ in range(2))  # type: ignore[attr-defined]
        first.prepare("prod", KeyType.ED25519, "demo")
        assert second.pending("prod").key is None
        key = first.put("prod", Pair(1).private_key, ID, "demo")
        with pytest.raises((KeyBusyError, KeyExistsError)):
            second.prepare("prod", KeyType.ED25519, "demo")
        store.bind(key, ID, "demo")
        first.end("prod")
        assert read(store) == [("prod", ID, "demo", KeyState.REGISTERED)]
        assert can_sign(store.key("prod"))
