"""The command line on Vault: every key command on the real server and the sandbox, and its exit codes."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hsm_keys.signing.environments import environment_name
from tests.support.cli import failed_json, run_cli, run_json
from tests.support.ports import free_port
from tests.support.vault_faults import FaultyVault
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer
    from tests.support.vault import Vault

pytestmark = [pytest.mark.vault, pytest.mark.program]

PATH = "/trade-api/v2/portfolio/balance"


@pytest.fixture(autouse=True)
def _here(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", vault.uri)


def states() -> dict[str, tuple[Any, Any]]:
    return {
        entry["name"]: (entry["state"], entry["api_key_id"])
        for entry in run_json("list")["keys"]
        if entry["state"] != "elsewhere"
    }


@pytest.mark.parametrize("key_type", ["rsa-2048", "ed25519"])
def test_a_key_is_enrolled_shown_and_signs(vault: Vault, sandbox: SandboxServer, key_type: str, tmp_path: Path) -> None:
    made = run_json("enroll", "--name", "prod", "--key-type", key_type, "--store", vault.uri)
    assert (made["state"], made["key_type"]) == ("registered", key_type)
    assert made["custody"]["verdict"] == "in custody: as strong as the server's policies"
    assert made["uri"] == f"{vault.uri}&key=prod"
    assert vault.entry("prod")["keys"]["prod"]["environment"] == environment_name(sandbox.base_url)
    headers = run_json("sign", "GET", PATH, "--name", "prod", "--timestamp-ms", "1703123456789")
    signature = b64decode(headers["KALSHI-ACCESS-SIGNATURE"])
    assert headers["KALSHI-ACCESS-KEY"] == made["api_key_id"]
    assert openssl_verifies(tmp_path, made["public_key_pem"], b"1703123456789GET" + PATH.encode(), signature)
    assert run_cli("request", "GET", "/portfolio/balance", "--name", "prod").returncode == 0
    shown = run_json("show", "prod")
    assert shown["public_key_pem"] == made["public_key_pem"]
    attributes = shown["custody"]["attributes"]
    assert (attributes["exportable"], attributes["type"]) == (False, key_type)
    assert run_json("public-key", "prod", "--store", made["uri"])["public_key_pem"] == made["public_key_pem"]
    assert states() == {"prod": ("registered", made["api_key_id"])}
    assert failed_json(5, "enroll", "--name", "prod")["code"] == "key_exists"


def test_a_key_is_rotated_back_and_forth_and_revoked(vault: Vault, sandbox: SandboxServer) -> None:
    first = run_json("enroll", "--name", "prod", "--key-type", "ed25519")["api_key_id"]
    second = run_json("rotate", "prod")["api_key_id"]
    assert states() == {"prod": ("registered", second), "prod+retired": ("registered", first)}
    run_json("rotate", "prod", "--abort", "--yes")
    assert states() == {"prod": ("registered", first)}
    third = run_json("rotate", "prod")["api_key_id"]
    run_json("rotate", "prod", "--finish", "--yes")
    assert states() == {"prod": ("registered", third)}
    assert len(vault.transit_keys()) == 1
    assert run_json("revoke", "prod", "--destroy", "--yes")["private_half"] == "destroyed"
    assert (states(), vault.transit_keys()) == ({}, [])
    assert set(sandbox.state.keys) == {sandbox.bootstrap_key_id}


def test_the_old_key_is_kept_under_a_name_of_its_own(vault: Vault, sandbox: SandboxServer) -> None:
    first = run_json("enroll", "--name", "prod", "--key-type", "ed25519")["api_key_id"]
    run_json("rotate", "prod")
    run_json("rotate", "prod", "--finish", "--keep-old", "--yes")
    assert set(states()) == {"prod", f"prod+kept-{first[:8]}"}


@pytest.mark.parametrize("key_type", ["rsa-2048", "ed25519"])
def test_kalshi_makes_a_key_that_is_imported(vault: Vault, sandbox: SandboxServer, key_type: str) -> None:
    made = run_json("generate", "bot", "--key-type", key_type)
    assert made["custody"]["verdict"] == "imported, made by Kalshi"
    assert run_json("show", "bot")["custody"]["origin"] == "imported"
    assert run_cli("request", "GET", "/portfolio/balance", "--name", "bot").returncode == 0


def test_a_key_that_was_made_elsewhere_is_adopted(vault: Vault, sandbox: SandboxServer) -> None:
    vault.ask("POST", f"{vault.mount}/keys/theirs", {"type": "ed25519"})
    pem = run_json("public-key", "theirs")["public_key_pem"]
    public_key: Any = load_pem_public_key(pem.encode())
    api_key_id = sandbox.state.register("theirs", public_key).api_key_id
    assert failed_json(5, "enroll", "--name", "theirs")["code"] == "foreign_key"
    assert run_json("adopt", "theirs", "--api-key-id", api_key_id)["state"] == "registered"
    assert states() == {"theirs": ("registered", api_key_id)}


def test_reconcile_custody_and_doctor_look_at_it(vault: Vault, sandbox: SandboxServer) -> None:
    made = run_json("enroll", "--name", "prod", "--key-type", "ed25519")
    bootstrap = ("--accept", sandbox.bootstrap_key_id)
    assert run_json("reconcile", *bootstrap)["findings"] == []
    (key, *_) = run_json("custody", *bootstrap)["keys"]
    assert (key["name"], key["in_custody"], key["made"]) == ("prod", True, "in the store")
    assert key["verdict"] == "in custody: as strong as the server's policies"
    assert "can take the private half out" in " ".join(key["custody"]["unconfirmed"])
    checks = {check["name"]: check for check in run_json("doctor")["checks"]}
    assert "unsealed and active" in checks["server"]["message"]
    assert checks["vault token"]["verdict"] == "warning"
    assert checks["engine"]["message"] == f"{vault.mount}/ is there"
    assert checks["permission to sign with prod"]["verdict"] == "ok"
    vault.ask("POST", f"{vault.mount}/keys/{_transit_key(vault)}/config", {"exportable": True})
    failed = run_cli("custody", *bootstrap, "--output", "json")
    assert failed.returncode == 5
    assert "exportable=True" in failed.stdout
    assert made["api_key_id"] in failed.stdout


def test_an_engine_that_is_not_there_is_no_empty_one(vault: Vault, sandbox: SandboxServer) -> None:
    """A misspelt mount or kv= in the URI."""
    run_json("enroll", "--name", "prod", "--key-type", "ed25519")
    wrong = ("--store", f"vault:///{vault.mount}?address={vault.address}&kv=nowhere")
    for command in (
        ("list",),
        ("show", "prod"),
        ("sign", "GET", PATH, "--name", "prod"),
        ("enroll", "new"),
        ("reconcile",),
    ):
        error = failed_json(3, *command, *wrong)
        assert "has no engine at nowhere/" in error["message"]
        assert "kv= in the store's URI" in error["hint"]
    failed = run_cli("doctor", "--output", "json", *wrong)
    assert (failed.returncode, "has no engine at nowhere/" in failed.stdout) == (3, True)
    no_transit = ("--store", f"vault:///nowhere?address={vault.address}&kv={vault.kv}")
    failed = run_cli("doctor", "--output", "json", *no_transit)
    assert (failed.returncode, "has no engine at nowhere/" in failed.stdout) == (3, True)
    assert failed_json(3, "sign", "GET", PATH, "--name", "prod", *no_transit)["code"] == "vault"


def test_doctor_names_a_token_that_may_not_sign(
    vault: Vault, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_json("enroll", "--name", "prod", "--key-type", "ed25519")
    reading = f'path "{vault.kv}/*" {{ capabilities = ["read", "list"] }}\n'
    reading += f'path "{vault.mount}/keys/*" {{ capabilities = ["read"] }}\n'
    reading += 'path "auth/token/lookup-self" { capabilities = ["read"] }\n'
    reading += 'path "sys/capabilities-self" { capabilities = ["update"] }\n'
    monkeypatch.setenv("BAO_TOKEN", vault.token(reading, ttl="10m", renewable=False))
    done = run_cli("doctor", "--output", "json")
    assert done.returncode == 3
    assert "hsm-keys vault policy --for sign --name prod" in done.stdout
    assert "can't be renewed" in done.stdout


def test_a_key_whose_transit_key_is_gone_is_listed_and_its_api_key_can_be_ended(
    vault: Vault, sandbox: SandboxServer
) -> None:
    api_key_id = run_json("enroll", "--name", "prod", "--key-type", "ed25519")["api_key_id"]
    transit_key = _transit_key(vault)
    vault.ask("POST", f"{vault.mount}/keys/{transit_key}/config", {"deletion_allowed": True})
    vault.ask("DELETE", f"{vault.mount}/keys/{transit_key}")
    assert states() == {"prod": ("unusable", api_key_id)}
    assert failed_json(5, "sign", "GET", PATH, "--name", "prod")["code"] == "vault_key_not_found"
    assert run_json("revoke", api_key_id, "--yes")["revoked"] is True


def test_two_stores_are_looked_at_together(vault: Vault, sandbox: SandboxServer) -> None:
    run_json("enroll", "--name", "a", "--key-type", "ed25519")
    other = type(vault)()
    run_json("enroll", "--name", "b", "--key-type", "ed25519", "--store", other.uri)
    listed = run_json("list", "--store", vault.uri, "--store", other.uri)["keys"]
    assert [entry["name"] for entry in listed if entry["state"] == "registered"] == ["a", "b"]


def test_exit_codes(vault: Vault, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert failed_json(5, "show", "nope")["code"] == "vault_key_not_found"
    assert failed_json(2, "list", "--store", "vault:///transit?x=1")["code"] == "usage"
    assert failed_json(2, "list", "--store", "vault:///transit?address=http://10.0.0.1:8200")["code"] == "usage"
    nobody = f"vault:///transit?address=http://127.0.0.1:{free_port()}"
    assert failed_json(7, "show", "prod", "--store", nobody)["code"] == "network"
    with FaultyVault(vault.address) as front:
        front.always = (503, {"errors": ["Vault is sealed"]})
        sealed = vault.uri.replace(vault.address, front.address)
        assert failed_json(3, "show", "prod", "--store", sealed)["code"] == "vault_sealed"
    monkeypatch.setenv("BAO_TOKEN", "s.wrong-canary")
    error = failed_json(3, "show", "prod")
    assert error["code"] == "vault_token"
    assert "canary" not in str(error)
    monkeypatch.delenv("BAO_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert failed_json(3, "show", "prod")["code"] == "vault_token"


def _transit_key(vault: Vault) -> str:
    return str(vault.entry("prod")["keys"]["prod"]["transit_key"])
