"""A PIV card behind two makers' modules: keys that others made, which sign and are left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_der_x509_certificate

from hsm_keys import open_store
from hsm_keys.stores.pkcs11.store import Pkcs11Store
from tests.support import card_reader, piv_card
from tests.support.card_reader import CardReader
from tests.support.cli import run_cli
from tests.support.piv_card import PivCard
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
MODULES = {
    "opensc-pkcs11.so": {0x9A: "PIV AUTH key", 0x9E: "CARD AUTH key"},
    "libykcs11.so": {0x9A: "Private key for PIV Authentication", 0x9E: "Private key for Card Authentication"},
}
EACH_TIME = {"opensc-pkcs11.so": "SIGN key", "libykcs11.so": "Private key for Digital Signature"}


@pytest.fixture
def card(tmp_path: Path) -> Iterator[PivCard]:
    lacking = card_reader.missing()
    if lacking is not None:
        pytest.skip(f"a virtual card reader is needed: {lacking}")
    inserted = PivCard()
    with CardReader(inserted, tmp_path / "reader"):
        yield inserted


@pytest.mark.parametrize("module", MODULES)
def test_the_keys_of_a_card_sign(card: PivCard, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_PIN", piv_card.PIN)
    with open_store(f"pkcs11:?module-path={LIBRARIES / module}") as store:
        for slot, name in MODULES[module].items():
            key = store.key(name)
            theirs = load_der_x509_certificate(piv_card.certificate(slot)).public_key()
            pem = theirs.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            assert key.public_pem() == pem.decode()
            assert openssl_verifies(tmp_path, key.public_pem(), b"message", key.sign(b"message"))
    assert card.verifications >= 1
    assert card.tries == 3


@pytest.mark.parametrize("module", EACH_TIME)
def test_slot_9c_signs_with_a_login_for_each_signature(
    card: PivCard, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSM_KEYS_PIN", piv_card.PIN)
    with open_store(f"pkcs11:?module-path={LIBRARIES / module}") as store:
        assert isinstance(store, Pkcs11Store)
        key = store.key(EACH_TIME[module])
        assert key.attributes()["always_authenticate"]
        key.sign(b"first")
        before, epoch = card.verifications, store._connection.module.epoch
        for count in (1, 2, 3):
            assert openssl_verifies(tmp_path, key.public_pem(), b"message", key.sign(b"message"))
            assert (card.signatures[0x9C], card.verifications) == (count + 1, before + count)
        assert store._connection.module.epoch == epoch
    assert card.tries == 3


@pytest.mark.program
def test_doctor_takes_a_card_that_makes_no_keys_for_what_it_is(card: PivCard) -> None:
    store = f"pkcs11:?module-path={LIBRARIES / 'opensc-pkcs11.so'}"
    nowhere = {"HSM_KEYS_STORE": store, "KALSHI_API_BASE_URL": "http://127.0.0.1:9/trade-api/v2"}
    done = run_cli("doctor", "--output", "json", HSM_KEYS_PIN=piv_card.PIN, **nowhere)
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["mechanisms"]["verdict"] == "ok"
    assert found["mechanisms"]["message"] == "signs with RSA, and makes no keys"
    assert "another token" not in json.dumps(found)
    assert "two PKCS#11 calls more" in found["login for SIGN key"]["message"]
