"""The store on the real server: what is made, bound, renamed, handed over and destroyed, and what others see of it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from hsm_keys.errors import ForeignKeyError, KeyBusyError, KeyExistsError, KeyNotFoundError, KeyProblemError
from hsm_keys.sandbox.keys import generate_pair
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.signing.pem import load_private_key
from hsm_keys.stores.base import KeyState
from hsm_keys.stores.key_names import RETIRED, SUCCESSOR
from hsm_keys.stores.vault.entries import base_of, prefix_of
from hsm_keys.stores.vault.errors import VaultError, VaultKeyNotFoundError
from hsm_keys.stores.vault.records import Record, hand_over
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.stores.vault.store import VaultStore
    from tests.support.vault import Vault

pytestmark = pytest.mark.vault

ID = "0b6b7a3c-5f5e-4c3a-9d43-0d1a5a1b2c3d"
OTHER_ID = "1b6b7a3c-5f5e-4c3a-9d43-0d1a5a1b2c3d"


@pytest.mark.parametrize("key_type", KeyType)
def test_a_key_that_is_made_signs_as_kalshi_wants_it(
    vault_store: VaultStore, key_type: KeyType, tmp_path: Path
) -> None:
    key = vault_store.generate("prod", key_type)
    assert (key.key_type, key.state, key.environment, key.ours) == (key_type, KeyState.MINTED, None, True)
    assert openssl_verifies(tmp_path, key.public_pem(), b"1700000000000GET/x", key.sign(b"1700000000000GET/x"))


def test_the_entry_says_what_belongs_to_a_key(vault: Vault, vault_store: VaultStore) -> None:
    made = vault_store.generate("prod", KeyType.ED25519)
    vault_store.bind(made, ID.upper(), "demo")
    (transit_key,) = vault.transit_keys()
    assert vault.entry("prod") == {
        "keys": {"prod": {"transit_key": transit_key, "version": 1, "api_key_id": ID, "environment": "demo"}}
    }
    with open_store(vault.uri) as again:
        (key,) = again.keys()
        assert (key.name, key.api_key_id, key.environment, key.ours) == ("prod", ID, "demo", True)
        assert key.public_pem() == made.public_pem()


def test_the_uri_of_a_key_leads_to_it(vault_store: VaultStore) -> None:
    vault_store.generate("a", KeyType.ED25519)
    key = vault_store.generate("b", KeyType.ED25519)
    with open_store(key.uri) as alone:
        assert [each.name for each in alone.keys()] == ["b"]
        assert alone.key("").public_pem() == key.public_pem()
        with pytest.raises(KeyNotFoundError):
            alone.key("a")


def test_a_name_is_taken_once(vault_store: VaultStore) -> None:
    vault_store.generate("prod", KeyType.ED25519)
    with pytest.raises(KeyExistsError):
        vault_store.generate("prod", KeyType.ED25519)


def test_what_a_killed_run_began_is_taken_over(
    vault: Vault, vault_store: VaultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(vault_store.transit, "create", _killed)
        with pytest.raises(InterruptedError):
            vault_store.generate("prod", KeyType.ED25519)
    assert vault_store.keys() == []
    with pytest.raises(KeyNotFoundError):
        vault_store.key("prod")
    key = vault_store.generate("prod", KeyType.ED25519)
    assert vault.transit_keys() == [key.transit_key]


def test_a_key_that_was_made_and_got_no_name_is_taken_over(
    vault: Vault, vault_store: VaultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_without_name(vault_store, monkeypatch)
    (transit_key,) = vault.transit_keys()
    assert vault_store.keys() == []
    with pytest.raises(KeyProblemError, match="another type"):
        vault_store.generate("prod", KeyType.RSA_2048)
    assert vault_store.generate("prod", KeyType.ED25519).transit_key == transit_key


def test_a_key_that_got_no_name_can_be_cleared_away(
    vault: Vault, vault_store: VaultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_without_name(vault_store, monkeypatch)
    assert vault_store.clear("prod")
    assert (vault.transit_keys(), vault.entry("prod")) == ([], {"keys": {}})
    assert not vault_store.clear("prod")


def test_of_two_that_make_a_name_one_gives_way(vault: Vault, vault_store: VaultStore) -> None:
    make = vault_store.transit.create

    def overtaken(name: str, label: str, key_type: KeyType) -> None:
        vault_store.transit.create = make  # type: ignore[method-assign]
        with open_store(vault.uri) as other:
            other.generate(label, key_type)
        make(name, label, key_type)

    vault_store.transit.create = overtaken  # type: ignore[method-assign]
    with pytest.raises(KeyBusyError):
        vault_store.generate("prod", KeyType.ED25519)
    assert [key.name for key in vault_store.keys()] == ["prod"]
    assert len(vault.transit_keys()) == 1


def test_a_name_is_handed_over_in_one_step_and_vouched_for(vault: Vault, vault_store: VaultStore) -> None:
    old = vault_store.bind(vault_store.generate("prod", KeyType.ED25519), ID, "demo")
    new = vault_store.bind(vault_store.generate("prod" + SUCCESSOR, KeyType.ED25519), OTHER_ID, "demo")
    before = vault.ask("GET", f"{vault.kv}/data/hsm-keys/prod")["data"]["metadata"]["version"]
    for _ in range(2):  # killed before it could say so, it is called again
        taken, left = vault_store.hand_over("prod", new, old, RETIRED)
        assert (taken.name, taken.api_key_id) == ("prod", OTHER_ID)
        assert (left.name, left.api_key_id) == ("prod" + RETIRED, ID)
    assert vault.ask("GET", f"{vault.kv}/data/hsm-keys/prod")["data"]["metadata"]["version"] == before + 1
    assert {key.name: key.api_key_id for key in vault_store.keys()} == {"prod": OTHER_ID, "prod" + RETIRED: ID}
    assert old.current().api_key_id == OTHER_ID


def test_a_key_that_nothing_vouches_for_is_not_followed(
    vault: Vault, vault_store: VaultStore, caplog: pytest.LogCaptureFixture
) -> None:
    key = vault_store.bind(vault_store.generate("prod", KeyType.ED25519), ID, "demo")
    vault.ask("POST", f"{vault.mount}/keys/theirs", {"type": "ed25519"})
    theirs = {"transit_key": "theirs", "version": 1, "api_key_id": OTHER_ID, "environment": "demo"}
    vault.ask("POST", f"{vault.kv}/data/hsm-keys/prod", {"data": {"keys": {"prod": theirs}}})
    assert key.current() is key
    assert "signed no succession" in caplog.text


def test_renaming_moves_the_label(vault: Vault, vault_store: VaultStore) -> None:
    key = vault_store.bind(vault_store.generate("prod", KeyType.ED25519), ID, "demo")
    assert vault_store.rename(key, "prod+ending").name == "prod+ending"
    moved = vault_store.rename(vault_store.key("prod+ending"), "other")
    assert (moved.name, moved.api_key_id) == ("other", ID)
    assert [each.name for each in vault_store.keys()] == ["other"]
    taken = vault_store.generate("prod", KeyType.ED25519)
    with pytest.raises(KeyExistsError):
        vault_store.rename(taken, "other")


def test_destroying_leaves_nothing(vault: Vault, vault_store: VaultStore) -> None:
    key = vault_store.bind(vault_store.generate("prod", KeyType.ED25519), ID, "demo")
    vault_store.destroy(key)
    assert (vault.transit_keys(), vault.entry("prod"), vault_store.keys()) == ([], {"keys": {}}, [])
    with pytest.raises(VaultKeyNotFoundError):
        key.sign(b"1")


@pytest.mark.parametrize("step", ["delete", "after"])
def test_a_destruction_that_was_killed_goes_on(
    vault: Vault, vault_store: VaultStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    minted = vault_store.generate("prod", KeyType.ED25519)
    key = vault_store.bind(minted, ID, "demo")
    delete = vault_store.transit.delete

    def killed(name: str, label: str) -> None:
        if step == "after":
            delete(name, label)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(vault_store.transit, "delete", killed)
        with pytest.raises(InterruptedError):
            vault_store.destroy(key)
    with pytest.raises(VaultKeyNotFoundError, match="destroying"):
        vault_store.bind(minted, OTHER_ID, "demo")  # as a run does that was held up since it was minted
    if step == "delete":
        assert [(each.name, each.api_key_id) for each in vault_store.keys()] == [("prod", ID)]
        vault_store.destroy(vault_store.key("prod"))
    else:
        assert vault_store.contents().keys == []
        assert vault_store.contents().unusable == []
        vault_store.mend("prod")
    assert (vault.transit_keys(), vault.entry("prod")) == ([], {"keys": {}})


def test_a_pair_whose_destruction_was_begun_is_not_registered(
    vault_store: VaultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    minted = vault_store.generate("prod", KeyType.ED25519)
    monkeypatch.setattr(vault_store.transit, "delete", _killed)
    with pytest.raises(InterruptedError):
        vault_store.destroy(minted)
    with pytest.raises(KeyBusyError, match="destruction of 'prod' was begun") as told:
        vault_store.begin_registration(minted, "demo")
    assert "hsm-keys revoke prod --destroy" in str(told.value.hint)
    with pytest.raises(VaultKeyNotFoundError, match="destroying"):
        vault_store.bind(minted, ID, "demo")


def test_a_key_whose_transit_key_somebody_deleted_is_told(vault: Vault, vault_store: VaultStore) -> None:
    key = vault_store.bind(vault_store.generate("prod", KeyType.ED25519), ID, "demo")
    vault.ask("POST", f"{vault.mount}/keys/{key.transit_key}/config", {"deletion_allowed": True})
    vault.ask("DELETE", f"{vault.mount}/keys/{key.transit_key}")
    (unusable,) = vault_store.contents().unusable
    assert (unusable.name, unusable.mark.api_key_id) == ("prod", ID)
    with pytest.raises(VaultKeyNotFoundError, match="is gone"):
        vault_store.key("prod")
    with pytest.raises(KeyExistsError):
        vault_store.generate("prod", KeyType.ED25519)


def test_a_foreign_key_signs_is_left_alone_and_can_be_adopted(
    vault: Vault, vault_store: VaultStore, tmp_path: Path
) -> None:
    vault.ask("POST", f"{vault.mount}/keys/theirs", {"type": "ed25519"})
    vault.ask("POST", f"{vault.mount}/keys/theirs/rotate", {})
    key = vault_store.key("theirs")
    assert (key.state, key.version) == (KeyState.FOREIGN, 2)
    assert vault_store.keys() == []
    assert openssl_verifies(tmp_path, key.public_pem(), b"1", key.sign(b"1"))
    for change in (lambda: vault_store.destroy(key), lambda: vault_store.rename(key, "x")):
        with pytest.raises(ForeignKeyError):
            change()
    adopted = vault_store.bind(key, ID, "demo")
    vault.ask("POST", f"{vault.mount}/keys/theirs/rotate", {})
    assert adopted.ours
    again = vault_store.key("theirs")
    assert (again.api_key_id, again.version, again.public_pem()) == (ID, 2, key.public_pem())
    assert openssl_verifies(tmp_path, again.public_pem(), b"1", again.sign(b"1"))


@pytest.mark.parametrize("kind", ["aes256-gcm96", "ecdsa-p256"])
def test_a_key_of_another_type_is_no_key_for_kalshi(vault: Vault, vault_store: VaultStore, kind: str) -> None:
    vault.ask("POST", f"{vault.mount}/keys/theirs", {"type": kind})
    with pytest.raises(VaultError, match="can't sign Kalshi requests"):
        vault_store.key("theirs")


def test_an_entry_that_somebody_else_wrote_hides_no_other(vault: Vault, vault_store: VaultStore) -> None:
    vault_store.generate("prod", KeyType.ED25519)
    for name, data in {"a": {"x": 1}, "b": {"keys": {"b": {"transit_key": "../x"}}}, "c": {"keys": []}}.items():
        vault.ask("POST", f"{vault.kv}/data/hsm-keys/{name}", {"data": data})
    contents = vault_store.contents()
    assert [key.name for key in contents.keys] == ["prod"]
    assert [each.name for each in contents.unusable] == ["a", "b", "c"]
    with pytest.raises(VaultError, match="isn't one that hsm-keys has written"):
        vault_store.generate("a", KeyType.ED25519)


def test_an_entry_that_somebody_deleted_makes_room(vault: Vault, vault_store: VaultStore) -> None:
    vault_store.generate("prod", KeyType.ED25519)
    vault.ask("DELETE", f"{vault.kv}/data/hsm-keys/prod")
    assert vault_store.keys() == []
    assert vault_store.generate("prod", KeyType.ED25519).name == "prod"


def test_a_kv_engine_of_version_1_is_refused(vault: Vault) -> None:
    vault.ask("POST", f"sys/mounts/old-{vault.kv}", {"type": "kv", "options": {"version": "1"}})
    uri = f"vault:///{vault.mount}?address={vault.address}&kv=old-{vault.kv}"
    with open_store(uri) as store, pytest.raises(VaultError, match="KV version 2"):
        store.generate("prod", KeyType.ED25519)
    assert vault.transit_keys() == []


@pytest.mark.parametrize("key_type", [KeyType.ED25519, KeyType.RSA_2048])
def test_a_key_made_elsewhere_is_imported(
    vault: Vault, vault_store: VaultStore, key_type: KeyType, tmp_path: Path
) -> None:
    private_key = load_private_key(generate_pair("ed25519" if key_type is KeyType.ED25519 else "rsa")[0])
    imports = vault_store.imports()
    assert imports.pending("prod") is None
    imports.prepare("prod", key_type, "demo")
    assert vault_store.keys() == []
    pending = imports.pending("prod")
    assert pending is not None
    assert (pending.key_type, pending.key, pending.environment) == (key_type, None, "demo")
    key = imports.put("prod", private_key, ID, "demo")
    assert (key.api_key_id, key.environment) == (ID, "demo")
    imports.end("prod")
    assert imports.pending("prod") is None
    kept = vault_store.key("prod")
    assert kept.api_key_id == ID
    assert openssl_verifies(tmp_path, kept.public_pem(), b"1", kept.sign(b"1"))
    facts = {fact.name: fact.value for fact in kept.custody_facts()}
    assert (facts["origin"], facts["exportable"]) == ("imported", False)


def test_an_import_that_another_run_took_over_comes_late_and_goes(
    vault: Vault, vault_store: VaultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is killed right after it: the entry still names the Transit key, and the next command deletes it."""
    slow, quick = vault_store.imports(), vault_store.imports()
    slow.prepare("prod", KeyType.ED25519, "demo")
    assert quick.pending("prod") is not None
    quick.prepare("prod", KeyType.ED25519, "demo")
    monkeypatch.setattr(slow, "is_taken_over", lambda name: False)  # it looked before
    monkeypatch.setattr(slow, "_bound", _killed)
    with pytest.raises(InterruptedError):
        slow.put("prod", load_private_key(generate_pair("ed25519")[0]), ID, "demo")
    key = quick.put("prod", load_private_key(generate_pair("ed25519")[0]), ID, "demo")
    assert len(vault.transit_keys()) == 2
    assert [found.name for found in vault_store.keys()] == ["prod"]
    vault_store.mend("prod")
    assert len(vault.transit_keys()) == 1
    assert key.sign(b"m")


def test_an_import_that_its_run_gave_up_is_not_gone_on_with_if_it_comes_late(
    vault: Vault, vault_store: VaultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its API key may live until the import has ended: until then it isn't deleted either."""
    imports = vault_store.imports()
    imports.prepare("prod", KeyType.ED25519, "demo")
    late, late_import = dict(imports._prepared), vault_store.imports()
    imports.give_up("prod")
    assert imports.pending("prod") is not None
    assert imports._prepared != late
    late_import._prepared = late
    late_import._wrapping_keys = {"prod": late_import._wrapping_key()}
    monkeypatch.setattr(late_import, "is_taken_over", lambda name: False)  # it was sent before
    monkeypatch.setattr(late_import, "_bound", _killed)
    with pytest.raises(InterruptedError):
        late_import.put("prod", load_private_key(generate_pair("ed25519")[0]), ID, "demo")
    assert vault_store.keys() == []
    vault_store.mend("prod")
    assert len(vault.transit_keys()) == 1
    imports.end("prod")
    assert (vault.transit_keys(), vault.entry("prod")) == ([], {"keys": {}})


def test_an_import_that_came_is_not_given_up(vault_store: VaultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    imports = vault_store.imports()
    imports.prepare("prod", KeyType.ED25519, "demo")
    monkeypatch.setattr(imports, "_bound", _killed)
    with pytest.raises(InterruptedError):
        imports.put("prod", load_private_key(generate_pair("ed25519")[0]), ID, "demo")
    imports.give_up("prod")
    pending = imports.pending("prod")
    assert pending is not None
    assert pending.key is not None


def test_a_key_that_was_given_up_is_not_bound(vault_store: VaultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run had found it right before."""
    slow, quick = vault_store.imports(), vault_store.imports()
    slow.prepare("prod", KeyType.ED25519, "demo")
    monkeypatch.setattr(slow, "_bound", _killed)
    with pytest.raises(InterruptedError):
        slow.put("prod", load_private_key(generate_pair("ed25519")[0]), ID, "demo")
    pending = quick.pending("prod")
    assert pending is not None
    assert pending.key is not None
    monkeypatch.setattr(slow, "_is_there", lambda *_: False)  # it looked before the key had come
    slow.give_up("prod")
    with pytest.raises(VaultKeyNotFoundError, match="doesn't name"):
        vault_store.bind(pending.key, ID, "demo")


def test_an_import_that_never_came_is_ended(vault: Vault, vault_store: VaultStore) -> None:
    imports = vault_store.imports()
    imports.prepare("prod", KeyType.ED25519, "demo")
    imports.end("prod")
    assert vault.entry("prod") == {"keys": {}}
    assert vault_store.generate("prod", KeyType.ED25519).ours


def test_custody_tells_what_the_server_says_and_what_the_token_may(vault: Vault, vault_store: VaultStore) -> None:
    key = vault_store.generate("prod", KeyType.ED25519)
    verdicts = {fact.name: (fact.value, str(fact.verdict)) for fact in key.custody_facts()}
    assert verdicts == {
        "origin": ("transit", "good"),
        "exportable": (False, "good"),
        "allow_plaintext_backup": (False, "good"),
        "deletion_allowed": (False, "good"),
        "token_may_write_config": (True, "unknown"),
        "token_may_export": (True, "unknown"),
        "as_strong_as": ("the server's policies", "unknown"),
    }
    config = f"{vault.mount}/keys/{key.transit_key}/config"
    vault.ask("POST", config, {"exportable": True, "allow_plaintext_backup": True, "deletion_allowed": True})
    verdicts = {fact.name: (fact.value, str(fact.verdict)) for fact in key.custody_facts()}
    assert verdicts["exportable"] == (True, "bad")
    assert verdicts["allow_plaintext_backup"] == (True, "bad")
    assert verdicts["deletion_allowed"] == (True, "unknown")


@pytest.mark.parametrize("missing", ["new", "old"])
def test_a_name_is_not_handed_over_where_somebody_has_changed_its_keys(missing: str) -> None:
    records = {"prod": Record("old"), "prod+next": Record("new"), "prod+retired": Record("third")}
    for now in (records, {label: each for label, each in records.items() if each.transit_key != missing}):
        before = dict(now)
        with pytest.raises(KeyBusyError):
            hand_over(now, "prod", "prod+retired", {"new": "prod+next", "old": "prod"}, "x")
        assert now == before


@pytest.mark.parametrize(
    ("name", "others"),
    [("a", ["a-b", "a_b", "a__b", "a_-b", "a-", "a_", "a.", "ab", "a-_b"]), ("a_", ["a_-", "a__", "a_-x", "a_x"])],
)
def test_the_transit_keys_of_a_name_begin_as_those_of_no_other_name(name: str, others: list[str]) -> None:
    for other in others:
        assert not prefix_of(other).startswith(prefix_of(name))
        assert not prefix_of(name).startswith(prefix_of(other))
    assert base_of(f"{name}+next") == name


def test_the_salt_is_32_bytes_because_it_is_asked_for(vault: Vault, vault_store: VaultStore, tmp_path: Path) -> None:
    """Without ``salt_length`` the engine's salt is as long as fits, which Kalshi refuses."""
    key = vault_store.generate("prod", KeyType.RSA_2048)
    body = {"input": b64encode(b"1").decode(), "signature_algorithm": "pss", "hash_algorithm": "sha2-256"}
    signed = vault.ask("POST", f"{vault.mount}/sign/{key.transit_key}", body)["data"]["signature"]
    signature = b64decode(signed.split(":")[2])
    assert not openssl_verifies(tmp_path, key.public_pem(), b"1", signature)
    assert openssl_verifies(tmp_path, key.public_pem(), b"1", signature, salt=222)


def _killed(*_: object) -> None:
    raise InterruptedError


def _make_without_name(store: VaultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        create = store.transit.create

        def create_and_die(name: str, label: str, key_type: KeyType) -> None:
            create(name, label, key_type)
            raise InterruptedError

        patch.setattr(store.transit, "create", create_and_die)
        with pytest.raises(InterruptedError):
            store.generate("prod", KeyType.ED25519)
