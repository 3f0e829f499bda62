"""A token with objects that can't be read, named or used: they are counted and named, and the other keys work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.pins import Pin
from hsm_keys.stores.pkcs11.fresh_process import private_keys_labelled
from hsm_keys.stores.uri import Pkcs11Uri
from tests.support.cli import run_cli, run_json
from tests.support.foreign import copy_objects, make_pair, objects_of, pkcs11_tool

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import SoftHsm, TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

NOT_UTF8 = b"Schl\xfcssel"
SHOWN = "Schl\\xfcssel"
API_KEY_ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"


@pytest.fixture(autouse=True)
def _chosen(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)


@pytest.fixture
def damaged(token: TestToken, softhsm: SoftHsm) -> None:
    """Two private objects of another token lie among this one's."""
    other = softhsm.init_token("other")
    for label in ("one", "two"):
        make_pair(other, label)
    copy_objects(softhsm, other, token)


def unusable() -> list[dict[str, str]]:
    """Return what ``list`` gives as unusable, after making sure that table and ``doctor`` say the same."""
    found: list[dict[str, str]] = run_json("list").get("unusable", [])
    table, doctor = run_cli("list").stdout, run_cli("doctor").stdout
    assert ("can't be used" in table) is bool(found)
    for each in found:
        assert f"private halves that can't be used: {len(found)}" in table
        assert f"{len(found)} private halves can't be used" in doctor
        for said in (table, doctor):
            assert each["problem"] in said
            assert each["name"] in said or each["name"].startswith("object ")  # a handle lasts as long as a session
    return found


@pytest.mark.usefixtures("damaged", "sandbox")
def test_objects_that_cannot_be_read_stop_no_command(softhsm: SoftHsm) -> None:
    before = objects_of(softhsm)
    for command in (
        ("enroll", "--name", "prod", "--key-type", "ed25519"),
        ("show", "prod"),
        ("public-key", "prod"),
        ("sign", "GET", "/trade-api/v2/markets", "--name", "prod"),
        ("rotate", "prod"),
        ("rotate", "prod", "--finish"),
    ):
        done = run_cli(*command)
        assert done.returncode == 0, done.stderr
    found = unusable()
    assert len(found) == 2
    assert all("can't be read" in each["problem"] and each["name"].startswith("object ") for each in found)
    assert "prod" in {key["name"] for key in run_json("list")["keys"]}
    for judging in ("custody", "reconcile"):  # the bootstrap key is elsewhere
        assert run_cli(judging).returncode == 5
    assert run_cli("revoke", "prod", "--destroy", "--yes").returncode == 0
    assert objects_of(softhsm) == before


def test_an_unreadable_object_restarts_nothing(
    token: TestToken, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = softhsm.init_token("other")
    with open_store(other.uri) as store:
        store.generate("theirs", KeyType.ED25519)
    copy_objects(softhsm, other, token)
    monkeypatch.setattr("hsm_keys.stores.pkcs11.store.restart", lambda *_: pytest.fail("the module was restarted"))
    with open_store(token.uri) as store:
        for name in ("a", "b"):
            store.generate(name, KeyType.ED25519).sign(b"m")
        RenamesKeys.of(store).rename(store.key("a"), "c")
        store.destroy(store.key("b"))
        assert [key.name for key in store.keys()] == ["c"]
        assert len(store.contents().unusable) == 1
        make_pair(token, NOT_UTF8)
        uri = Pkcs11Uri.parse(store.uri)
        assert [private_keys_labelled(uri, name, Pin(token.pin)) for name in ("c", "b")] == [1, 0]


@pytest.mark.usefixtures("sandbox")
def test_a_label_that_is_not_utf_8_is_shown_and_signs(token: TestToken) -> None:
    make_pair(token, NOT_UTF8)
    (found,) = [key for key in run_json("list")["keys"] if key["state"] == "not ours"]
    assert found["name"] == SHOWN
    assert "object=Schl%FCssel" in found["uri"]
    assert SHOWN in run_cli("list").stdout
    name = NOT_UTF8.decode(errors="surrogateescape")
    for command in (("show", name), ("public-key", name)):
        assert run_json(*command)["name"] == SHOWN
        assert run_cli(*command).returncode == 0
    assert run_json("sign", "GET", "/trade-api/v2/markets", "--name", name, "--api-key-id", API_KEY_ID)


def test_one_that_is_adopted_is_printed_everywhere(token: TestToken, sandbox: SandboxServer) -> None:
    make_pair(token, NOT_UTF8)
    name = NOT_UTF8.decode(errors="surrogateescape")
    api_key_id = sandbox.add_key("by hand", run_json("public-key", name)["public_key_pem"]).api_key_id
    for command in ("list", "reconcile", "custody", "doctor"):
        for output in ("table", "json"):
            done = run_cli(command, "--output", output)
            assert done.returncode in {0, 5}, done.stderr
            assert "something went wrong" not in done.stderr
            assert "chl" in done.stdout
    done = run_cli("custody", "--html", str(token.pin_file.with_name("page.html")))
    assert done.returncode == 5, done.stderr
    assert SHOWN in token.pin_file.with_name("page.html").read_text()
    assert run_json("adopt", name, "--api-key-id", api_key_id)["name"] == SHOWN
    assert run_cli("adopt", name, "--api-key-id", api_key_id).stdout.startswith(SHOWN)
    assert run_cli("revoke", api_key_id, "--destroy", "--yes").stdout.startswith(SHOWN)


@pytest.mark.parametrize("label", [NOT_UTF8, None])
def test_without_label_or_public_half_a_key_is_named_as_unusable(
    token: TestToken, sandbox: SandboxServer, label: bytes | None
) -> None:
    make_pair(token, label, cka_id="05")
    make_pair(token, "whole", cka_id="06")
    if label is not None:
        pkcs11_tool(token, "--delete-object", "--type", "pubkey", "--id", "05")
    (found,) = unusable()
    assert found["name"].startswith("id 05" if label is None else SHOWN)
    assert ("no label" if label is None else "no public half") in found["problem"]
    assert [key["name"] for key in run_json("list")["keys"] if key["state"] == "not ours"] == ["whole"]


def entry(name: str) -> dict[str, Any]:
    (found,) = [key for key in run_json("list")["keys"] if key["name"] == name]
    return dict(found)


def test_one_of_ours_is_not_said_to_be_elsewhere(token: TestToken, sandbox: SandboxServer) -> None:
    api_key_id = run_json("enroll", "--name", "prod", "--key-type", "ed25519")["api_key_id"]
    pkcs11_tool(token, "--delete-object", "--type", "pubkey", "--label", "prod")
    (found,) = unusable()
    assert found["name"] == "prod"
    assert (entry("prod")["state"], entry("prod")["api_key_id"]) == ("unusable", api_key_id)
    accepted = ("--accept", sandbox.bootstrap_key_id, "--output", "json")
    (finding,) = json.loads(run_cli("reconcile", *accepted).stdout)["findings"]
    assert (finding["code"], finding["name"]) == ("cannot-sign", "prod")


def test_half_a_pair_whose_making_was_interrupted_is_ended_by_its_name(
    token: TestToken, sandbox: SandboxServer
) -> None:
    with open_store(token.uri) as store:
        store.generate("prod+next", KeyType.ED25519)
    pkcs11_tool(token, "--delete-object", "--type", "pubkey", "--label", "prod+next")
    accepted = ("--accept", sandbox.bootstrap_key_id, "--output", "json")
    (finding,) = json.loads(run_cli("reconcile", *accepted).stdout)["findings"]
    assert (finding["code"], finding["name"]) == ("cannot-sign", "prod+next")
    assert " revoke prod+next --destroy " in finding["command"]
    ended = {"name": "prod+next", "api_key_id": None, "revoked": False, "private_half": "destroyed"}
    assert run_json("revoke", "prod+next", "--destroy", "--yes") == ended
    assert unusable() == []
