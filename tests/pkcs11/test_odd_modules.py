"""Modules and tokens that answer oddly: what is odd about one hides no other, and a token stays the one chosen."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_keys import KeyType, open_store
from hsm_keys.errors import StoreAmbiguousError, StoreError, StoreNotFoundError, StoreUnavailableError
from hsm_keys.stores.pkcs11.module import acquire_module
from hsm_keys.stores.pkcs11.tokens import all_tokens, choose_slot
from hsm_keys.stores.uri import Pkcs11Uri
from tests.support.cli import run_cli, run_json
from tests.support.foreign import make_pair, pkcs11_tool
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys import KeyStore
    from hsm_keys.signing.algorithms import PublicKey
    from tests.support.shim import Shim
    from tests.support.softhsm import SoftHsm, TestToken

pytestmark = pytest.mark.softhsm

DEVICE_ERROR = "0x30"
INITIALISED, HAS_PIN = 0x400, 0x8
SERIAL = "0000000000000000"


def slots_of(softhsm: SoftHsm) -> dict[str, int]:
    """Return the slot of each token, by its label."""
    module = acquire_module(softhsm.module)
    try:
        return {token.label: token.slot.slot_id for token in all_tokens(module)}
    finally:
        module.release()


def signs(store: KeyStore, name: str = "prod") -> bool:
    key = store.generate(name, KeyType.ED25519)
    return len(key.sign(b"m")) == 64 and [found.name for found in store.keys()] == [name]


@pytest.mark.parametrize("function", ["C_GetSlotInfo", "C_GetTokenInfo"])
def test_a_slot_whose_information_fails_hides_no_other(shim: Shim, softhsm: SoftHsm, function: str) -> None:
    token, slots = softhsm.init_token(), slots_of(softhsm)
    broken = next(slot for label, slot in slots.items() if label != token.label)
    shim.rules(f"fail {function} {DEVICE_ERROR} slot={broken}")
    with open_store(shim.uri(token)) as store, open_store(shim.uri(token)) as again:
        assert signs(store)
        assert [key.name for key in again.keys()] == ["prod"]
    assert choose_slot(0, str(shim.path)).uri.token == token.label
    shim.rules(f"fail {function} {DEVICE_ERROR} slot={slots[token.label]}")
    with pytest.raises(StoreNotFoundError, match="no token"):
        open_store(shim.uri(token))
    shim.rules(f"fail {function} {DEVICE_ERROR}")
    with pytest.raises(StoreUnavailableError, match="DeviceError"):
        open_store(shim.uri(token))


@pytest.mark.parametrize("lacking", [INITIALISED, INITIALISED | HAS_PIN])
def test_a_token_that_does_not_say_it_is_initialised(shim: Shim, token: TestToken, lacking: int) -> None:
    slot = choose_slot(0, token.module)
    shim.rules(f"token clear {lacking:#x}")
    with open_store(shim.uri(token)) as store:
        assert signs(store)
    with open_store(f"pkcs11:serial={slot.uri.serial}?{shim.uri(token).partition('?')[2]}") as store:
        assert [key.name for key in store.keys()] == ["prod"]
    unnamed = f"pkcs11:?{shim.uri(token).partition('?')[2]}"
    if lacking == INITIALISED:  # it has a PIN, so it is one that can be used
        with open_store(unnamed) as store:
            assert [key.name for key in store.keys()] == ["prod"]
        assert choose_slot(0, str(shim.path)).uri == Pkcs11Uri.parse(store.uri)
    else:
        with pytest.raises(StoreNotFoundError):
            open_store(unnamed)


def test_a_token_that_is_made_while_others_are_open_is_found(
    softhsm: SoftHsm, caplog: pytest.LogCaptureFixture
) -> None:
    token = softhsm.init_token()
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        with pytest.raises(StoreNotFoundError):
            open_store("pkcs11:token=later?" + token.uri.partition("?")[2])
        assert "initialised again" not in caplog.text  # there is nothing new to see
        later = softhsm.init_token("later")
        with open_store(later.uri) as found:
            assert signs(found)
            assert key.sign(b"m")
            assert [each.name for each in store.keys()] == ["prod"]


def test_sessions_of_other_code_count_more_than_a_new_token(softhsm: SoftHsm) -> None:
    token = softhsm.init_token()
    with open_store(token.uri) as store:
        module = acquire_module(softhsm.module)
        session = module.library.functions.open_session(slots_of(softhsm)[token.label])
        later = softhsm.init_token("later")
        with pytest.raises(StoreNotFoundError):
            open_store(later.uri)
        module.library.functions.close_session(session)  # it raises if that isn't there any more
        module.release()
        assert signs(store)
        with open_store(later.uri) as found:
            assert signs(found)


@pytest.mark.parametrize("fill", [b"\0", b"\0 ", b" \0"])
def test_fields_may_be_filled_with_nul(shim: Shim, token: TestToken, tmp_path: Path, fill: bytes) -> None:
    label, serial = ((text + 16 * fill)[:size] for text, size in ((b"kalshi", 32), (b"4711", 16)))
    shim.rules(
        f"token label {label.hex()}",
        f"token serial {serial.hex()}",
        f"token model {(b'SW TPM' + 16 * fill)[:16].hex()}",
    )
    with open_store(shim.uri(token)) as store:
        assert store.uri == f"pkcs11:token=kalshi;serial=4711?module-path={shim.path}"
        assert store.describe() == 'token "kalshi" (serial 4711)'
        assert signs(store)
        store.confirm(store.key("prod"))
    if shutil.which("p11tool") is None:
        pytest.skip("p11tool is needed (Debian: gnutls-bin)")
    written = subprocess.run(
        ["p11tool", "--provider", str(shim.path), "--list-token-urls"], capture_output=True, text=True, check=True
    )
    (theirs,) = [url for url in written.stdout.split() if "token=kalshi" in url]
    with open_store(f"{theirs}?{shim.uri(token).partition('?')[2]}") as store:
        assert [key.name for key in store.keys()] == ["prod"]


POINT_FORMS = {"bare": "", "octet string": "0420", "bit string": "032100", "info": "302a300506032b6570032100"}
CURVES = {"rfc 8410": "06032b6570", "the other oid": "06092b06010401da470f01", "name": "130c656477617264733235353139"}


@pytest.mark.parametrize("form", POINT_FORMS)
@pytest.mark.parametrize("curve", CURVES)
def test_an_ed25519_point_in_any_form(shim: Shim, token: TestToken, tmp_path: Path, form: str, curve: str) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        pem = key.public_pem()
        point = raw(key.public_key()).hex()
    shim.rules(f"attribute 0x181 {POINT_FORMS[form]}{point} class=2", f"attribute 0x180 {CURVES[curve]}")
    with open_store(shim.uri(token)) as store:
        key = store.key("prod")
        assert key.public_pem() == pem
        assert openssl_verifies(tmp_path, pem, b"m", key.sign(b"m"))


def test_objects_of_which_nothing_can_be_read_are_counted(shim: Shim, token: TestToken) -> None:
    with open_store(token.uri) as store:
        for name in ("good", "bad", "worse", "fine"):
            store.generate(name, KeyType.ED25519)
    shim.rules(*(f"fail C_GetAttributeValue 0x5 object={name.encode().hex()} class=3" for name in ("bad", "worse")))
    with open_store(shim.uri(token)) as store:
        contents = store.contents()
        assert [key.name for key in contents.keys] == ["fine", "good"]
        assert [(found.name, "can't be read" in found.problem) for found in contents.unusable] == 2 * [
            ("an object that says nothing of itself", True)
        ]
        assert all(key.sign(b"m") for key in contents.keys)
        assert store.generate("new", KeyType.ED25519).sign(b"m")


def test_a_point_of_another_form_is_named_as_unusable(shim: Shim, token: TestToken) -> None:
    with open_store(token.uri) as store:
        store.generate("prod", KeyType.ED25519)
    shim.rules("attribute 0x181 0440" + 64 * "00" + " class=2")
    with open_store(shim.uri(token)) as store:
        (found,) = store.contents().unusable
    assert (found.name, "no public half" in found.problem) == ("prod", True)


def test_a_certificate_in_place_of_the_public_object(token: TestToken, tmp_path: Path) -> None:
    with open_store(token.uri) as store:
        make_pair(token, "alpha")
        (alpha,) = store.keys()
        pem = alpha.public_pem()
        der = certificate_of(alpha.public_key())
        (tmp_path / "alpha.der").write_bytes(der)
    pkcs11_tool(
        token, "--write-object", str(tmp_path / "alpha.der"), "--type", "cert", "--id", "01", "--label", "a card"
    )
    pkcs11_tool(token, "--delete-object", "--type", "pubkey", "--id", "01")
    with open_store(token.uri) as store:
        key = store.key("alpha")
        assert key.public_pem() == pem
        assert openssl_verifies(tmp_path, pem, b"m", key.sign(b"m"))
        bound = store.bind(key, "0f8fad5b-d9cb-469f-a165-70867728950e", "demo")
        assert store.key("alpha").api_key_id == bound.api_key_id
        store.destroy(bound)
        assert store.keys() == []
    listed = pkcs11_tool(token, "--list-objects")
    assert ("Certificate" in listed, "a card" in listed) == (True, True)  # it isn't ours


def raw(public_key: object) -> bytes:
    assert isinstance(public_key, Ed25519PublicKey)
    return public_key.public_bytes_raw()


def certificate_of(public_key: PublicKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a card")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, public_key, 1, now, now + timedelta(days=1))
    return made.sign(Ed25519PrivateKey.generate(), None).public_bytes(Encoding.DER)


def test_a_module_whose_path_is_not_utf_8(token: TestToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / os.fsdecode(b"Schl\xfcssel")
    folder.mkdir()
    path = str(shutil.copy(token.module, folder))
    monkeypatch.setenv("HSM_KEYS_MODULE", path)
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    with open_store("pkcs11:token=kalshi") as store:
        assert "Schl%FCssel" in store.uri
        assert signs(store)
        store.confirm(store.key("prod"))
        uri = store.uri
    assert [key["name"] for key in run_json("list", "--store", uri)["keys"]] == ["prod"]
    for command in (("list", "--module", path, "--slot", "0"), ("doctor",), ("show", "prod")):
        done = run_cli(*command)
        assert "something went wrong" not in done.stdout + done.stderr
        assert "kalshi" in done.stdout
    monkeypatch.setenv("HSM_KEYS_MODULE", path + "gone")
    assert run_cli("list").returncode == 3


class Twins:
    """Two tokens that a shim gives one label and one serial."""

    def __init__(self, shim: Shim, softhsm: SoftHsm) -> None:
        self.first, self.second = softhsm.init_token("first"), softhsm.init_token("second")
        self.slots = slots_of(softhsm)
        self.rules = [
            f"token {field} {value.encode().hex()}" for field, value in (("label", "card"), ("serial", SERIAL))
        ]
        self.source = f"module-path={shim.path}&pin-source=file:{self.first.pin_file}"
        for token in (self.first, self.second):
            with open_store(token.uri) as store:
                store.generate(token.label, KeyType.ED25519)
        shim.rules(*self.rules)


@pytest.fixture
def twins(shim: Shim, softhsm: SoftHsm) -> Twins:
    return Twins(shim, softhsm)


def test_the_slot_that_was_chosen_stays_chosen(twins: Twins, shim: Shim, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StoreAmbiguousError, match="match token=card") as caught:
        open_store(f"pkcs11:token=card?{twins.source}")
    assert "--slot" in caught.value.hint
    for label in ("first", "second"):
        slot = twins.slots[label]
        choice = choose_slot(slot, str(shim.path))
        assert (choice.uri.token, choice.uri.serial, choice.uri.slot_id) == ("card", SERIAL, slot)
        assert f"in slot {slot}" in choice.description
        caplog.clear()
        with open_store(f"{str(choice.uri).partition('?')[0]}?{twins.source}") as store:
            assert f"slot-id={slot}" in store.uri
            assert f"slot-id={slot}" in store.key(label).uri
            assert f"in slot {slot}" in store.describe()
            assert "only its slot tells it apart" in caplog.text
            assert [key.name for key in store.keys()] == [label]
            uri = store.uri
        with open_store(f"{uri.partition('?')[0]}?{twins.source}") as store:
            assert [key.name for key in store.keys()] == [label]


def test_what_tells_them_apart_is_named_before_the_slot(
    twins: Twins, shim: Shim, caplog: pytest.LogCaptureFixture
) -> None:
    shim.rules(*twins.rules, f"token model {b'newer'.hex()} slot={twins.slots['second']}")
    with open_store(f"pkcs11:model=newer?{twins.source}") as store:
        assert "model=newer" in store.uri
        assert "slot-id" not in store.uri
        assert [key.name for key in store.keys()] == ["second"]
    assert "only its slot" not in caplog.text


def test_a_twin_that_comes_later_takes_nobody_s_place(twins: Twins, shim: Shim) -> None:
    shim.rules(*(f"{rule} slot={twins.slots['first']}" for rule in twins.rules))
    with open_store(f"pkcs11:token=card?{twins.source}") as store:
        key = store.key("first")
        assert "slot-id" not in store.uri
        shim.rules(*twins.rules, "fail C_SignInit 0x30 first=1")  # which restarts the module
        assert key.sign(b"m")
        assert [each.name for each in store.keys()] == ["first"]


@pytest.mark.program
def test_the_commands_stay_with_the_slot_and_warn(twins: Twins, shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(twins.first.pin_file))
    for label in ("first", "second"):
        slot = str(twins.slots[label])
        done = run_cli("list", "--module", str(shim.path), "--slot", slot)
        assert done.returncode == 0, done.stderr
        assert label in done.stdout
        assert "only its slot tells it apart" in done.stderr
        shown = run_json("show", label, "--module", str(shim.path), "--slot", slot)
        assert f"slot-id={slot}" in shown["uri"]
        assert run_json("show", label, "--store", store_of(shown["uri"]))["name"] == label
    done = run_cli("list", "--module", str(shim.path), "--token", "card")
    assert done.returncode == 3
    assert "--slot" in done.stderr


def store_of(key_uri: str) -> str:
    """Return the URI of the store that a key's URI is in."""
    path, mark, query = key_uri.partition("?")
    kept = [pair for pair in path.split(";") if not pair.startswith(("object=", "type="))]
    return ";".join(kept) + mark + query


def test_where_nothing_is_odd_nothing_is_said(token: TestToken, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), open_store(token.uri) as store:
        assert store.uri.startswith("pkcs11:token=kalshi;serial=")
    assert caplog.text == ""
    with pytest.raises(StoreError):
        open_store("pkcs11:token=other?" + token.uri.partition("?")[2])
