"""Recovery of sessions against a token that can go, come back, forget its sessions, log out and change its PIN.

In whatever order that happens, a signature comes, or an error that says what to do; no PIN that was refused is tried
again; and once the token is as it was, the next call signs. ``HSM_KEYS_TEST_EXAMPLES=5000`` tries more than CI does.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pkcs11 import exceptions as ckr
from pkcs11.constants import TokenFlag

from hsm_keys.errors import HsmKeysError, PinError, StoreNotFoundError
from hsm_keys.stores.pins import Pin
from hsm_keys.stores.pkcs11 import login, opening, restart, token_connection
from hsm_keys.stores.pkcs11.key import Pkcs11Key
from hsm_keys.stores.pkcs11.marks import minted_id
from hsm_keys.stores.pkcs11.module import Module
from hsm_keys.stores.pkcs11.store import Pkcs11Store
from hsm_keys.stores.pkcs11.token_connection import TokenConnection
from hsm_keys.stores.pkcs11.tokens import FoundToken
from hsm_keys.stores.uri import Pkcs11Uri
from tests.support.models import model_settings

if TYPE_CHECKING:
    from collections.abc import Callable

RIGHT = "1234"
OK, PIN_INCORRECT, DEVICE_REMOVED = 0, 0xA0, 0x32
SIGNATURE = b"s" * 64
PUBLIC_KEY = Ed25519PrivateKey.generate().public_key()
LOST = st.sampled_from([ckr.UserNotLoggedIn, ckr.KeyHandleInvalid, ckr.ObjectHandleInvalid])
GONE = st.sampled_from([ckr.DeviceRemoved, ckr.DeviceError, ckr.GeneralError, ckr.TokenNotPresent])
INVALID = st.sampled_from([ckr.SessionHandleInvalid, ckr.SessionClosed])


class Session:
    """A session of python-pkcs11, and the private key in it."""

    def __init__(self, token: Token) -> None:
        self.token = token
        self.session = self
        self.handle = token.opened = token.opened + 1
        token.sessions.add(self.handle)

    def __getitem__(self, _: object) -> bool:
        return False

    def check(self) -> None:
        if not self.token.present:
            raise self.token.gone
        if self.handle not in self.token.sessions:
            raise self.token.invalid

    def sign(self, _: bytes) -> bytes:
        self.check()
        if not self.token.logged_in:
            raise self.token.lost
        return SIGNATURE

    def found(self) -> Session:
        """Return the key, as a search in the session does."""
        self.check()
        if not self.token.logged_in:
            raise ckr.KeyHandleInvalid
        return self

    def close(self) -> None:
        self.token.sessions.discard(self.handle)


class Token:
    """A module with one token, as python-pkcs11 and the functions of the module show it."""

    locking = True
    manufacturer_id = library_description = "SoftHSM"
    library_version = (2, 6)
    owned = False
    label, serial = "kalshi", b"5157"
    flags = TokenFlag.LOGIN_REQUIRED | TokenFlag.USER_PIN_INITIALIZED | TokenFlag.TOKEN_INITIALIZED

    def __init__(self) -> None:
        self.slot = SimpleNamespace(slot_id=1)
        self.functions = self
        self.present = self.initialises = True
        self.logged_in = False
        self.pin = RIGHT
        self.opened = 0
        self.sessions: set[int] = set()
        self.by_handle: dict[int, Session] = {}
        self.refused: list[str] = []
        self.gone: type[ckr.PKCS11Error] = ckr.DeviceRemoved
        self.invalid: type[ckr.PKCS11Error] = ckr.SessionHandleInvalid
        self.lost: type[ckr.PKCS11Error] = ckr.UserNotLoggedIn

    def finalize(self) -> None:
        self.forget()

    def initialize(self) -> None:
        if not self.initialises:
            raise ckr.GeneralError

    def forget(self) -> None:
        self.sessions = set()
        self.logged_in = False

    def open(self, **_: object) -> Session:
        if not self.present:
            raise self.gone
        session = Session(self)
        self.by_handle[session.handle] = session
        return session

    def signing(self, session: int, *_: object) -> Callable[[bytes], bytes]:
        return self.by_handle[session].sign

    def is_logged_in(self, session: int) -> bool:
        if not self.present:
            raise self.gone
        if session not in self.sessions:
            raise self.invalid
        return self.logged_in

    def token_info(self, _: int) -> Any:
        return SimpleNamespace(flags=self.flags, shortest_pin=4)

    def login(self, _session: int, _user: int, pin: Pin) -> int:
        if not self.present:
            return DEVICE_REMOVED
        if pin.reveal() != self.pin:
            self.refused.append(pin.reveal())
            return PIN_INCORRECT
        self.logged_in = True
        return OK

    def logout(self, _: int) -> int:
        self.logged_in = False
        return OK


class Recovery(RuleBasedStateMachine):
    """A store with one key; what befalls its token, and a signature now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.token = token = Token()
        module = Module("/simulated.so", token)  # type: ignore[arg-type]  # stands in for the library
        uri = Pkcs11Uri(token="kalshi", serial="5157", module_path="/simulated.so")

        def found(*_: object) -> FoundToken:
            if not token.present:
                raise StoreNotFoundError("there is no such token", hint="plug it in")
            return FoundToken(token, uri)

        self.patch = patch = pytest.MonkeyPatch()
        patch.setattr(login, "_refused", set())
        patch.setattr(opening, "acquire_module", lambda _: module)
        patch.setattr(opening, "find_token", found)
        patch.setattr(restart, "_REST_S", 0.0)
        patch.setattr(token_connection, "sweep", lambda _: None)
        patch.setattr(TokenConnection, "locate", lambda _, objects, __, **___: objects.session.found())
        self.store = Pkcs11Store(uri, lambda _: Pin(RIGHT))
        self.key = Pkcs11Key(self.store, "prod", minted_id(PUBLIC_KEY), PUBLIC_KEY)

    @rule(gone=GONE, signatures=st.integers(0, 2), initialises=st.booleans())
    def token_goes_and_comes_back(self, gone: type[ckr.PKCS11Error], signatures: int, *, initialises: bool) -> None:
        self.token.gone = gone
        self.token.present, self.token.initialises = False, initialises
        self.token.forget()
        for _ in range(signatures):
            self.sign()
        self.token.present = self.token.initialises = True

    @rule(invalid=INVALID)
    def sessions_become_invalid(self, invalid: type[ckr.PKCS11Error]) -> None:
        self.token.invalid = invalid
        self.token.forget()

    @rule(lost=LOST)
    def other_code_logs_out(self, lost: type[ckr.PKCS11Error]) -> None:
        self.token.lost = lost
        self.token.logged_in = False

    @rule(signatures=st.integers(0, 8))
    def pin_is_another_one_for_a_while(self, signatures: int) -> None:
        self.token.pin = "4321"
        for _ in range(signatures - 6):  # seldom: once it was refused, there is no way back
            self.sign()
        self.token.pin = RIGHT

    @rule()
    def sign(self) -> None:
        works = self.token.present and self.token.initialises and self.token.pin == RIGHT and not self.token.refused
        try:
            assert self.store.sign(self.key, b"m", digest=False) == SIGNATURE
        except HsmKeysError as error:
            said = error
        else:
            assert self.token.logged_in
            return
        assert not works
        assert said.message
        assert said.hint
        assert not isinstance(said, PinError) or self.token.refused

    @invariant()
    def no_refused_pin_was_tried_again(self) -> None:
        assert len(self.token.refused) <= 1

    def teardown(self) -> None:
        self.store.close()
        self.patch.undo()


TestRecovery = Recovery.TestCase
TestRecovery.settings = model_settings(30, steps=20)
