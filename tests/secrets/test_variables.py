"""A secret in the place of any other variable, URI attribute or line of a policy is printed nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_keys.proxy.policy import ClientPolicy, Policy
from hsm_keys.stores.awskms import uri as kms_uri
from hsm_keys.stores.uri import _NAMES, _QUERY_ATTRIBUTES
from tests.support.canaries import CANARIES, pieces, run

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.softhsm

SOURCE = Path(__file__).parents[2] / "hsm_keys"
_VARIABLE = re.compile(r"\b(?:HSM_KEYS|KALSHI|AWS|SSL|XDG|VAULT|BAO)_[A-Z][A-Z_]+\b|\b(?:HTTPS?|ALL|NO)_PROXY\b")
VARIABLES = sorted({name for file in SOURCE.rglob("*.py") for name in _VARIABLE.findall(file.read_text())})
"""Every variable that the package names: a new one is tried by itself."""

COMMANDS = (
    ["doctor", "--output", "json"],
    ["list"],
    ["sign", "GET", "/portfolio/balance", "--name", "prod", "--api-key-id", "id"],
    ["request", "GET", "/portfolio/balance", "--name", "prod", "--api-key-id", "id"],
    ["enroll", "--name", "new", "--key-type", "ed25519"],
    ["list", "--kms"],
)
NAMES = {"unquoted", "AWS_PROFILE", "AWS_REGION", "token", "object", "profile", "serial"}


def _check(what: str, *arguments: str) -> None:
    ran = run(*arguments)
    assert not [piece for piece in pieces(CANARIES[what]) if piece in ran.text], f"{what}: {ran.text}"
    assert "nobody foresaw" not in ran.text, f"{what}: {ran.text}"


@pytest.mark.parametrize("variable", VARIABLES)
def test_no_command_repeats_a_secret_in_the_place_of_a_variable(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable in {"KALSHI_PRIVATE_KEY", "KALSHI_PRIVATE_KEY_PATH"}:
        monkeypatch.setenv("KALSHI_KEY_ID", "id")
    for number, (what, canary) in enumerate(CANARIES.items(), VARIABLES.index(variable)):
        if variable in NAMES and what.startswith("a PIN"):
            continue
        monkeypatch.setenv(variable, canary)
        _check(what, *COMMANDS[number % len(COMMANDS)])  # each secret, and each command, with each variable once


def test_there_are_secrets_for_all_commands() -> None:
    assert len(CANARIES) >= len(COMMANDS)


def _uris(canary: str) -> Mapping[str, str]:
    from urllib.parse import quote

    value = quote(canary, safe="")
    token = {
        f"pkcs11 {name}": f"pkcs11:{'?' if name in _QUERY_ATTRIBUTES else ''}{name.replace('_', '-')}={value}"
        for name in sorted(_NAMES)
    }
    kms = {f"awskms {name}": f"awskms:///alias/hsm-keys/x?{name}={value}" for name in kms_uri._PARAMETERS}
    odd = {
        "the key of KMS": f"awskms:///{value}",
        "a host": f"awskms://{value}/",
        "an attribute of no name": f"pkcs11:{value}",
        "an attribute of its name": f"pkcs11:{value}=x",
        "a parameter": f"awskms:///?{value}=x",
        "a scheme": f"{value}:x",
        "as it is": canary,
        "unquoted": f"pkcs11:token={canary}",
        "unquoted behind a module": f"pkcs11:token=x?module-path={canary}&pin-value=x",
    }
    return {**token, **kms, **odd}


@pytest.mark.parametrize("place", _uris(""))
@pytest.mark.parametrize("given", ["--store", "HSM_KEYS_STORE"])
def test_no_command_repeats_a_secret_in_a_uri(place: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for what, canary in CANARIES.items():
        if place.rpartition(" ")[2] in NAMES and what.startswith("a PIN"):
            continue
        uri = _uris(canary)[place]
        if given == "--store":
            _check(what, "list", "--store", uri)
        else:
            monkeypatch.setenv(given, uri)
            _check(what, "list")


def _policies(canary: str) -> Mapping[str, str]:
    import json

    value = json.dumps(canary)
    whole = {f"the policy's {name}": f"{name} = {value}\n[clients.default]\n" for name in Policy.model_fields}
    client = {
        f"a client's {name}": f"version = 1\n[clients.default]\n{name} = {value}" for name in ClientPolicy.model_fields
    }
    lists = {
        f"a client's {name}s": f"version = 1\n[clients.default]\n{name} = [{value}]"
        for name in ClientPolicy.model_fields
    }
    odd = {
        "a client": f"version = 1\n[clients.{value}]\n",
        "a client's unknown field": f"version = 1\n[clients.default]\n{value} = 1",
        "a field of the whole": f"version = 1\n{value} = 1\n[clients.default]\n",
        "no TOML": canary,
    }
    return {**whole, **client, **lists, **odd}


@pytest.mark.parametrize("place", _policies(""))
def test_no_command_repeats_a_secret_in_a_policy(place: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    for what, canary in CANARIES.items():
        policy.write_text(_policies(canary)[place])
        _check(what, "proxy", "check", str(policy), "GET", "/trade-api/v2/portfolio/balance")
