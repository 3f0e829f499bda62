"""``--profile``, ``HSM_KEYS_PROFILE`` and ``config``, as a person uses them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hsm_keys.profiles.file import config_path
from tests.sandbox.client import Caller
from tests.support.cli import failed_json, run_cli, run_json

if TYPE_CHECKING:
    from hsm_keys.sandbox.server import SandboxServer
    from tests.support.softhsm import SoftHsm, TestToken

pytestmark = pytest.mark.softhsm


@pytest.fixture
def profile(token: TestToken, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile, whose name this is, for the one token and the sandbox; no variable names either."""
    monkeypatch.delenv("KALSHI_API_BASE_URL")
    monkeypatch.delenv("KALSHI_WS_URL")
    monkeypatch.delenv("HSM_KEYS_MODULE")
    _write(
        f'[profiles.test]\nstore = "{token.uri_without_pin}"\npin-file = "{token.pin_file}"\n'
        f'base-url = "{sandbox.base_url}"\nws-url = "{sandbox.ws_url}"\n'
    )
    return "test"


def _write(text: str) -> None:
    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(text)
    path.chmod(0o600)


def test_a_profile_says_what_options_would_before_and_after_the_command(profile: str) -> None:
    enrolled = run_json("--profile", profile, "enroll", "prod", "--key-type", "ed25519")
    after = run_json("show", "prod", "--profile", profile)
    by_variable = run_json("show", "prod", HSM_KEYS_PROFILE=profile)
    assert enrolled["public_key_pem"] == after["public_key_pem"] == by_variable["public_key_pem"]
    answer = run_cli("request", "GET", "/portfolio/balance", "prod", "--profile", profile)
    assert answer.returncode == 0, answer.stderr


def test_the_default_profile_counts_where_none_is_named(profile: str) -> None:
    path = config_path()
    path.write_text(f'default = "{profile}"\n' + path.read_text())
    assert run_json("enroll", "prod", "--key-type", "ed25519")["state"] == "registered"


def test_a_token_that_an_option_names_is_never_tried_with_the_profiles_pin(profile: str, softhsm: SoftHsm) -> None:
    other = softhsm.init_token("other", pin="another-0815")
    error = failed_json(4, "show", "prod", "--profile", profile, "--token", "other", "--module", other.module)
    assert error["code"] == "pin_missing"


def test_config_says_where_each_setting_came_from(profile: str, token: TestToken, sandbox: SandboxServer) -> None:
    shown = run_json("config", "--profile", profile, "--pin-file", "/somewhere/else", KALSHI_DEMO="true")
    assert (shown["profile"], shown["file"]) == (profile, str(config_path()))
    found = {each.pop("name"): each for each in shown["settings"]}
    assert found["store"] == {"value": token.uri_without_pin, "origin": "profile", "by": "store"}
    assert found["pin"] == {"value": "/somewhere/else", "origin": "option", "by": "--pin-file"}
    assert found["environment"] == {"value": "true", "origin": "variable", "by": "KALSHI_DEMO"}
    assert found["websocket"]["value"] == sandbox.ws_url
    assert found["bootstrap key"] == {"value": sandbox.bootstrap_key_id, "origin": "variable", "by": "KALSHI_KEY_ID"}
    assert found["exchange"] == {"value": "event contracts", "origin": "default", "by": None}
    table = run_cli("config", "--profile", profile, HSM_KEYS_PIN="pin-canary-4711").stdout
    assert f"profile {profile} of {config_path()}" in table
    assert f"{token.uri_without_pin}  profile test: store" in table
    assert "canary" not in table


def test_config_needs_no_file() -> None:
    assert run_json("config")["profile"] is None
    assert "no profile" in run_cli("config").stdout


@pytest.mark.parametrize("words", [("config",), ("list",), ("show", "prod"), ("proxy", "prod")])
def test_a_profile_that_cannot_be_used_stops_a_command_and_repeats_no_secret(words: tuple[str, ...]) -> None:
    _write('default = "prod"\n[profiles.prod]\npin = "pin-canary-4711"\n')
    error = failed_json(2, *words)
    assert error["code"] == "usage"
    assert "no setting 'pin', since a profile holds no secret; did you mean 'pin-file'?" in error["message"]
    assert "canary" not in json.dumps(error)


@pytest.mark.parametrize("words", [("explain", "usage"), ("version",), ("list", "--help"), ("help", "list")])
def test_what_helps_works_beside_a_bad_file(words: tuple[str, ...]) -> None:
    _write("default = 'gone'")
    assert run_cli(*words).returncode == 0


def test_a_profile_of_aws_is_looked_for_where_aws_has_it() -> None:
    error = failed_json(2, "show", "prod", "--kms", "--profile", "trading")
    assert "no file" in error["message"]
    assert "AWS_PROFILE" in error["hint"]


def test_the_proxy_and_its_subcommands_take_the_profiles_policy(profile: str) -> None:
    path = config_path()
    path.write_text(path.read_text() + 'policy = "/nowhere/policy.toml"\n')
    error = failed_json(2, "proxy", "prod", "--profile", profile)
    assert "/nowhere/policy.toml" in error["message"]


def test_an_api_key_id_stands_in_where_the_store_has_none(profile: str, sandbox: SandboxServer) -> None:
    pem = run_json("enroll", "byhand", "--offline", "--key-type", "ed25519", "--profile", profile)["public_key_pem"]
    made = Caller.bootstrap(sandbox).call("POST", "/trade-api/v2/api_keys", {"name": "byhand", "public_key": pem})
    request = ("request", "GET", "/portfolio/balance", "byhand", "--profile", profile)
    assert failed_json(5, *request)["code"] == "key_not_registered"
    config_path().write_text(config_path().read_text() + f'api-key-id = "{made.json["api_key_id"]}"\n')
    assert run_cli(*request).returncode == 0


@pytest.mark.parametrize(
    "words", [("vault",), ("kms", "--region", "us-east-1", "--role", "arn:aws:iam::111122223333:role/a")]
)
def test_a_policy_is_printed_beside_a_profile_for_another_kind_of_store(profile: str, words: tuple[str, ...]) -> None:
    group, *options = words
    printed = run_cli(group, "policy", "--for", "sign", "--name", "prod", *options, "--profile", profile)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "prod" in printed.stdout


def test_a_policy_takes_its_mounts_from_the_profile_of_a_vault() -> None:
    _write('default = "prod"\n[profiles.prod]\nstore = "vault:///desk?kv=papers"\n')
    assert 'path "papers/data/hsm-keys/prod"' in run_cli("vault", "policy", "--for", "sign", "--name", "prod").stdout
