"""What each answer of a module means: the back-end is gone, the login lost, the key refused, or one call has failed."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute, ObjectClass

from hsm_keys import KeyType, open_store
from hsm_keys.errors import HsmKeysError, KeyNotFoundError, PinError, SigningError, StoreError, StoreUnavailableError
from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.pkcs11.store import Pkcs11Store
from tests.support.oddkeys import session_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.pkcs11.module import Module
    from tests.support.shim import Shim
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm

GONE = {
    0x003: "SLOT_ID_INVALID",
    0x005: "GENERAL_ERROR",
    0x030: "DEVICE_ERROR",
    0x032: "DEVICE_REMOVED",
    0x060: "KEY_HANDLE_INVALID",
    0x082: "OBJECT_HANDLE_INVALID",
    0x0B0: "SESSION_CLOSED",
    0x0B3: "SESSION_HANDLE_INVALID",
    0x0E0: "TOKEN_NOT_PRESENT",
    0x0E1: "TOKEN_NOT_RECOGNIZED",
    0x190: "CRYPTOKI_NOT_INITIALIZED",
}
KEY_REFUSED = {
    0x01B: "ACTION_PROHIBITED",
    0x062: "KEY_SIZE_RANGE",
    0x063: "KEY_TYPE_INCONSISTENT",
    0x065: "KEY_CHANGED",
    0x068: "KEY_FUNCTION_NOT_PERMITTED",
}
FAILED = {
    0x002: "HOST_MEMORY",
    0x006: "FUNCTION_FAILED",
    0x007: "ARGUMENTS_BAD",
    0x031: "DEVICE_MEMORY",
    0x050: "FUNCTION_CANCELED",
    0x054: "FUNCTION_NOT_SUPPORTED",
    0x070: "MECHANISM_INVALID",
    0x071: "MECHANISM_PARAM_INVALID",
    0x090: "OPERATION_ACTIVE",
    0x0B1: "SESSION_COUNT",
    0x200: "FUNCTION_REJECTED",
    0x80000001: "vendor's own",
}


class World:
    """A store on the shim with one key that has signed."""

    def __init__(self, store: Pkcs11Store, shim: Shim) -> None:
        self.store, self.shim = store, shim
        self.key = store.generate("prod", KeyType.ED25519)
        self.key.sign(b"m")
        self.epoch = self.module.epoch

    @property
    def module(self) -> Module:
        return self.store._connection.module

    @property
    def restarts(self) -> int:
        return self.module.epoch - self.epoch

    def signs(self) -> bool:
        return verifies(self.key.public_key(), b"m", self.key.sign(b"m"))


@pytest.fixture
def world(token: TestToken, shim: Shim) -> Iterator[World]:
    with open_store(shim.uri(token)) as store:
        assert isinstance(store, Pkcs11Store)
        yield World(store, shim)


def test_what_says_that_the_back_end_is_gone_brings_the_module_back_once(world: World) -> None:
    for code, name in GONE.items():
        for function in ("C_SignInit", "C_Sign"):
            before = world.restarts
            world.module.rests_until = 0.0
            world.shim.rules(f"fail {function} {code:#x} first=1")
            assert world.signs(), name
            assert world.restarts == before + 1, name


def test_a_search_that_says_so_brings_it_back_too(world: World) -> None:
    for code in GONE.keys() - {0x60, 0x82}:
        before = world.restarts
        world.module.rests_until = 0.0
        world.shim.rules(f"fail C_FindObjectsInit {code:#x} first=4")  # it is repeated, should one object be at fault
        assert [key.name for key in world.store.keys()] == ["prod"], GONE[code]
        assert world.restarts == before + 1, GONE[code]


def test_what_goes_on_saying_so_is_an_unavailable_store_after_one_attempt(world: World) -> None:
    world.shim.rules("fail C_SignInit 0x30")
    with pytest.raises(StoreUnavailableError):
        world.key.sign(b"m")
    assert world.restarts == 1


@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign"])
def test_a_key_that_is_refused_is_a_key_problem_and_nothing_is_brought_back(world: World, function: str) -> None:
    for code, name in KEY_REFUSED.items():
        world.shim.rules(f"fail {function} {code:#x} first=1")
        with pytest.raises(SigningError, match="doesn't let the key 'prod' sign") as caught:
            world.key.sign(b"m")
        assert caught.value.exit_code == 5, name
        assert world.signs()
    assert world.restarts == 0


@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign"])
def test_what_just_failed_is_said_and_nothing_is_brought_back(world: World, function: str) -> None:
    for code, name in FAILED.items():
        world.shim.rules(f"fail {function} {code:#x} first=1")
        with pytest.raises(StoreError) as caught:
            world.key.sign(b"m")
        assert not isinstance(caught.value, StoreUnavailableError), name
        assert world.signs(), name
    assert world.restarts == 0


def test_making_a_key_is_never_repeated_and_recovers_before_it_begins(world: World) -> None:
    world.shim.rules("fail C_GetSessionInfo 0xb3 first=1")
    world.store.generate("second", KeyType.ED25519)
    assert world.restarts == 1
    world.module.rests_until = 0.0
    world.shim.rules("fail C_GenerateKeyPair 0x30 first=1")
    with pytest.raises(HsmKeysError):
        world.store.generate("third", KeyType.ED25519)
    assert {key.name for key in world.store.keys()} == {"prod", "second"}


def test_many_threads_that_lose_the_login_at_once_log_in_once_and_sign_on(world: World) -> None:
    """The second thread to notice finds somebody logged in: its key isn't one that wants a login each time."""
    connection = world.store._connection
    logins, rounds = connection.login.times, 20
    with ThreadPoolExecutor(8) as pool:
        for _ in range(rounds):
            connection.module.library.functions.logout(connection.login.session.handle)
            assert all(pool.map(lambda _: world.signs(), range(16)))
    assert connection.login.times == logins + rounds
    assert not connection._want_pin
    assert world.restarts == 0


def test_a_thread_that_comes_second_tries_again(world: World) -> None:
    connection = world.store._connection
    before = connection.login.times
    connection.module.library.functions.logout(connection.login.session.handle)
    answers = []

    def notice() -> None:
        answers.append(connection.log_in_again(world.key, ckr.UserNotLoggedIn(), before))  # type: ignore[arg-type]

    for _ in range(2):
        thread = threading.Thread(target=notice)
        thread.start()
        thread.join()
    assert answers == [True, True]
    assert (connection.login.times, connection._want_pin) == (before + 1, set())
    assert world.signs()


@pytest.mark.parametrize(
    ("code", "error"), [(0x30, StoreUnavailableError), (0x70, SigningError), (0x6, SigningError), (0xA3, PinError)]
)
def test_a_key_that_a_returned_token_does_not_prove_is_not_said_to_be_gone(
    world: World, code: int, error: type[HsmKeysError]
) -> None:
    world.shim.rules("fail C_SignInit 0x30 first=1", f"fail C_SignInit {code:#x} after=1")
    with pytest.raises(error):
        world.key.sign(b"m")
    world.module.rests_until = 0.0
    world.shim.rules()
    assert world.signs()


def test_a_key_of_a_kind_that_kalshi_does_not_take_stands_in_no_other_ones_way(world: World, token: TestToken) -> None:
    command = ["pkcs11-tool", "--module", token.module, "--token-label", token.label, "--login", "--pin", token.pin]
    subprocess.run(
        [*command, "--keypairgen", "--key-type", "EC:secp256r1", "--id", "07"], check=True, capture_output=True
    )
    world.store.rename(world.store.key("prod"), "renamed")
    world.module.rests_until = 0.0
    world.shim.rules("fail C_SignInit 0x30 first=1")
    assert world.signs()  # found under its new name, beside the other one
    world.store.destroy(world.store.key("renamed"))
    world.module.rests_until = 0.0
    with pytest.raises(KeyNotFoundError):
        world.key.sign(b"m")


def test_a_public_object_that_is_removed_meanwhile_keeps_nobody_from_signing(world: World) -> None:
    (public,) = session_of(world.store).get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})
    public.destroy()
    world.module.rests_until = 0.0
    world.shim.rules("fail C_SignInit 0x30 first=1")
    assert world.signs()
    assert world.restarts == 1
