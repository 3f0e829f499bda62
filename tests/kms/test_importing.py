"""Importing into KMS: what goes over the wire, what an interrupted import leaves, and what is refused."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hsm_keys.errors import HsmKeysError, KeyExistsError, OutcomeUnknownError, UsageError
from hsm_keys.inspecting.custody import examine_custody, prove_custody, prove_imported
from hsm_keys.signing.algorithms import KeyType, PrivateKey
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.errors import AwsAccessDeniedError, KmsGarbledAnswerError
from tests.support.kms_faults import Body, Changed, FaultyKms, Lost, Refuse, Reset
from tests.support.ministack import OTHER_REGION, REGION
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.stores.awskms.store import AwsKmsStore

pytestmark = pytest.mark.kms

API_KEY_ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"


@pytest.fixture
def store(real_kms: FaultyKms) -> Iterator[AwsKmsStore]:
    with open_kms(f"awskms:///?region={REGION}") as opened:
        yield opened


def pair(key_type: KeyType) -> PrivateKey:
    return Ed25519PrivateKey.generate() if key_type is KeyType.ED25519 else rsa.generate_private_key(65537, 2048)


def states(store: AwsKmsStore) -> list[str]:
    client: Any = store.caller().manage(REGION)
    ids = [entry["KeyId"] for entry in client.list_keys()["Keys"]]
    return sorted(client.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"] for key_id in ids)


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_what_was_wrapped_signs_in_kms(
    store: AwsKmsStore, real_kms: FaultyKms, key_type: KeyType, tmp_path: Path
) -> None:
    made, imports = pair(key_type), store.imports()
    assert imports.pending("ci") is None
    imports.prepare("ci", key_type, "demo")
    waiting = imports.pending("ci")
    assert waiting is not None
    assert (waiting.key_type, waiting.key) == (key_type, None)
    key = imports.put("ci", made, API_KEY_ID, "prod")
    assert key.public_key() == made.public_key()
    assert openssl_verifies(tmp_path, key.public_pem(), b"message", key.sign(b"message"))
    unbound = imports.pending("ci")
    assert unbound is not None
    assert unbound.key is not None
    store.bind(key, API_KEY_ID, "prod")
    imports.end("ci")
    assert imports.pending("ci") is None
    kept = store.key("ci")
    assert kept.api_key_id == API_KEY_ID
    assert [entry.name for entry in store.keys()] == ["ci"]
    assert kept.attributes()["origin"] == "EXTERNAL"
    assert examine_custody(kept).verdict == "imported"
    assert prove_imported(kept, made.public_key(), "Kalshi").verdict == "imported, made by Kalshi"
    with pytest.raises(HsmKeysError, match="not in custody"):
        prove_custody(kept)

    (asked,), (sent,) = real_kms.of("GetParametersForImport"), real_kms.of("ImportKeyMaterial")
    assert asked.parameters["WrappingAlgorithm"] == "RSA_AES_KEY_WRAP_SHA_256"
    assert asked.parameters["WrappingKeySpec"] == "RSA_4096"
    assert sent.parameters["ExpirationModel"] == "KEY_MATERIAL_DOES_NOT_EXPIRE"
    wire = b"".join(str(seen.parameters).encode() for seen in real_kms.seen) + b64decode(
        sent.parameters["EncryptedKeyMaterial"]
    )
    secret = made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert secret[-24:] not in wire
    assert len(b64decode(sent.parameters["EncryptedKeyMaterial"])) > 512 + len(secret)


@pytest.mark.parametrize(
    "fault", [Lost(), Reset(), Refuse("ThrottlingException"), Refuse("KMSInternalException", "", 500)]
)
def test_what_fails_in_passing_is_tried_again_with_the_same_key(
    store: AwsKmsStore, real_kms: FaultyKms, fault: Any
) -> None:
    made, imports = pair(KeyType.ED25519), store.imports()
    imports.prepare("ci", KeyType.ED25519, "demo")
    real_kms.fault("ImportKeyMaterial", fault)
    assert imports.put("ci", made, API_KEY_ID, "prod").public_key() == made.public_key()
    assert len(real_kms.of("ImportKeyMaterial")) == (1 if isinstance(fault, Lost) else 2)


def test_an_import_that_is_denied_ends_at_once_and_leaves_the_mark(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    imports = store.imports()
    imports.prepare("ci", KeyType.ED25519, "demo")
    real_kms.fault("ImportKeyMaterial", Refuse("AccessDeniedException"))
    with pytest.raises(AwsAccessDeniedError) as caught:
        imports.put("ci", pair(KeyType.ED25519), API_KEY_ID, "prod")
    assert "--for generate" in caught.value.hint
    assert len(real_kms.of("ImportKeyMaterial")) == 1
    pending = imports.pending("ci")
    assert pending is not None
    assert pending.key is None
    imports.end("ci")
    assert imports.pending("ci") is None
    assert states(store) == ["PendingDeletion"]
    assert store.keys() == []


def test_parameters_that_are_denied_are_found_out_before_anything_is_imported(
    store: AwsKmsStore, real_kms: FaultyKms
) -> None:
    real_kms.fault("GetParametersForImport", Refuse("AccessDeniedException"))
    imports = store.imports()
    with pytest.raises(AwsAccessDeniedError):
        imports.prepare("ci", KeyType.ED25519, "demo")
    imports.prepare("ci", KeyType.ED25519, "demo")
    assert states(store) == ["PendingImport"]


@pytest.mark.parametrize("answer", [Body(b"{}"), Changed(lambda told: told.update(PublicKey="AAAA"))])
def test_parameters_that_are_garbled_get_no_key(store: AwsKmsStore, real_kms: FaultyKms, answer: Any) -> None:
    real_kms.fault("GetParametersForImport", answer)
    with pytest.raises(KmsGarbledAnswerError):
        store.imports().prepare("ci", KeyType.ED25519, "demo")


def test_a_lost_answer_to_create_key_is_found_by_its_tag(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    real_kms.fault("CreateKey", Lost())
    with pytest.raises(OutcomeUnknownError):
        store.imports().prepare("ci", KeyType.ED25519, "demo")
    assert store.imports().pending("ci") is None
    store.imports().prepare("ci", KeyType.ED25519, "demo")
    assert states(store) == ["PendingImport"]
    assert len(real_kms.of("CreateKey")) == 1


def test_a_mark_of_another_type_is_let_go(store: AwsKmsStore) -> None:
    store.imports().prepare("ci", KeyType.RSA_2048, "demo")
    store.imports().prepare("ci", KeyType.ED25519, "demo")
    pending = store.imports().pending("ci")
    assert pending is not None
    assert pending.key_type is KeyType.ED25519
    assert states(store) == ["PendingDeletion", "PendingImport"]


def test_a_mark_whose_deletion_was_interrupted_is_replaced(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    imports = store.imports()
    imports.prepare("ci", KeyType.ED25519, "demo")
    real_kms.fault("DeleteAlias", Reset())
    with pytest.raises(HsmKeysError):
        imports.end("ci")
    pending = imports.pending("ci")
    assert pending is not None
    assert pending.key is None
    imports.prepare("ci", KeyType.ED25519, "demo")
    made = pair(KeyType.ED25519)
    assert imports.put("ci", made, API_KEY_ID, "prod").public_key() == made.public_key()


def test_keys_of_others_are_no_marks_and_are_left_alone(store: AwsKmsStore) -> None:
    store.generate("minted")
    client: Any = store.caller().manage(REGION)
    by_hand = client.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY", Origin="EXTERNAL")["KeyMetadata"]["KeyId"]
    client.create_alias(AliasName="alias/hsm-keys/by-hand", TargetKeyId=by_hand)
    for name in ("minted", "by-hand"):
        assert store.imports().pending(name) is None
        store.imports().end(name)
        with pytest.raises(KeyExistsError):
            store.imports().prepare(name, KeyType.RSA_2048, "demo")
    assert states(store) == ["Enabled", "PendingImport"]


def test_where_imports_cannot_be_is_told_before_anything_is_made(store: AwsKmsStore, real_kms: FaultyKms) -> None:
    with pytest.raises(UsageError, match=r"KMS allows no"):
        store.imports().pending("a.b")
    with open_kms(f"awskms:///?region={REGION},{OTHER_REGION}") as both, pytest.raises(UsageError, match="elsewhere"):
        both.imports()
    with open_kms(f"awskms:///alias/hsm-keys/x?region={REGION}") as one, pytest.raises(UsageError):
        one.imports()
    assert real_kms.seen == []
