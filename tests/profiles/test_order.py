"""The one order of settings: option, variable, profile, default; and what a profile's store takes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsm_keys.profiles.file import Profile
from hsm_keys.profiles.order import Origin, settings_in_order

FIELDS = {
    "store": "pkcs11:token=kalshi?module-path=/usr/lib/softhsm/libsofthsm2.so",
    "pin-file": "/profile/pin",
    "base-url": "http://127.0.0.1:1",
    "ws-url": "ws://127.0.0.1:2",
    "exchange": "perps",
    "policy": "/profile/policy.toml",
    "api-key-id": "of-the-profile",
}
EVERY = {
    "store": ("--store", "HSM_KEYS_STORE", "store"),
    "pin": ("--pin-file", "HSM_KEYS_PIN_FILE", "pin-file"),
    "environment": ("--base-url", "KALSHI_API_BASE_URL", "base-url"),
    "websocket": ("--ws-url", "KALSHI_WS_URL", "ws-url"),
}


def _settings(
    options: dict[str, str], env: dict[str, str], fields: dict[str, str]
) -> dict[str, tuple[str, Origin, str]]:
    profile = Profile("prod", Path("/config.toml"), fields)
    return {each.name: (each.value, each.origin, each.by) for each in settings_in_order(options, profile, env)}


@pytest.mark.parametrize("name", EVERY)
def test_option_then_variable_then_profile_then_default(name: str) -> None:
    option, variable, field = EVERY[name]
    by_option, by_variable = ("/o/pin", "/v/pin") if name == "pin" else ("pkcs11:token=o", "pkcs11:token=v")
    options, env = {option: by_option}, {variable: by_variable}
    own = {field: FIELDS[field]}
    assert _settings(options, env, own)[name] == (by_option, Origin.OPTION, option)
    assert _settings({}, env, own)[name] == (by_variable, Origin.VARIABLE, variable)
    assert _settings({}, {variable: " "}, own)[name] == (FIELDS[field], Origin.PROFILE, field)
    assert _settings({}, {}, {})[name][1:] == (Origin.DEFAULT, "")


def test_a_store_that_is_named_otherwise_leaves_the_profiles_pin_and_id_aside() -> None:
    for options, env in (({"--token": "other"}, {}), ({"--slot": "1"}, {}), ({}, {"HSM_KEYS_STORE": "pkcs11:token=x"})):
        found = _settings(options, env, FIELDS)
        assert found["pin"][1] is Origin.DEFAULT
        assert found["api-key-id"][1] is Origin.DEFAULT
        assert found["environment"][1] is Origin.PROFILE


@pytest.mark.parametrize(
    ("option", "store"),
    [
        ("--module", "awskms:///?region=us-east-1"),
        ("--pin-file", "vault:///transit"),
        ("--token", "awskms:///"),
        ("--kms", FIELDS["store"]),
        ("--region", FIELDS["store"]),
        ("--region", "vault:///transit"),
    ],
)
def test_a_profiles_store_gives_way_to_an_option_of_another_back_end(option: str, store: str) -> None:
    assert _settings({option: "x"}, {}, {"store": store})["store"][1] is not Origin.PROFILE


def test_a_module_without_a_store_goes_with_tokens_alone() -> None:
    own = {"module": "/profile/module.so", "pin-file": "/profile/pin"}
    assert _settings({"--token": "x"}, {}, own)["module"][1] is Origin.PROFILE
    for options, env in (({"--kms": "True"}, {}), ({}, {"HSM_KEYS_STORE": "awskms:///"}), ({"--store": "vault:"}, {})):
        found = _settings(options, env, own)
        assert (found["module"][1], found["pin"][1]) == (Origin.DEFAULT, Origin.DEFAULT)


def test_perpetual_futures_have_variables_of_their_own_that_come_first() -> None:
    env = {"KALSHI_PERPS_API_BASE_URL": "http://127.0.0.1:3", "KALSHI_API_BASE_URL": "http://127.0.0.1:4"}
    assert _settings({}, env, {"exchange": "perps"})["environment"][2] == "KALSHI_PERPS_API_BASE_URL"
    assert _settings({}, env, {})["environment"][2] == "KALSHI_API_BASE_URL"


def test_what_may_be_a_secret_is_described() -> None:
    env = {
        "HSM_KEYS_PIN": "4711-canary",
        "HSM_KEYS_STORE": "pkcs11:token=a?pin-value=4711-canary",
        "KALSHI_API_BASE_URL": "https://me:4711-canary@kalshi.example",
        "KALSHI_KEY_ID": "-----BEGIN PRIVATE KEY----- 4711-canary",
    }
    found = _settings({}, env, {})
    assert "canary" not in str(found)
    misplaced = _settings({"--module": "4711-canary", "--pin-file": "4711-canary", "--slot": "47110815"}, {}, {})
    assert "canary" not in str(misplaced)
    assert "47110815" not in str(misplaced)
    assert found["pin"] == ("hidden", Origin.VARIABLE, "HSM_KEYS_PIN")
