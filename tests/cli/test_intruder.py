"""Whoever reaches the token without its PIN can replace public objects, and no command shows or registers theirs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hsm_keys.signing.environments import environment_name
from hsm_keys.stores.pkcs11.marks import registered_id
from tests.support.cli import failed_json, run_cli, run_json
from tests.support.intruder import plant_pair, plant_public_half, remove_public_half
from tests.support.oddkeys import OUR_MARK

if TYPE_CHECKING:
    import subprocess

    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.program, pytest.mark.softhsm]

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture(autouse=True)
def _token(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))


def enrolled(key_type: str) -> str:
    pem: str = run_json("enroll", "--name", "prod", "--key-type", key_type)["public_key_pem"]
    return pem


def shows(done: subprocess.CompletedProcess[str], pem: str) -> bool:
    body = "".join(pem.splitlines()[1:-1])
    return body[-44:] in (done.stdout + done.stderr).replace("\n", "").replace("\\n", "")


COMMANDS = [
    ("public-key", "prod"),
    ("show", "prod"),
    ("adopt", "prod", "--api-key-id", ID),
    ("enroll", "--name", "prod", "--offline"),
    ("enroll", "--name", "prod"),
    ("rotate", "prod", "--yes"),
    ("sign", "GET", "/markets", "--name", "prod"),
]


@pytest.mark.parametrize("replace", [True, False])
def test_a_public_half_that_was_replaced_is_not_shown_and_not_registered(
    sandbox: SandboxServer, token: TestToken, *, replace: bool
) -> None:
    """Also where theirs lies beside the right one, which is found then."""
    right = run_json("enroll", "--name", "minted", "--offline", "--key-type", "ed25519")["public_key_pem"]
    bad = plant_public_half(token, "minted", replace=replace)
    enrolled("ed25519")
    theirs = plant_public_half(token, "prod", replace=replace)
    registered = set(sandbox.state.keys)
    for command in [*COMMANDS, ("enroll", "--name", "minted", "--offline"), ("enroll", "--name", "minted")]:
        done = run_cli(*command, "--output", "json")
        assert not shows(done, theirs), command
        assert not shows(done, bad), command
        if replace:
            assert (done.returncode, done.stdout) == (5, ""), (command, done.stderr)
            error = json.loads(done.stderr)["error"]
            assert error["code"] == "signing"
            assert "isn't proved which public half belongs to" in error["message"]
            assert "register nothing" in error["hint"]
    if replace:
        assert set(sandbox.state.keys) == registered
    else:
        assert run_json("public-key", "minted")["public_key_pem"] == right


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_such_a_key_is_in_the_report_and_not_in_custody(
    sandbox: SandboxServer, token: TestToken, how: str, *, offline: bool
) -> None:
    api_key_id = run_json("enroll", "--name", "prod", "--key-type", "ed25519")["api_key_id"]
    theirs = plant_public_half(token, "prod", replace=True) if how == "replaced" else remove_public_half(token, "prod")
    done = run_cli("custody", *(["--offline"] if offline else []), "--output", "json")
    assert done.returncode == 5
    entries = {entry["name"]: entry for entry in json.loads(done.stdout)["keys"]}
    assert (entries["prod"]["api_key_id"], entries["prod"]["in_custody"]) == (api_key_id, False)
    assert "no public half of it" in entries["prod"]["verdict"]
    assert set(entries) == ({"prod"} if offline else {"prod", "bootstrap"})
    assert not (theirs and shows(done, theirs))


def test_such_a_key_ends_at_kalshi_alone(sandbox: SandboxServer, token: TestToken) -> None:
    api_key_id = run_json("enroll", "--name", "prod", "--key-type", "ed25519")["api_key_id"]
    plant_public_half(token, "prod", replace=True)
    error = failed_json(5, "revoke", "prod", "--destroy", "--yes")
    assert "can't be used" in error["message"]
    assert "leave --destroy out" in error["hint"]
    assert api_key_id in sandbox.state.keys
    assert run_json("revoke", "prod", "--yes")["revoked"] is True
    assert api_key_id not in sandbox.state.keys


def test_an_rsa_key_says_its_modulus_itself(sandbox: SandboxServer, token: TestToken) -> None:
    right = enrolled("rsa-2048")
    theirs = plant_public_half(token, "prod", replace=True)
    for command in ("public-key", "show"):
        done = run_cli(command, "prod")
        assert done.returncode == 0, done.stderr
        assert shows(done, right)
        assert not shows(done, theirs)
    assert run_json("custody", "--offline")["in_custody"] is True


@pytest.mark.parametrize("offline", [True, False])
def test_a_pair_that_takes_no_pin_is_not_picked_up(sandbox: SandboxServer, token: TestToken, *, offline: bool) -> None:
    """Made in the token, not to be taken out, with our mark: and whoever planted it signs with it all the same."""
    theirs = plant_pair(token, "prod", OUR_MARK)
    registered = set(sandbox.state.keys)
    done = run_cli("enroll", "--name", "prod", *(["--offline"] if offline else []))
    assert done.returncode == 5
    assert "without a login" in done.stderr
    assert not shows(done, theirs)
    assert set(sandbox.state.keys) == registered
    (entry,) = json.loads(run_cli("custody", "--offline", "--output", "json").stdout)["keys"]
    assert entry["in_custody"] is False
    assert run_json("show", "prod")["state"] == "not ours"


def test_a_key_of_ours_goes_before_one_that_was_planted_under_its_name(
    sandbox: SandboxServer, token: TestToken
) -> None:
    right = enrolled("ed25519")
    theirs = plant_pair(token, "prod", registered_id(ID, environment_name(sandbox.base_url)))
    done = run_cli("public-key", "prod")
    assert shows(done, right)
    assert not shows(done, theirs)
    assert failed_json(5, "enroll", "--name", "prod")["code"] == "key_exists"


def test_a_planted_key_with_an_api_key_id_signs_no_management_call(
    sandbox: SandboxServer, token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would register the next key in the account of whoever planted it."""
    plant_pair(token, "aaa", registered_id(ID, environment_name(sandbox.base_url)))
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY"):
        monkeypatch.delenv(name)
    before = len(sandbox.requests)
    assert "--offline" in failed_json(5, "enroll", "--name", "prod")["hint"]
    assert len(sandbox.requests) == before
