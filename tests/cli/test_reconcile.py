"""``reconcile`` as its users run it: what it says, what it asks, and how it exits."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store
from tests.support.cli import ED25519, failed_json, run_cli, run_json
from tests.support.ministack import REGION, account
from tests.support.terminal import answer

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import SoftHsm, TestToken

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = [pytest.mark.softhsm, pytest.mark.program]


@pytest.fixture
def lost(pin: str, sandbox: SandboxServer) -> str:
    """A key ``prod`` that an enroll registered and didn't bind; the API key's id."""
    pem = run_json("enroll", "--name", "prod", *ED25519, "--offline")["public_key_pem"]
    return sandbox.add_key("prod", pem).api_key_id


def looked(exit_code: int, *arguments: str) -> Any:
    done = run_cli("reconcile", *arguments, "--output", "json")
    assert done.returncode == exit_code, done.stderr
    return json.loads(done.stdout)


def test_nothing_wrong_exits_with_0(pin: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    run_json("enroll", "--name", "prod", *ED25519)
    run_json("revoke", "bootstrap", "--yes", "--auth", "prod")
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY"):
        monkeypatch.delenv(name)
    assert looked(0) == {"findings": [], "fixed": []}
    assert "all is as it should be" in run_cli("reconcile").stdout


def test_the_object_of_the_contract(lost: str, sandbox: SandboxServer) -> None:
    given = looked(5)
    assert given["fixed"] == []
    by_code = {finding["code"]: finding for finding in given["findings"]}
    assert set(by_code) == {"not-bound", "elsewhere"}
    found = by_code["not-bound"]
    assert list(found) == ["code", "name", "api_key_id", "store", "message", "repair", "command"]
    assert (found["name"], found["api_key_id"]) == ("prod", lost)
    assert found["store"].startswith('token "kalshi"')
    assert lost in found["repair"]
    done = run_cli(*shlex.split(found["command"])[1:])
    assert done.returncode == 0, done.stderr
    assert [finding["code"] for finding in looked(5)["findings"]] == ["elsewhere"]


def test_a_command_that_is_named_speaks_to_the_same_environment(lost: str, sandbox: SandboxServer) -> None:
    for finding in looked(5, "--base-url", sandbox.base_url)["findings"]:
        assert finding["command"].endswith(f"--base-url {sandbox.base_url}")


def test_without_fix_nothing_is_changed(lost: str, sandbox: SandboxServer) -> None:
    done = run_cli("reconcile")
    assert done.returncode == 5
    assert f"--fix can bind API key {lost}" in done.stdout
    assert run_json("show", "prod")["state"] == "minted"


def test_fix_needs_a_terminal_or_yes(lost: str, sandbox: SandboxServer) -> None:
    before = len(sandbox.requests)
    assert "--yes" in failed_json(2, "reconcile", "--fix")["hint"]
    assert len(sandbox.requests) == before


def test_fix_lists_each_action_and_a_no_changes_nothing(lost: str) -> None:
    exit_code, shown = answer(b"Go on?", b"n", "reconcile", "--fix")
    assert exit_code == 2
    assert f"will bind API key {lost} to 'prod'" in shown
    assert run_json("show", "prod")["state"] == "minted"
    exit_code, shown = answer(b"Go on?", b"y", "reconcile", "--fix")
    assert exit_code == 5  # the bootstrap key is still elsewhere
    assert "fixed not-bound" in shown
    assert run_json("show", "prod")["api_key_id"] == lost


def test_fix_tells_what_it_fixed_and_what_is_left(lost: str) -> None:
    given = looked(5, "--fix", "--yes")
    assert [finding["code"] for finding in given["fixed"]] == ["not-bound"]
    assert [finding["code"] for finding in given["findings"]] == ["elsewhere"]
    assert run_json("show", "prod")["api_key_id"] == lost
    assert looked(5, "--fix", "--yes")["fixed"] == []


@pytest.mark.kms
def test_a_token_and_kms_together(pin: str, account: str, sandbox: SandboxServer, token: TestToken) -> None:
    kms = f"awskms:///?region={REGION}"
    run_json("enroll", "--name", "in-hsm", *ED25519)
    run_json("enroll", "--name", "in-kms", *ED25519, "--store", kms)
    assert {found["name"] for found in looked(5)["findings"]} == {"bootstrap", "in-kms"}
    assert {found["name"] for found in looked(5, "--store", token.uri_without_pin, "--store", kms)["findings"]} == {
        "bootstrap"
    }
    other_way = ("--kms", "--region", REGION, "--store", token.uri_without_pin)
    assert {found["name"] for found in looked(5, *other_way)["findings"]} == {"bootstrap"}


def test_list_joins_several_stores_and_other_commands_refuse_them(
    softhsm: SoftHsm, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = softhsm.init_token("one", "pin-canary-1"), softhsm.init_token("two", "pin-canary-2")
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(one.pin_file))
    for token in (one, two):
        with open_store(token.uri) as store:
            store.generate(f"in-{token.label}", KeyType.ED25519)
    both = ("--store", one.uri_without_pin, "--store", two.uri)
    listed = {key["name"]: key["location"] for key in run_json("list", *both)["keys"]}
    assert set(listed) == {"in-one", "in-two", "bootstrap"}
    assert '"two"' in listed["in-two"]
    assert listed["bootstrap"] == "in none of these stores"
    assert {key["name"] for key in run_json(*both, "list")["keys"]} == set(listed)
    error = failed_json(2, "enroll", "--name", "prod", *both)
    assert "several times" in error["message"]
    assert len(sandbox.state.keys) == 1


def test_a_token_named_twice_is_refused(pin: str, sandbox: SandboxServer, token: TestToken) -> None:
    assert "given twice" in failed_json(2, "reconcile", "--token", "kalshi", "--store", token.uri)["message"]


def test_the_pin_of_one_token_is_never_tried_on_another(
    softhsm: SoftHsm, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = softhsm.init_token("one", "pin-canary-1"), softhsm.init_token("two", "pin-canary-2")
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(one.pin_file))
    error = failed_json(2, "reconcile", "--token", "one", "--store", two.uri_without_pin)
    assert "pin-source" in error["message"]
    with_value = f"pkcs11:token=two?module-path={two.module}&pin-value=pin-canary-2"
    refused = run_cli("reconcile", "--token", "one", "--store", with_value)
    assert refused.returncode == 2
    assert "canary" not in refused.stdout + refused.stderr
    with open_store(two.uri) as store:
        store.generate("in-two", KeyType.ED25519)
    found = looked(5, "--token", "one", "--store", two.uri)["findings"]
    assert [(each["code"], each["name"]) for each in found] == [
        ("not-registered", "in-two"),
        ("elsewhere", "bootstrap"),
    ]
