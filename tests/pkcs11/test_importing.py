"""Importing into a token: what the objects are, plainly created or unwrapped, and what a refusal leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute, ObjectClass

from hsm_keys import KeyType
from hsm_keys.errors import KeyBusyError, KeyExistsError, StoreError, StoreUnavailableError
from hsm_keys.stores.abilities import ImportsKeys
from hsm_keys.stores.pkcs11 import importing
from tests.support.oddkeys import session_of
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys import KeyStore
    from hsm_keys.signing.algorithms import PrivateKey
    from hsm_keys.stores.key_imports import KeyImports

pytestmark = pytest.mark.softhsm

API_KEY_ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"


def pair(key_type: KeyType) -> PrivateKey:
    return Ed25519PrivateKey.generate() if key_type is KeyType.ED25519 else rsa.generate_private_key(65537, 2048)


def objects(store: KeyStore) -> list[Any]:
    return list(session_of(store).get_objects())


def refuse_plain_creation(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """Let the module refuse a private key in the clear, as an HSM in FIPS mode does."""

    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(importing, "_private_half", refuse)


@pytest.mark.parametrize(
    ("key_type", "wrapped"), [(KeyType.RSA_2048, False), (KeyType.RSA_2048, True), (KeyType.ED25519, False)]
)
def test_an_imported_key_signs_and_does_not_come_out(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key_type: KeyType, *, wrapped: bool
) -> None:
    if wrapped:
        refuse_plain_creation(monkeypatch, ckr.TemplateInconsistent)
    made, imports = pair(key_type), ImportsKeys.of(store).imports()
    throwaway = imports.prepare("ci", key_type, "demo")
    key = imports.put("ci", made, API_KEY_ID, "prod")
    imports.end("ci")
    assert throwaway is not None
    assert (throwaway.name, throwaway.key_type, key.api_key_id) == ("ci+importing", key_type, API_KEY_ID)
    assert openssl_verifies(tmp_path, store.key("ci").public_pem(), b"message", key.sign(b"message"))
    assert key.public_key() == made.public_key()
    said = key.attributes()
    assert {name for name, value in said.items() if value is True} - {"modifiable"} == {"sensitive", "private", "sign"}
    private, public = sorted(objects(store), key=lambda obj: obj[Attribute.CLASS] is ObjectClass.PUBLIC_KEY)
    assert private[Attribute.LABEL] == public[Attribute.LABEL] == "ci"
    assert private[Attribute.ID] == public[Attribute.ID] == b"kalshi:prod:" + UUID(API_KEY_ID).bytes
    secret = Attribute.VALUE if key_type is KeyType.ED25519 else Attribute.PRIVATE_EXPONENT
    with pytest.raises(ckr.AttributeSensitive):
        private[secret]


def test_a_module_that_takes_the_key_neither_plain_nor_wrapped_says_both(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_plain_creation(monkeypatch, ckr.AttributeReadOnly)
    with pytest.raises(StoreError, match="AttributeReadOnly; wrapped: FunctionFailed"):  # SoftHSM unwraps no Ed25519
        ImportsKeys.of(store).imports().prepare("ci", KeyType.ED25519, "demo")
    assert objects(store) == []


def test_a_token_that_is_gone_is_not_taken_for_one_that_refuses(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_plain_creation(monkeypatch, ckr.DeviceRemoved)
    with pytest.raises(StoreUnavailableError):
        ImportsKeys.of(store).imports().prepare("ci", KeyType.RSA_2048, "demo")
    assert objects(store) == []


def test_an_import_is_pending_until_it_is_ended(store: KeyStore) -> None:
    imports = ImportsKeys.of(store).imports()
    assert imports.pending("ci") is None
    imports.end("ci")
    for key_type in (KeyType.RSA_2048, KeyType.ED25519, KeyType.ED25519):
        imports.prepare("ci", key_type, "demo")
        pending = imports.pending("ci")
        assert pending is not None
        assert (pending.key_type, pending.key) == (key_type, None)
        assert len(objects(store)) == 2
    imports.put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    pending = imports.pending("ci")
    assert pending is not None
    assert pending.key is not None
    assert pending.key.api_key_id == API_KEY_ID
    imports.end("ci")
    assert imports.pending("ci") is None
    assert [key.name for key in store.keys()] == ["ci"]


def test_a_mark_without_its_public_half_is_still_a_mark(store: KeyStore) -> None:
    imports = ImportsKeys.of(store).imports()
    imports.prepare("ci", KeyType.ED25519, "demo")
    (public,) = [obj for obj in objects(store) if obj[Attribute.CLASS] is ObjectClass.PUBLIC_KEY]
    public.destroy()
    assert imports.pending("ci") is not None
    imports.end("ci")
    assert objects(store) == []


def test_a_name_that_is_taken_is_refused_and_its_key_is_left_alone(store: KeyStore) -> None:
    kept = store.generate("ci", KeyType.ED25519)
    with pytest.raises(KeyExistsError):
        ImportsKeys.of(store).imports().prepare("ci", KeyType.ED25519, "demo")
    with pytest.raises(KeyExistsError):
        ImportsKeys.of(store).imports().put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    assert len(objects(store)) == 2
    assert store.key("ci").public_key() == kept.public_key()


def test_of_two_that_import_at_once_the_one_that_sees_both_gives_way(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ImportsKeys.of(store).imports().put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    monkeypatch.setattr(importing, "_check_free", lambda *_: None)  # it came a moment too late to be seen
    imports = ImportsKeys.of(store).imports()
    with pytest.raises(KeyBusyError, match="this run stopped"):
        imports.put("ci", pair(KeyType.ED25519), "7" + API_KEY_ID[1:], "prod")
    imports.withdraw("ci")
    assert store.key("ci").public_key() == other.public_key()
    assert len(objects(store)) == 2


def _prepared(store: KeyStore) -> KeyImports:
    imports = ImportsKeys.of(store).imports()
    assert imports.pending("ci") is None
    imports.prepare("ci", KeyType.ED25519, "prod")
    return imports


def test_a_key_that_comes_after_another_run_has_ended_the_import_gives_way(store: KeyStore) -> None:
    """The other run's own key may have got another name by then."""
    imports = _prepared(store)
    ImportsKeys.of(store).imports().end("ci")
    with pytest.raises(KeyBusyError, match="this run stopped"):
        imports.put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    imports.withdraw("ci")
    assert objects(store) == []


def test_a_key_that_comes_while_a_rotation_hands_the_name_over_gives_way(store: KeyStore) -> None:
    imports = _prepared(store)
    for name in ("ci+next", "ci+retired"):
        store.generate(name, KeyType.ED25519)
    with pytest.raises(KeyBusyError, match="this run stopped"):
        imports.put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    assert store.key("ci+ending").api_key_id == API_KEY_ID


@pytest.mark.parametrize("earlier", [True, False])
def test_whoever_gives_way_leaves_a_mark_where_one_was(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    """The earlier one may tell of an API key whose private half got lost."""
    imports = _prepared(store)
    imports.put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    if not earlier:
        imports.end("ci")
    monkeypatch.setattr(importing, "_check_free", lambda *_: None)  # the key came a moment later
    with pytest.raises(KeyBusyError, match="this run stopped"):
        ImportsKeys.of(store).imports().prepare("ci", KeyType.ED25519, "prod")
    assert (ImportsKeys.of(store).imports().pending("ci") is not None) == earlier


def test_a_key_that_came_after_its_public_half_was_removed_goes_with_the_next_command(store: KeyStore) -> None:
    """Its run was killed before it saw that another one had taken the import over, and deleted its API key."""
    ImportsKeys.of(store).imports().put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    (public,) = [obj for obj in objects(store) if obj[Attribute.CLASS] is ObjectClass.PUBLIC_KEY]
    public.destroy()
    store._connection.objects.proofs.clear()  # type: ignore[attr-defined]  # as in another process
    store.mend("ci")
    assert objects(store) == []


def test_the_public_half_of_a_mark_that_was_never_whole_goes_with_the_next_command(store: KeyStore) -> None:
    ImportsKeys.of(store).imports().prepare("ci", KeyType.ED25519, "prod")
    for private in [obj for obj in objects(store) if obj[Attribute.CLASS] is ObjectClass.PRIVATE_KEY]:
        private.destroy()
    assert len(objects(store)) == 1
    store.mend("ci")
    assert objects(store) == []


def test_half_a_key_is_not_taken_for_whole_when_an_import_ends(store: KeyStore) -> None:
    _prepared(store).put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    for public in [obj for obj in objects(store) if obj[Attribute.CLASS] is ObjectClass.PUBLIC_KEY]:
        public.destroy()
    store._connection.objects.proofs.clear()  # type: ignore[attr-defined]  # as in another process
    ImportsKeys.of(store).imports().end("ci")
    assert [each.left_over for each in store.contents().unusable] == [True]
    store.mend("ci")
    assert objects(store) == []


def test_a_key_with_which_another_run_has_continued_is_given(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    imports, import_pair = _prepared(store), importing._import_pair

    def imported(*given: Any) -> Any:
        private = import_pair(*given)
        ImportsKeys.of(store).imports().end("ci")
        return private

    monkeypatch.setattr(importing, "_import_pair", imported)
    made = pair(KeyType.ED25519)
    assert imports.put("ci", made, API_KEY_ID, "prod").public_key() == made.public_key()
    assert not store.key("ci").passing


def test_the_public_half_of_a_key_with_another_label_is_no_orphan(store: KeyStore) -> None:
    """A crash while a key is renamed leaves it so."""
    kept = store.generate("old", KeyType.ED25519)
    (public,) = [obj for obj in objects(store) if obj[Attribute.CLASS] is ObjectClass.PUBLIC_KEY]
    public[Attribute.LABEL] = "ci"
    ImportsKeys.of(store).imports().put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    assert store.key("old").public_key() == kept.public_key()
    assert len(store.key("old").sign(b"m")) == 64
