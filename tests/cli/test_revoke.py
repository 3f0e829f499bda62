"""``revoke`` as its users run it: what it asks, what it prints, and what it leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from hsm_keys.sandbox import parse_fault
from hsm_keys.stores.abilities import RenamesKeys
from tests.support.cli import ED25519, failed_json, run_cli, run_json
from tests.support.ministack import REGION, account
from tests.support.terminal import answer

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = [pytest.mark.softhsm, pytest.mark.program]


def test_the_object_of_the_contract(pin: str, sandbox: SandboxServer) -> None:
    prod = run_json("enroll", "--name", "prod", *ED25519)
    assert run_json("revoke", "prod", "--yes") == {
        "name": "prod",
        "api_key_id": prod["api_key_id"],
        "revoked": True,
        "private_half": "kept",
    }
    assert prod["api_key_id"] not in sandbox.state.keys
    assert {key["name"]: key["state"] for key in run_json("list")["keys"]} == {"prod": "gone", "bootstrap": "elsewhere"}
    assert run_json("revoke", prod["api_key_id"], "--destroy", "--yes")["private_half"] == "destroyed"
    assert [key["name"] for key in run_json("list")["keys"]] == ["bootstrap"]


def test_without_a_terminal_and_without_yes_nothing_is_done(pin: str, sandbox: SandboxServer) -> None:
    prod = run_json("enroll", "--name", "prod", *ED25519)
    before = len(sandbox.requests)
    error = failed_json(2, "revoke", "prod", "--destroy")
    assert "nothing was done" in error["message"]
    assert "--yes" in error["hint"]
    assert len(sandbox.requests) == before
    assert prod["api_key_id"] in sandbox.state.keys
    assert run_json("show", "prod")["state"] == "registered"


def test_a_person_is_told_what_will_stop_working_and_may_say_no(pin: str, sandbox: SandboxServer) -> None:
    prod = run_json("enroll", "--name", "prod", *ED25519, "--scope", "read", "--subaccount", "7")
    exit_code, shown = answer(b"Go on?", b"n", "revoke", "prod", "--destroy")
    assert exit_code == 2
    for told in (
        prod["api_key_id"],
        sandbox.base_url,
        "scopes: read; subaccount 7",
        "private half: 'prod' in token \"kalshi\"",
        "every program that signs with it gets 401 from then on",
        "NO WAY BACK",
        "bootstrap",
        "not confirmed; nothing was done",
    ):
        assert told in shown
    assert prod["api_key_id"] in sandbox.state.keys
    assert pin not in shown
    exit_code, shown = answer(b"Go on?", b"y", "revoke", "prod", "--destroy")
    assert exit_code == 0
    assert prod["api_key_id"] not in sandbox.state.keys
    assert run_json("list")["keys"][0]["name"] == "bootstrap"


def test_the_last_manager_and_force(pin: str, sandbox: SandboxServer) -> None:
    error = failed_json(5, "revoke", "bootstrap", "--yes")
    assert "--force" in error["hint"]
    assert run_json("revoke", "bootstrap", "--yes", "--force")["private_half"] == "elsewhere"
    assert sandbox.state.keys == {}


def test_the_exit_codes(pin: str, sandbox: SandboxServer) -> None:
    run_json("enroll", "--name", "prod", *ED25519)
    assert failed_json(5, "revoke", "nope", "--yes")["code"] == "key_not_found"
    assert failed_json(2, "revoke", "bootstrap", "--destroy", "--yes", "--force")["code"] == "usage"
    sandbox.faults.add(parse_fault("DELETE /api_keys/{api_key}:drop-before:1"))
    assert failed_json(7, "revoke", "prod", "--yes")["code"] == "outcome_unknown"
    sandbox.faults.add(parse_fault("DELETE /api_keys/{api_key}:status=403:1"))
    assert failed_json(6, "revoke", "prod", "--yes")["code"] == "kalshi_forbidden"
    assert run_cli("revoke", "prod", "--yes").returncode == 0


def test_a_key_that_kalshi_does_not_know_proves_nothing_about_itself(
    pin: str, sandbox: SandboxServer, token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    prod = run_json("enroll", "--name", "prod", *ED25519)
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY"):
        monkeypatch.delenv(name)
    sandbox.state.delete_key(prod["api_key_id"])  # by somebody else, or the sandbox was started anew
    error = failed_json(7, "revoke", "prod", "--destroy", "--yes")
    assert error["code"] == "end_not_proved"
    assert "--auth" in error["hint"]
    with open_store(token.uri) as store:
        assert [key.name for key in store.keys()] == ["prod"]
    monkeypatch.setenv("KALSHI_KEY_ID", sandbox.bootstrap_key_id)
    monkeypatch.setenv("KALSHI_PRIVATE_KEY", sandbox.bootstrap_pem)
    assert run_json("revoke", "prod", "--destroy", "--yes")["private_half"] == "destroyed"


def test_the_only_key_of_the_store_that_was_about_to_end_itself_goes_on(
    pin: str, sandbox: SandboxServer, token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    prod = run_json("enroll", "--name", "prod", *ED25519)
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY"):
        monkeypatch.delenv(name)
    with open_store(token.uri) as store:
        RenamesKeys.of(store).rename(store.key("prod"), "prod+ending")  # what a killed run leaves
    sandbox.state.delete_key(prod["api_key_id"])
    done = run_json("revoke", "prod", "--destroy", "--yes")
    assert (done["revoked"], done["private_half"]) == (True, "destroyed")
    with open_store(token.uri) as store:
        assert store.keys() == []


@pytest.mark.parametrize("named", [True, False])
def test_a_pair_that_was_never_pasted_is_thrown_away_without_any_api_key(
    pin: str, token: TestToken, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY", "KALSHI_API_BASE_URL", "KALSHI_DEMO"):
        monkeypatch.delenv(name, raising=False)
    here = ("--env", "demo") if named else ()
    said = run_cli("enroll", "by-hand", *ED25519, "--offline", *here).stderr
    assert ("in the environment demo" in said) is named
    assert run_json("show", "by-hand")["environment"] == ("demo" if named else None)
    thrown = ("revoke", "by-hand", "--destroy", "--yes", *here)
    assert failed_json(5, *thrown)["code"] == "key_not_registered"
    assert failed_json(2, "revoke", "by-hand", "--never-registered", "--yes")["code"] == "usage"
    if named:
        elsewhere = failed_json(5, *thrown[:4], "--never-registered", "--env", "prod")
        assert elsewhere["code"] == "wrong_environment"
    done = run_json(*thrown, "--never-registered")
    assert done == {"name": "by-hand", "api_key_id": None, "revoked": False, "private_half": "destroyed"}
    with open_store(token.uri) as store:
        assert store.keys() == []


def test_what_is_registered_is_not_thrown_away_by_a_word(
    pin: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_json("enroll", "prod", *ED25519)
    sandbox.faults.add(parse_fault("GET /api_keys:status=500"))
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY"):
        monkeypatch.delenv(name)
    other = "http://127.0.0.1:9/trade-api/v2"
    error = failed_json(5, "revoke", "prod", "--destroy", "--never-registered", "--yes", KALSHI_API_BASE_URL=other)
    assert error["code"] == "wrong_environment"


@pytest.mark.kms
def test_on_kms(account: str, sandbox: SandboxServer) -> None:
    here = ("--kms", "--region", REGION)
    prod = run_json("enroll", "--name", "prod", *ED25519, *here)
    done = run_cli("revoke", "prod", "--destroy", "--yes", *here)
    assert done.returncode == 0, done.stderr
    assert "deletion scheduled" in done.stdout
    assert "deleted in 7 days; until then the deletion can be cancelled" in done.stderr
    assert prod["api_key_id"] not in sandbox.state.keys
