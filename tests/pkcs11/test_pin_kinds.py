"""Tokens with an empty PIN, a pad, an expired PIN, or no sessions of one kind: each gets the login that it wants."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.errors import PinError, PinIncorrectError, PinMissingError, StoreError
from tests.support.cli import run_cli
from tests.support.terminal import answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.shim import Shim
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm

LOGIN_REQUIRED, USER_PIN_INITIALIZED, PAD, TO_BE_CHANGED = 0x4, 0x8, 0x100, 0x80000
EMPTY, NONE = "-", "none"


def takes(token: TestToken, pin: str) -> str:
    """Return the rule of a token whose PIN is another one."""
    return f"pin {pin} {token.pin.encode().hex()}"


@pytest.fixture
def with_key(token: TestToken) -> TestToken:
    with open_store(token.uri) as store:
        store.generate("prod", KeyType.ED25519)
    return token


@pytest.fixture
def empty(with_key: TestToken, shim: Shim) -> str:
    """The URI of a token with an empty PIN and one key."""
    shim.rules("token shortest 0", takes(with_key, EMPTY))
    return shim.uri(with_key).partition("&")[0]


@pytest.fixture
def empty_file(tmp_path: Path) -> Path:
    path = tmp_path / "empty"
    path.touch(mode=0o600)
    return path


def test_an_empty_pin_by_file_variable_and_source(
    empty: str, empty_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(empty, pin_file=empty_file) as store:
        assert store.key("prod").sign(b"m")
    with open_store(f"{empty}&pin-source=file:{empty_file}") as store:
        assert store.key("prod").sign(b"m")
    with open_store(empty, ask_pin=lambda _: "") as store:
        assert store.key("prod").sign(b"m")
    with open_store(f"{empty}&pin-source=file:{empty_file}", isolated=True) as store:
        assert store.key("prod").sign(b"m")
    monkeypatch.setenv("HSM_KEYS_PIN", "")
    with open_store(empty) as store:
        assert store.key("prod").sign(b"m")


@pytest.mark.program
def test_an_empty_pin_at_the_prompt(empty: str) -> None:
    code, shown = answer(b"User PIN of", b"", "--store", empty, "public-key", "prod")
    assert code == 0, shown
    assert "BEGIN PUBLIC KEY" in shown


@pytest.mark.program
def test_an_empty_answer_costs_a_token_that_takes_none_no_try(token: TestToken, shim: Shim, tmp_path: Path) -> None:
    shim.rules("token shortest 4", f"log {tmp_path / 'calls'}")
    code, shown = answer(b"User PIN of", b"", "--store", shim.uri(token).partition("&")[0], "list")
    assert code == 4, shown
    assert "takes no empty PIN" in shown
    assert "C_Login" not in shim.calls(tmp_path / "calls")


def test_a_token_that_wants_a_login_and_does_not_say_so(
    with_key: TestToken, shim: Shim, empty: str, empty_file: Path
) -> None:
    """tpm2-pkcs11 says nothing of a login where the PIN is empty."""
    shim.rules("token shortest 0", f"token clear {LOGIN_REQUIRED:#x}", takes(with_key, EMPTY))
    for how in ({"pin_file": empty_file}, {"ask_pin": lambda _: ""}):
        with open_store(empty, **how) as store:
            assert store.key("prod").sign(b"m")
            assert store.generate("new", KeyType.ED25519).sign(b"m")
            store.destroy(store.key("new"))
    with open_store(empty) as store:  # nobody to ask: as it says, it may do without
        assert store.keys() == []
        with pytest.raises(StoreError, match="empty --pin-file"):
            store.generate("new", KeyType.ED25519)


@pytest.mark.program
def test_where_no_login_is_wanted_nobody_is_asked(with_key: TestToken, shim: Shim, tmp_path: Path) -> None:
    shim.rules(
        "token shortest 0", f"token clear {LOGIN_REQUIRED | USER_PIN_INITIALIZED:#x}", f"log {tmp_path / 'calls'}"
    )
    uri = shim.uri(with_key).partition("&")[0]
    with open_store(uri, ask_pin=lambda _: pytest.fail("it asked")):
        pass
    shim.rules("token shortest 0", f"token clear {LOGIN_REQUIRED:#x}", f"log {tmp_path / 'calls'}")
    code, shown = answer(b"User PIN of", b"", "doctor", "--store", uri, "--base-url", "http://127.0.0.1:9/trade-api/v2")
    assert code == 7, shown  # no Kalshi there
    assert "User PIN of" not in shown
    assert "the token needs none" in shown
    assert "C_Login" not in shim.calls(tmp_path / "calls")


def test_a_pin_that_is_given_goes_before_the_pad(with_key: TestToken, shim: Shim) -> None:
    shim.rules(f"token set {PAD:#x}", takes(with_key, with_key.pin.encode().hex()))
    with open_store(shim.uri(with_key)) as store:
        assert store.key("prod").sign(b"m")


@pytest.mark.parametrize("isolated", [False, True])
def test_without_one_the_pad_asks(with_key: TestToken, shim: Shim, *, isolated: bool) -> None:
    shim.rules(f"token set {PAD:#x}", takes(with_key, NONE))
    with open_store(
        shim.uri(with_key).partition("&")[0], ask_pin=lambda _: pytest.fail("it asked"), isolated=isolated
    ) as store:
        assert store.key("prod").sign(b"m")


def test_a_pin_that_the_pad_refused_is_asked_for_again_and_counts_as_another(with_key: TestToken, shim: Shim) -> None:
    shim.rules(f"token set {PAD:#x}", "fail C_Login 0xa0 first=1", takes(with_key, NONE))
    uri = shim.uri(with_key).partition("&")[0]
    with pytest.raises(PinIncorrectError):
        open_store(uri)
    with open_store(uri) as store:
        assert store.key("prod").sign(b"m")


@pytest.mark.parametrize("code", [0x50, 0x200])  # CKR_FUNCTION_CANCELED, CKR_FUNCTION_REJECTED
def test_a_pin_that_nobody_enters_on_the_pad_is_missing(with_key: TestToken, shim: Shim, code: int) -> None:
    shim.rules(f"token set {PAD:#x}", f"fail C_Login {code:#x}")
    with pytest.raises(PinMissingError, match="on its pad") as caught:
        open_store(shim.uri(with_key).partition("&")[0])
    assert caught.value.exit_code == 4


def test_a_login_of_the_security_officer_is_named(with_key: TestToken, shim: Shim) -> None:
    shim.rules("fail C_Login 0x104")  # CKR_USER_ANOTHER_ALREADY_LOGGED_IN
    with pytest.raises(StoreError) as caught:
        open_store(shim.uri(with_key))
    assert "security officer" in caught.value.hint


@pytest.mark.program
def test_doctor_leaves_a_pad_alone(with_key: TestToken, shim: Shim, tmp_path: Path) -> None:
    shim.rules(f"token set {PAD:#x}", takes(with_key, NONE), f"log {tmp_path / 'calls'}")
    nowhere = {"KALSHI_API_BASE_URL": "http://127.0.0.1:9/trade-api/v2"}
    done = run_cli("doctor", "--store", shim.uri(with_key).partition("&")[0], **nowhere)
    assert "would ask for the PIN on its own pad" in done.stdout
    assert "C_Login" not in shim.calls(tmp_path / "calls")


@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_a_token_that_gives_one_kind_of_session_alone(with_key: TestToken, shim: Shim, mode: str) -> None:
    refused = {"ro": "0xb7", "rw": "0xe2"}[mode]  # CKR_SESSION_READ_ONLY_EXISTS, CKR_TOKEN_WRITE_PROTECTED
    shim.rules(f"fail C_OpenSession {refused} mode={mode}")
    with open_store(shim.uri(with_key)) as store:
        key = store.key("prod")
        assert key.sign(b"m")
        if mode == "ro":
            assert store.generate("new", KeyType.ED25519).sign(b"m")
        else:
            with pytest.raises(StoreError, match="read-only session"):
                store.generate("new", KeyType.ED25519)
            assert [one.name for one in store.keys()] == ["prod"]


@pytest.mark.parametrize(
    ("failing", "word"),
    [
        ("C_Login 0xa3", "change-pin"),  # CKR_PIN_EXPIRED
        ("C_SignInit 0xa3", "change-pin"),  # while the halves are paired
        ("C_Sign 0xa3 after=1", "change-pin"),  # afterwards
        ("C_FindObjectsInit 0xa3", "change-pin"),
        ("C_GenerateKeyPair 0xa3", "change-pin"),
        ("C_Login 0xa4", "security officer"),  # CKR_PIN_LOCKED
        ("C_SignInit 0xa4", "security officer"),
        ("C_Login 0x102", "set one"),  # CKR_USER_PIN_NOT_INITIALIZED
    ],
)
def test_a_pin_that_has_expired_or_is_locked_says_what_to_do(
    with_key: TestToken, shim: Shim, tmp_path: Path, failing: str, word: str
) -> None:
    log = tmp_path / "calls"
    shim.rules(f"fail {failing}", f"log {log}")

    def use() -> None:
        with open_store(shim.uri(with_key)) as store:
            if "C_GenerateKeyPair" in failing:
                store.generate("new", KeyType.ED25519)
            store.key("prod").sign(b"m")

    with pytest.raises(PinError) as caught:
        use()
    assert caught.value.exit_code == 4
    assert word in caught.value.hint
    assert shim.calls(log).count("C_Initialize") == shim.calls(log).count("C_Login") == 1  # no recovery, no second try


@pytest.mark.program
def test_a_pin_to_be_changed_is_said_by_doctor(with_key: TestToken, shim: Shim) -> None:
    shim.rules(f"token set {TO_BE_CHANGED:#x}")
    nowhere = {"HSM_KEYS_STORE": shim.uri(with_key), "KALSHI_API_BASE_URL": "http://127.0.0.1:9/trade-api/v2"}
    told = json.loads(run_cli("doctor", "--output", "json", **nowhere).stdout)
    (pin,) = [check for check in told["checks"] if check["name"] == "pin"]
    assert pin["verdict"] == "warning"
    assert "--change-pin" in pin["remedy"]


def test_a_pin_of_a_variable_is_missing_where_it_is_empty_and_none_is_taken(
    token: TestToken, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim.rules("token shortest 4")
    monkeypatch.setenv("HSM_KEYS_PIN", "")
    with pytest.raises(PinMissingError):
        open_store(shim.uri(token).partition("&")[0])
