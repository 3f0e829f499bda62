"""The printed policies on the real server: a token that has one does its workflow, and nothing that lets keys out."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from hsm_keys.errors import UsageError
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.policies import PURPOSES
from hsm_keys.stores.vault.entries import prefix_of
from hsm_keys.stores.vault.policy import policy
from hsm_keys.stores.vault.records import Phase, Record
from tests.support.cli import run_cli, run_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox import SandboxServer
    from tests.support.vault import Vault

pytestmark = [pytest.mark.vault, pytest.mark.program]

NAME = "prod"
OTHER = "prod-2"


@pytest.fixture
def become(vault: Vault, monkeypatch: pytest.MonkeyPatch, sandbox: SandboxServer) -> Callable[[str], str]:
    """Gives the environment a token that has the policy for a purpose alone, and returns it."""
    monkeypatch.setenv("HSM_KEYS_STORE", vault.uri)

    def become(purpose: str) -> str:
        printed = run_cli("vault", "policy", "--for", purpose, "--name", NAME)
        assert printed.returncode == 0, printed.stderr
        token = vault.token(printed.stdout)
        monkeypatch.setenv("BAO_TOKEN", token)
        return token

    return become


def refused(vault: Vault, token: str, transit_key: str, *, deletes: bool = False) -> None:
    """No policy lets this key out, and none touches another one."""
    keys, other = f"{vault.mount}/keys", vault.entry(OTHER)["keys"][OTHER]["transit_key"]
    message = b64encode(b"1").decode()
    calls: list[tuple[str, str, object]] = [
        ("GET", f"{vault.mount}/export/signing-key/{transit_key}", None),
        ("GET", f"{vault.mount}/backup/{transit_key}", None),
        ("POST", f"{keys}/{transit_key}/config", {"exportable": True}),
        ("POST", f"{keys}/{transit_key}/config", {"allow_plaintext_backup": True}),
        ("POST", f"{keys}/{transit_key}/config", {"deletion_allowed": True, "exportable": True}),
        ("POST", f"{keys}/{transit_key}x", {"type": "ed25519", "exportable": True}),
        ("POST", f"{vault.mount}/sign/{transit_key}", {"input": message, "prehashed": True}),
        ("POST", f"{vault.mount}/sign/{transit_key}", {"input": message, "signature_algorithm": "pkcs1v15"}),
        ("POST", f"{vault.mount}/sign/{other}", {"input": message}),
        ("GET", f"{keys}/{other}", None),
        ("POST", f"{keys}/{other}/config", {"deletion_allowed": True}),
        ("DELETE", f"{keys}/{other}", None),
        ("GET", f"{vault.kv}/data/hsm-keys/{OTHER}", None),
        ("POST", f"{vault.kv}/data/hsm-keys/{OTHER}", {"data": {}}),
        ("POST", f"{vault.mount}/restore", {"backup": ""}),
    ]
    if not deletes:
        calls.append(("POST", f"{keys}/{transit_key}/config", {"deletion_allowed": True}))
        calls.append(("DELETE", f"{keys}/{transit_key}", None))
    assert [call for call in calls if vault.status(*call, token=token) != 403] == []


def transit_key_of(vault: Vault) -> str:
    return str(vault.entry(NAME)["keys"][NAME]["transit_key"])


def test_each_workflow_runs_with_its_policy_alone(
    vault: Vault, become: Callable[[str], str], sandbox: SandboxServer
) -> None:
    run_json("enroll", "--name", OTHER, "--key-type", "ed25519")
    token = become("enroll")
    made = run_json("enroll", "--name", NAME, "--key-type", "rsa-2048")
    assert made["custody"]["token_may_write_config"] is True  # the server doesn't tell with which parameters
    assert made["custody"]["token_may_export"] is False
    assert made["custody"]["verdict"] == "in custody: as strong as the server's policies"
    refused(vault, token, transit_key_of(vault))
    token = become("sign")
    assert run_json("sign", "GET", "/portfolio/balance", "--name", NAME)["KALSHI-ACCESS-KEY"] == made["api_key_id"]
    refused(vault, token, transit_key_of(vault))
    assert run_json("show", NAME)["custody"]["token_may_write_config"] is False
    alone = f"{vault.uri}&key={NAME}"  # a policy for signing lists nothing
    assert [entry["name"] for entry in run_json("list", "--store", alone)["keys"]][:1] == [NAME]
    checks = {check["name"]: check["verdict"] for check in run_json("doctor", "--store", alone)["checks"]}
    assert {checks[name] for name in ("store", "server", "vault token", f"permission to sign with {NAME}")} == {"ok"}
    assert vault.status("POST", f"{vault.kv}/data/hsm-keys/{NAME}", {"data": {}}, token=token) == 403
    token = become("rotate")
    run_json("rotate", NAME)
    assert run_json("rotate", NAME, "--finish", "--yes")["rotation"]["stage"] == "done"
    run_json("rotate", NAME)
    assert run_json("rotate", NAME, "--abort", "--yes")["rotation"]["stage"] == "aborted"
    refused(vault, token, transit_key_of(vault), deletes=True)
    token = become("revoke")
    refused(vault, token, transit_key_of(vault), deletes=True)
    assert run_json("revoke", NAME, "--destroy", "--yes")["private_half"] == "destroyed"
    assert vault.entry(NAME) == {"keys": {}}
    token = become("generate")
    assert run_json("generate", NAME)["custody"]["verdict"] == "imported, made by Kalshi"
    refused(vault, token, transit_key_of(vault))


def test_a_name_that_begins_like_another_one_is_another_one(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(vault.uri) as store:
        for name in ("a", "a-", "a_", "a.b"):
            store.generate(name, store.generate(f"x{name}").key_type)
    monkeypatch.setenv("BAO_TOKEN", vault.token(policy("sign", "a", mount=vault.mount, kv=vault.kv)))
    with open_store(vault.uri) as store:
        assert store.key("a").sign(b"1")
    for name in ("a-", "a_", "a.b"):
        key = vault.entry(name)["keys"][name]["transit_key"]
        assert (
            vault.status(
                "GET",
                f"{vault.mount}/keys/{key}",
                token=vault.token(policy("sign", "a", mount=vault.mount, kv=vault.kv)),
            )
            == 403
        )


def test_without_a_name_it_is_for_every_key_of_ours_and_no_other(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.ask("POST", f"{vault.mount}/keys/theirs", {"type": "ed25519"})
    with open_store(vault.uri) as store:
        store.generate("a")
    token = vault.token(policy("revoke", None, mount=vault.mount, kv=vault.kv))
    monkeypatch.setenv("BAO_TOKEN", token)
    with open_store(vault.uri) as store:
        assert [key.name for key in store.keys()] == ["a"]
        store.destroy(store.key("a"))
    assert vault.status("GET", f"{vault.mount}/keys/theirs", token=token) == 403


def test_a_token_that_may_only_look_examines_custody(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, sandbox: SandboxServer
) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", vault.uri)
    pem = run_json("enroll", "--name", NAME, "--key-type", "ed25519")["public_key_pem"]
    rules = policy("sign", NAME, mount=vault.mount, kv=vault.kv).split("\n\n")
    monkeypatch.setenv("BAO_TOKEN", vault.token("\n".join(rule for rule in rules if "/sign/" not in rule)))
    shown = run_json("show", NAME)
    assert shown["public_key_pem"] == pem
    assert shown["custody"]["signature_verified"] is None
    assert run_json("public-key", NAME)["public_key_pem"] == pem


@pytest.mark.parametrize("purpose", PURPOSES)
def test_it_is_printed_for_the_mounts_of_the_store(purpose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("vault", "policy", "--for", purpose, "--name", "prod")
    text = policy(purpose, "prod", mount="transit", kv="secret")
    assert run_cli(*arguments).stdout == text
    assert run_json(*arguments) == {"policy": text}
    theirs = policy(purpose, "prod", mount="team/transit", kv="team/kv")
    assert run_cli(*arguments, "--store", "vault:///team/transit?kv=team/kv").stdout == theirs
    assert run_cli(*arguments, HSM_KEYS_STORE="vault:///team/transit?kv=team/kv").stdout == theirs
    assert run_cli(*arguments, HSM_KEYS_STORE="awskms:///?region=us-east-1").stdout == text
    assert run_cli(*arguments, "--store", "awskms:///?region=us-east-1").returncode == 2


def test_a_bad_name_is_refused() -> None:
    with pytest.raises(UsageError):
        policy("sign", '"*', mount="transit", kv="secret")


def test_what_came_late_waits_for_a_token_that_may_delete(vault: Vault, become: Callable[[str], str]) -> None:
    late = f"{prefix_of(NAME)}0123456789abcdef"
    vault.ask("POST", f"{vault.mount}/keys/{late}", {"type": "ed25519"})
    record = Record(late, phase=Phase.DESTROYING, run="0123456789abcdef")
    content = {"keys": {f"{NAME}+late-0123456789abcdef": record.as_dict()}}
    vault.ask("POST", f"{vault.kv}/data/hsm-keys/{NAME}", {"data": content})
    become("enroll")
    with open_store(vault.uri) as store:
        assert store.generate(NAME, KeyType.ED25519).ours
        store.mend(NAME)
    assert late in vault.transit_keys()
    become("rotate")
    with open_store(vault.uri) as store:
        store.mend(NAME)
    assert vault.transit_keys() == [transit_key_of(vault)]
