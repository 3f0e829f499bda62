"""One login a process; a refused PIN is never tried again; the PIN shows nowhere."""

from __future__ import annotations

import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pkcs11.constants import TokenFlag

from hsm_keys import KeyType, open_store
from hsm_keys.errors import PinIncorrectError, PinLockedError, PinMissingError
from hsm_keys.stores.pins import Pin
from hsm_keys.stores.pkcs11 import login as login_module

if TYPE_CHECKING:
    from tests.support.softhsm import SoftHsm, TestToken

WRONG = "wrong-pin-canary-0815"


@pytest.mark.softhsm
def test_a_wrong_pin_is_refused_once_and_never_tried_again(
    token: TestToken, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []
    real = login_module._try_pin

    def try_pin(token: Any, pin: object) -> Any:
        tried.append(pin)
        return real(token, pin)

    monkeypatch.setattr(login_module, "_try_pin", try_pin)
    monkeypatch.setenv("HSM_KEYS_PIN", WRONG)
    for _ in range(3):
        with pytest.raises(PinIncorrectError) as caught:
            open_store(token.uri_without_pin)
        assert caught.value.exit_code == 4
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.hint
        assert WRONG not in shown
    assert tried == [Pin(WRONG)]
    with open_store(token.uri) as store:  # the right PIN still works, in the same process
        assert store.keys() == []


@pytest.mark.softhsm
def test_without_any_pin_the_error_names_the_ways(token: TestToken) -> None:
    with pytest.raises(PinMissingError) as caught:
        open_store(token.uri_without_pin)
    assert "HSM_KEYS_PIN_FILE" in caught.value.hint


@pytest.mark.softhsm
def test_the_prompt_names_the_token(token: TestToken) -> None:
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return token.pin

    with open_store(token.uri_without_pin, ask_pin=ask):
        pass
    assert len(prompts) == 1
    assert f'token "{token.label}"' in prompts[0]


@pytest.mark.softhsm
def test_two_stores_of_one_token_share_a_login_and_one_may_close(token: TestToken) -> None:
    first = open_store(token.uri)
    second = open_store(token.uri_without_pin)  # no PIN needed: the process is logged in
    key = second.generate("prod", KeyType.ED25519)
    first.close()
    key.sign(b"still logged in")
    second.close()


@pytest.mark.softhsm
def test_the_pin_shows_in_no_repr(token: TestToken) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        state = [store, key, vars(store), vars(key), store.uri, key.uri, store.describe()]
        assert token.pin not in repr(state)


def _fake_token(flags: TokenFlag) -> Any:
    def must_not_open(**_: object) -> None:
        raise AssertionError("the token was asked")

    return SimpleNamespace(
        flags=flags | TokenFlag.LOGIN_REQUIRED,
        label="kalshi",
        serial=b"1",
        open=must_not_open,
        slot=SimpleNamespace(slot_id=1),
    )


@pytest.mark.parametrize("flag", [TokenFlag.USER_PIN_LOCKED, TokenFlag.USER_PIN_FINAL_TRY])
def test_a_token_about_to_lock_is_not_asked(flag: TokenFlag) -> None:
    def must_not_ask() -> Any:
        raise AssertionError("the PIN was asked for")

    with pytest.raises(PinLockedError, match=r"nothing was tried|is locked"):
        login_module._open(_fake_token(flag), must_not_ask, force=False)


class _Reached(Exception):  # noqa: N818 - not an error
    pass


def _reached() -> Any:
    raise _Reached


def test_the_final_try_is_taken_when_somebody_insists_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(_Reached):
        login_module._open(_fake_token(TokenFlag.USER_PIN_FINAL_TRY), _reached, force=True)
    assert "one more wrong PIN locks" in caplog.text


def test_a_locked_token_is_not_asked_whoever_insists() -> None:
    with pytest.raises(PinLockedError):
        login_module._open(_fake_token(TokenFlag.USER_PIN_LOCKED), _reached, force=True)


def test_a_low_counter_is_mentioned_before_a_try(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(_Reached):
        login_module._open(_fake_token(TokenFlag.USER_PIN_COUNT_LOW), _reached, force=False)
    assert "counts wrong PINs" in caplog.text
