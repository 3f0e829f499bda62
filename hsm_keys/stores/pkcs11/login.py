"""Logging in: once a token and process, never twice with a PIN that was refused.

Login belongs to the process and the token (PKCS#11 v2.40, section 5.6). Closing the session that logged in logs
all others out, so one session does nothing but hold the login, shared by all stores of the process that
use the token.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.constants import TokenFlag
from pkcs11.types import PROTECTED_AUTH

from hsm_keys.errors import PinError, PinIncorrectError, PinLockedError
from hsm_keys.stores.pkcs11.errors import told_as_ours
from hsm_keys.stores.pkcs11.tokens import describe_token, serial_of
from hsm_keys.values import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.stores.pins import Pin
    from hsm_keys.stores.pkcs11.module import Module

__all__ = ["Login", "log_in"]

_log = logging.getLogger(__name__)
_refused: set[bytes] = set()
_SALT: Final = os.urandom(16)


class Login:
    """A read-write session that holds the login and does the managing: find, generate, relabel, destroy."""

    def __init__(self, module: Module, slot_id: int, session: Any) -> None:
        self.session = session
        self.users = 0
        self._module = module
        self._slot_id = slot_id

    def release(self) -> None:
        """Give one ``log_in`` back; the last one closes the session, which logs the process out."""
        logins = self._module.logins
        with self._module.mutex:
            self.users -= 1
            if self.users == 0 and logins.get(self._slot_id) is self:
                del logins[self._slot_id]
                with suppress(ckr.PKCS11Error):
                    self.session.close()


def log_in(module: Module, token: Any, get_pin: Callable[[], Pin], *, force: bool = False) -> Login:
    """Return the process's login to the token; call ``release`` when done.

    Args:
        module: The token's module.
        token: python-pkcs11's token.
        get_pin: Called once, and only if the token wants a PIN and nobody of this process is logged in.
        force: Log in also where the next wrong PIN would lock it.

    Raises:
        PinLockedError: If the PIN is locked, or the next wrong one would lock it. The token isn't asked.
        PinIncorrectError: If the token refuses the PIN, or refused the same one before in this process.
        StoreError: If no session can be opened.
    """
    slot_id = token.slot.slot_id
    with module.mutex:
        login = module.logins.get(slot_id)
        if login is None:
            with told_as_ours("open a session"):
                login = module.logins[slot_id] = Login(module, slot_id, _open(token, get_pin, force=force))
        login.users += 1
        return login


def _open(token: Any, get_pin: Callable[[], Pin], *, force: bool) -> Any:
    flags = token.flags
    if not flags & TokenFlag.LOGIN_REQUIRED:
        return _open_session(token, None)
    _refuse_risky_login(token, force=force)
    if flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH:
        return _try_pin(token, PROTECTED_AUTH)
    pin = get_pin()
    fingerprint = hashlib.sha256(_SALT + serial_of(token).encode() + b"\0" + pin.reveal().encode()).digest()
    if fingerprint in _refused:
        raise PinIncorrectError(
            f"{describe_token(token)} refused this PIN before; it was not tried again",
            hint="check the PIN source; another wrong try may lock the token",
        )
    try:
        return _try_pin(token, pin)
    except PinIncorrectError:
        _refused.add(fingerprint)
        raise


def _refuse_risky_login(token: Any, *, force: bool) -> None:
    if token.flags & TokenFlag.USER_PIN_LOCKED:
        raise PinLockedError(
            f"the user PIN of {describe_token(token)} is locked",
            hint="have the security officer reset it with the vendor's tool; nothing was tried",
        )
    if token.flags & TokenFlag.USER_PIN_FINAL_TRY:
        if force:
            _log.warning("one more wrong PIN locks %s; trying, as asked", describe_token(token))
            return
        raise PinLockedError(
            f"one more wrong PIN locks {describe_token(token)}; nothing was tried",
            hint="make sure of the PIN, then give --force-pin; a right one clears the counter",
        )
    if token.flags & TokenFlag.USER_PIN_COUNT_LOW:
        _log.warning("%s counts wrong PINs: the last one was wrong", describe_token(token))


def _open_session(token: Any, pin: object) -> Any:
    """Open read-write, or read-only on a write-protected token: signing needs no more."""
    try:
        return token.open(rw=True, user_pin=_revealed(pin))
    except ckr.TokenWriteProtected:
        return token.open(user_pin=_revealed(pin))


def _revealed(pin: object) -> object:
    """Return the PIN for the call itself: errors take the local variables of their frames home."""
    return pin.reveal() if isinstance(pin, Secret) else pin


def _try_pin(token: Any, pin: object) -> Any:
    try:
        return _open_session(token, pin)
    except ckr.UserAlreadyLoggedIn:
        # Other code of this process holds the login: use it, and leave it alone on close.
        return _open_session(token, None)
    except (ckr.PinIncorrect, ckr.PinInvalid, ckr.PinLenRange):
        raise PinIncorrectError(
            f"{describe_token(token)} refused the PIN{_tries_left(token)}; it will not be tried again",
            hint="check the PIN source: --pin-file, pin-source, HSM_KEYS_PIN_FILE, HSM_KEYS_PIN",
        ) from None
    except ckr.PinLocked:
        raise PinLockedError(
            f"the user PIN of {describe_token(token)} is locked",
            hint="have the security officer reset it with the vendor's tool",
        ) from None
    except (ckr.PinExpired, ckr.UserPinNotInitialized) as error:
        raise PinError(
            f"{describe_token(token)} takes no login now: {type(error).__name__}",
            hint="set the user PIN with the vendor's tool (softhsm2-util --init-token, pkcs11-tool --init-pin)",
        ) from None


def _tries_left(token: Any) -> str:
    """Return what the token says about its counter now: the flags are read anew."""
    with suppress(ckr.PKCS11Error):
        flags = token.slot.get_token().flags
        if flags & TokenFlag.USER_PIN_LOCKED:
            return ", and is locked now"
        if flags & TokenFlag.USER_PIN_FINAL_TRY:
            return ", and the next wrong one locks it"
        if flags & TokenFlag.USER_PIN_COUNT_LOW:
            return ", and counts wrong tries"
    return ""
