"""Which token: by URI, label, serial, slot. Ambiguity lists the candidates."""

from __future__ import annotations

import _ctypes
import subprocess
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from hsm_keys import open_store
from hsm_keys.errors import PinIncorrectError, StoreAmbiguousError, StoreError, StoreNotFoundError, UsageError
from hsm_keys.stores.pkcs11.module import acquire_module
from hsm_keys.stores.pkcs11.probing import look_at
from hsm_keys.stores.pkcs11.store import Pkcs11Store
from hsm_keys.stores.pkcs11.token_names import serial_of
from hsm_keys.stores.pkcs11.tokens import all_tokens, choose_slot, initialised
from hsm_keys.stores.uri import Pkcs11Uri
from tests.support import shim

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.softhsm import SoftHsm

pytestmark = pytest.mark.softhsm


def test_a_label_that_two_tokens_carry_lists_both(softhsm: SoftHsm) -> None:
    token, _ = softhsm.init_token("kalshi"), softhsm.init_token("kalshi")
    with pytest.raises(StoreAmbiguousError) as caught:
        open_store(token.uri)
    assert caught.value.message.count('token "kalshi" (serial ') == 2
    assert "pkcs11:serial=" in caught.value.hint


def test_a_serial_tells_twins_apart(softhsm: SoftHsm) -> None:
    token, _ = softhsm.init_token("kalshi"), softhsm.init_token("kalshi")
    module = acquire_module(softhsm.module)
    serials = [serial_of(found) for found in initialised(all_tokens(module))]
    module.release()
    assert len(set(serials)) == 2
    for serial in serials:
        uri = f"pkcs11:serial={serial}?module-path={softhsm.module}&pin-source=file:{token.pin_file}"
        with open_store(uri) as store:
            assert serial in store.uri


def test_an_unknown_label_lists_what_is_there(softhsm: SoftHsm) -> None:
    softhsm.init_token("kalshi")
    with pytest.raises(StoreNotFoundError) as caught:
        open_store(f"pkcs11:token=kalsji?module-path={softhsm.module}")
    assert "token=kalsji" in caught.value.message
    assert 'token "kalshi"' in caught.value.hint


def test_a_module_without_tokens_says_so(softhsm: SoftHsm) -> None:
    with pytest.raises(StoreNotFoundError, match="has no token yet") as caught:
        open_store(f"pkcs11:?module-path={softhsm.module}")
    assert "softhsm2-util --init-token --free --label" in caught.value.hint


def test_a_configuration_that_cannot_be_read_leads_to_no_other_token(
    softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = softhsm.init_token("kalshi")
    for named in (tmp_path / "nowhere.conf", tmp_path):
        monkeypatch.setenv("SOFTHSM2_CONF", str(named))
        with pytest.raises(StoreNotFoundError, match=r"SOFTHSM2_CONF names .* would use another"):
            open_store(f"pkcs11:token=kalshi?module-path={softhsm.module}&pin-source=file:{token.pin_file}")


@pytest.mark.parametrize(
    ("shape", "doubt"),
    [
        ('"{}"', "; what was tried has quotes around it"),
        ("{} ", "; what was tried has white space at its beginning or end"),
        ("{}\\n", "; what was tried ends in \\n, written out"),
        ("{}1", "(the URI's pin-source)"),
    ],
)
def test_a_refused_pin_is_told_by_what_is_round_it(softhsm: SoftHsm, tmp_path: Path, shape: str, doubt: str) -> None:
    token = softhsm.init_token("kalshi")
    pin = token.pin_file.read_text().strip()
    wrong = tmp_path / "wrong"
    wrong.write_text(shape.format(pin))
    wrong.chmod(0o600)
    with pytest.raises(PinIncorrectError) as caught:
        open_store(f"pkcs11:token=kalshi?module-path={softhsm.module}&pin-source=file:{wrong}")
    assert str(caught.value.hint).endswith(doubt)
    assert pin not in f"{caught.value.message}{caught.value.hint}"


def test_the_only_token_needs_no_name(softhsm: SoftHsm) -> None:
    token = softhsm.init_token("kalshi")
    with open_store(f"pkcs11:?module-path={softhsm.module}&pin-source=file:{token.pin_file}") as store:
        assert 'token "kalshi"' in store.describe()


def test_a_slot_is_an_id_or_an_index_and_the_answer_names_label_and_serial(softhsm: SoftHsm) -> None:
    softhsm.init_token("first")
    softhsm.init_token("second")
    module = acquire_module(softhsm.module)
    tokens = [(found.label, found.slot.slot_id) for found in initialised(all_tokens(module))]
    module.release()
    for index, (label, slot_id) in enumerate(tokens):
        for number in (index, slot_id):
            choice = choose_slot(number, softhsm.module)
            assert choice.uri.token == label
            assert choice.uri.serial
            assert choice.uri.slot_id is None
            assert label in choice.description
            assert len(choice.others) == 1
    with pytest.raises(StoreNotFoundError, match="no slot 2"):
        choose_slot(2, softhsm.module)
    with pytest.raises(StoreNotFoundError):
        choose_slot(-1, softhsm.module)


def test_a_file_that_is_no_module_says_so(tmp_path: Path) -> None:
    text = tmp_path / "module.so"
    text.write_text("not a shared object")
    with pytest.raises(StoreError, match="can't be loaded as a PKCS#11 module") as caught:
        open_store(f"pkcs11:token=x?module-path={text}")
    assert "shared object" in caught.value.hint
    assert "SOFTHSM2_CONF" not in str(caught.value)
    with pytest.raises(StoreNotFoundError, match="no PKCS#11 module at"):
        open_store(f"pkcs11:token=x?module-path={tmp_path}/gone.so")


def test_a_library_that_is_no_module_says_so() -> None:
    library = _ctypes.__file__  # a real shared object without C_GetFunctionList
    with pytest.raises(StoreError, match="no PKCS#11 module: it has no C_GetFunctionList"):
        open_store(f"pkcs11:token=x?module-path={library}")


def test_a_library_whose_list_of_functions_is_empty_says_so(tmp_path: Path) -> None:
    source = tmp_path / "empty.c"
    source.write_text("unsigned long C_GetFunctionList(void **list) { *list = 0; return 0; }\n")
    cc = shim.compiler()
    if cc is None:
        pytest.skip("a C compiler is needed")
    subprocess.run([cc, "-shared", "-fPIC", "-o", source.with_suffix(".so"), source], check=True)
    with pytest.raises(StoreError, match="gives no functions"):
        open_store(f"pkcs11:token=x?module-path={source.with_suffix('.so')}")


def test_module_name_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError) as caught:
        open_store("pkcs11:token=x?module-name=softhsm2")
    assert "module-path" in caught.value.hint


@pytest.mark.parametrize("uri", ["", "kalshi", "file:///x", "pkcs12:token=x"])
def test_a_store_that_no_back_end_knows(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(uri)
    assert "pkcs11:" in caught.value.hint


def test_a_link_to_a_module_stays_in_the_uri_and_leads_to_one_module(softhsm: SoftHsm, tmp_path: Path) -> None:
    token = softhsm.init_token("kalshi")
    link = tmp_path / "libhsm.so"
    link.symlink_to(softhsm.module)
    first = open_store(f"pkcs11:token=kalshi?module-path={link}&pin-source=file:{token.pin_file}")
    second = open_store(token.uri)
    assert first.uri.endswith(f"?module-path={link}")
    assert isinstance(first, Pkcs11Store)
    assert isinstance(second, Pkcs11Store)
    assert first._connection.module is second._connection.module
    first.close()
    second.close()


@pytest.fixture
def said(softhsm: SoftHsm) -> tuple[str, dict[str, str]]:
    """The query of a URI, and what module, slot and token say of themselves, as a URI writes it."""
    token = softhsm.init_token("kalshi")
    module = acquire_module(softhsm.module)
    (found,), library = initialised(all_tokens(module)), module.library
    words = {
        "token": found.label,
        "serial": serial_of(found),
        "manufacturer": found.manufacturer_id,
        "model": found.model,
        "slot-id": str(found.slot.slot_id),
        "slot-description": found.slot.slot_description,
        "slot-manufacturer": found.slot.manufacturer_id,
        "library-manufacturer": library.manufacturer_id,
        "library-description": library.library_description,
        "library-version": ".".join(map(str, library.library_version)),
    }
    module.release()
    return f"?module-path={softhsm.module}&pin-source=file:{token.pin_file}", words


OTHERS = {"slot-id": "1", "library-version": "2"}
"""Another value, where it can't be any text; the second means 2.0."""


def test_every_attribute_of_a_uri_is_compared(said: tuple[str, dict[str, str]]) -> None:
    query, words = said
    everything = "pkcs11:" + ";".join(f"{name}={quote(value)}" for name, value in words.items())
    with open_store(everything + query) as store:
        assert 'token "kalshi"' in store.describe()
    for name in words:
        uri = f"pkcs11:token=kalshi;{name}={OTHERS.get(name, 'other')}" if name != "token" else "pkcs11:token=other"
        with pytest.raises(StoreNotFoundError, match=name):
            open_store(uri + query)
        with pytest.raises(StoreNotFoundError, match=name):
            look_at(Pkcs11Uri.parse(uri + query))


def test_there_is_no_attribute_that_nobody_looks_at(said: tuple[str, dict[str, str]]) -> None:
    known = {field.name.replace("_", "-") for field in fields(Pkcs11Uri)}
    used = {"pin-source", "pin-value", "module-path"}
    assert known - used - said[1].keys() == {"object", "type", "id", "module-name"}  # these are refused


@pytest.mark.parametrize("named", ["object=prod", "id=%01", "type=private", "type=public", "object=prod;type=private"])
def test_a_uri_of_an_object_opens_no_token(said: tuple[str, dict[str, str]], named: str) -> None:
    uri = f"pkcs11:token=kalshi;{named}{said[0]}"
    for use in (open_store, partial(open_store, isolated=True), lambda uri: look_at(Pkcs11Uri.parse(uri))):
        with pytest.raises(UsageError, match=named.partition("=")[0]) as caught:
            use(uri)
        assert "store.key(NAME)" in caught.value.hint


def test_the_module_of_the_environment_is_looked_at_and_opened_alike(
    softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    softhsm.init_token("kalshi")
    monkeypatch.setenv("HSM_KEYS_MODULE", str(tmp_path / "gone.so"))
    for use in (open_store, lambda uri: look_at(Pkcs11Uri.parse(uri))):
        with pytest.raises(StoreNotFoundError, match=r"gone\.so"):
            use("pkcs11:token=kalshi")
