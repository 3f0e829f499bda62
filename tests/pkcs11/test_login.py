"""One login a process; a refused PIN is never tried again; the PIN shows nowhere."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest
from pkcs11.constants import TokenFlag

from hsm_keys import KeyType, open_store
from hsm_keys.errors import PinIncorrectError, PinLockedError, PinMissingError
from hsm_keys.stores.pins import Pin
from hsm_keys.stores.pkcs11.cryptoki import Functions, TokenInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.softhsm import SoftHsm, TestToken

WRONG = "wrong-pin-canary-0815"


@pytest.mark.softhsm
def test_a_wrong_pin_is_refused_once_and_never_tried_again(
    token: TestToken, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Pin | None] = []
    real = Functions.login

    def login(self: Functions, session: int, user: int, pin: Pin | None) -> int:
        tried.append(pin)
        return real(self, session, user, pin)

    monkeypatch.setattr(Functions, "login", login)
    monkeypatch.setenv("HSM_KEYS_PIN", WRONG)
    for _ in range(3):
        with pytest.raises(PinIncorrectError) as caught:
            open_store(token.uri_without_pin)
        assert caught.value.exit_code == 4
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.hint
        assert WRONG not in shown
        assert "it came from HSM_KEYS_PIN" in caught.value.hint
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


_USUAL = TokenFlag.LOGIN_REQUIRED | TokenFlag.USER_PIN_INITIALIZED | TokenFlag.TOKEN_INITIALIZED


@pytest.fixture
def flagged(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Sets what the token says of its PIN's counter, and gives the list of logins that it was asked for."""
    asked: list[int] = []

    def says(flags: int) -> list[int]:
        monkeypatch.setattr(Functions, "token_info", lambda *_: TokenInfo(_USUAL | flags, None, 4, b""))
        return asked

    real = Functions.login

    def login(self: Functions, session: int, user: int, pin: Pin | None) -> int:
        asked.append(user)
        return real(self, session, user, pin)

    monkeypatch.setattr(Functions, "login", login)
    return says


@pytest.mark.softhsm
@pytest.mark.parametrize("flag", [TokenFlag.USER_PIN_LOCKED, TokenFlag.USER_PIN_FINAL_TRY])
def test_a_token_about_to_lock_is_not_asked(token: TestToken, flagged: Callable[[int], list[int]], flag: int) -> None:
    asked = flagged(flag)
    with pytest.raises(PinLockedError, match=r"nothing was tried|is locked"):
        open_store(token.uri)
    assert asked == []


@pytest.mark.softhsm
def test_the_final_try_is_taken_when_somebody_insists_and_says_so(
    token: TestToken, flagged: Callable[[int], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    asked = flagged(TokenFlag.USER_PIN_FINAL_TRY)
    with open_store(token.uri, force_pin=True):
        assert len(asked) == 1
    assert "one more wrong PIN locks" in caplog.text


@pytest.mark.softhsm
def test_a_locked_token_is_not_asked_whoever_insists(token: TestToken, flagged: Callable[[int], list[int]]) -> None:
    asked = flagged(TokenFlag.USER_PIN_LOCKED)
    with pytest.raises(PinLockedError):
        open_store(token.uri, force_pin=True)
    assert asked == []


@pytest.mark.softhsm
def test_a_low_counter_is_mentioned_before_a_try(
    token: TestToken, flagged: Callable[[int], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    flagged(TokenFlag.USER_PIN_COUNT_LOW)
    with open_store(token.uri):
        assert "counts wrong PINs" in caplog.text
