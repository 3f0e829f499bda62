"""Logging in: once for each token and process, and never twice with a PIN that was refused.

Login belongs to the process and the token (PKCS#11 v2.40, section 5.6), and ends with the process's last session. So
one session holds it, shared by all stores of the process that use the token.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.constants import TokenFlag

from hsm_keys.errors import PinIncorrectError, PinLockedError, PinMissingError
from hsm_keys.logs import log_request
from hsm_keys.stores.pins import PinGetter, PinWanted, what_to_check
from hsm_keys.stores.pkcs11.attributes import Mapper
from hsm_keys.stores.pkcs11.codes import check
from hsm_keys.stores.pkcs11.cryptoki import CKU_CONTEXT_SPECIFIC, CKU_USER
from hsm_keys.stores.pkcs11.errors import mapped_errors, pin_problem
from hsm_keys.stores.pkcs11.token_names import describe_token, serial_of

if TYPE_CHECKING:
    from hsm_keys.stores.pins import Pin
    from hsm_keys.stores.pkcs11.module import Module
    from hsm_keys.stores.pkcs11.objects import Proofs

__all__ = ["Login", "log_in", "open_session"]

_log = logging.getLogger(__name__)
_refused: set[bytes] = set()
_SALT: Final = os.urandom(16)

_COUNTER: Final = {
    TokenFlag.USER_PIN_LOCKED: ", and is locked now",
    TokenFlag.USER_PIN_FINAL_TRY: ", and the next wrong one locks it",
    TokenFlag.USER_PIN_COUNT_LOW: ", and counts wrong tries",
}


_MAY_WANT_LOGIN: Final = TokenFlag.LOGIN_REQUIRED | TokenFlag.USER_PIN_INITIALIZED
"""tpm2-pkcs11 doesn't say the first of a token with an empty PIN, and wants a login all the same."""

_NOT_ENTERED: Final = (ckr.FunctionCancelled, ckr.FunctionRejected)
"""What modules answer to a login where the person at the pad gives up."""

_NO_MORE: Final = (ckr.SessionCount, ckr.DeviceMemory, ckr.HostMemory)
"""What modules answer when they can't open a further session of any kind."""


class Login:
    """A read-write session that holds the login and does the managing: find, generate, relabel, destroy.

    Args:
        module: The token's module; hold its mutex for every call.
        token: python-pkcs11's token.
        force: Whether to log in where the next wrong PIN would lock the token.

    Attributes:
        times: How often it has logged in.
    """

    def __init__(self, module: Module, token: Any, *, force: bool) -> None:
        self.session = open_session(token, rw=True)
        self.proofs: Proofs = {}
        self.users = 0
        self.times = 0
        self._module = module
        self._token = token
        self._force = force
        self._logs_out = False

    def log_in(self, get_pin: PinGetter) -> None:
        """Log in, unless the process is logged in, or the token wants no login and no PIN is given.

        Raises:
            PinError: If the PIN is refused, or can't be tried.
            PKCS11Error: If the token refuses otherwise.
        """
        library, token = self._module.library, self._token
        if not token.flags & _MAY_WANT_LOGIN or library.functions.is_logged_in(self.session.handle):
            return
        if not self._present(self.session.handle, CKU_USER, get_pin):
            return
        self.times += 1
        # Code that opened sessions after us may use our login, so the login ends with the last session. Code that was
        # there before us has no need of it.
        self._logs_out = not library.owned

    def authenticate(self, session: int, get_pin: PinGetter) -> None:
        """Log in for the one operation that is under way in a session, with a key that wants that each time.

        Raises:
            PinError: If the PIN is refused, or can't be tried.
            PKCS11Error: If the token refuses otherwise.
        """
        with self._module.mutex:  # only one of many threads finds out that the PIN isn't right any more
            self._present(session, CKU_CONTEXT_SPECIFIC, get_pin)

    def _present(self, session: int, user: int, get_pin: PinGetter) -> bool:
        """Hand the PIN over to the token, once; return whether there was one, or a pad to ask for it."""
        token, functions = self._token, self._module.library.functions
        info = functions.token_info(token.slot.slot_id)
        flags = TokenFlag(info.flags)
        _refuse_risky_login(token, flags, force=self._force)
        has_pad = bool(flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH)
        needed = bool(flags & TokenFlag.LOGIN_REQUIRED)
        pin = get_pin(PinWanted(describe_token(token), has_pad, takes_empty=info.shortest_pin == 0, needed=needed))
        if pin is None and not has_pad:
            return False
        log_request("token", "log in" if user == CKU_USER else "log in for one signature")
        fingerprint = _fingerprint(token, pin)
        if fingerprint in _refused:
            raise PinIncorrectError(
                f"{describe_token(token)} refused this PIN before; it was not tried again",
                hint=f"{what_to_check(pin)}; another wrong try may lock the token",
            )
        try:
            check(functions.login(session, user, pin))
        except ckr.UserAlreadyLoggedIn:
            pass  # other code of this process logged in a moment ago
        except (ckr.PinIncorrect, ckr.PinInvalid, ckr.PinLenRange):
            _refused.add(fingerprint)
            raise PinIncorrectError(
                f"{describe_token(token)} refused the PIN{self._tries_left()}; it will not be tried again",
                hint=f"{what_to_check(pin)}{_doubt(pin)}",
            ) from None
        except ckr.PKCS11Error as error:
            if pin is None and isinstance(error, _NOT_ENTERED):
                raise PinMissingError(
                    f"nobody entered the PIN of {describe_token(token)} on its pad",
                    hint="run the command again and enter it there, or give it with --pin-file",
                ) from None
            raise pin_problem(error, describe_token(token)) or error from None
        return True

    def _tries_left(self) -> str:
        """Return what the token says about its counter now: the flags are read anew."""
        with suppress(ckr.PKCS11Error):
            flags = self._module.library.functions.token_info(self._token.slot.slot_id).flags
            for flag, meaning in _COUNTER.items():
                if flags & flag:
                    return meaning
        return ""

    def release(self) -> None:
        """Give one ``log_in`` back; the last one ends the login."""
        logins, slot_id = self._module.logins, self._token.slot.slot_id
        with self._module.mutex:
            self.users -= 1
            if self.users == 0 and logins.get(slot_id) is self:
                del logins[slot_id]
                self.end()

    def end(self) -> None:
        """Close the session, which logs out unless other code of the process has sessions."""
        if self._logs_out:
            with suppress(ckr.PKCS11Error):
                self._module.library.functions.logout(self.session.handle)
        with suppress(ckr.PKCS11Error):
            self.session.close()


def _doubt(pin: Pin | None) -> str:
    """Return what a refused PIN has around it that a PIN rarely has: a paste or a shell may have put it there."""
    text = pin.reveal() if pin else ""
    if text != text.strip():
        return "; what was tried has white space at its beginning or end"
    if text[:1] in {"'", '"'} and text[-1:] == text[:1]:
        return "; what was tried has quotes around it"
    return "; what was tried ends in \\n, written out" if text.endswith("\\n") else ""


def log_in(module: Module, token: Any, get_pin: PinGetter, *, force: bool = False) -> Login:
    """Return the process's login to the token; call ``release`` when done.

    Args:
        module: The token's module.
        token: python-pkcs11's token.
        get_pin: Called only if the token wants a PIN and nobody of this process is logged in.
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
            with mapped_errors("open a session"):
                login = Login(module, token, force=force)
                try:
                    login.log_in(get_pin)
                except BaseException:
                    login.end()
                    raise
            module.logins[slot_id] = login
        login.users += 1
        return login


def open_session(token: Any, *, rw: bool) -> Any:
    """Open a session of that kind, or of the other one where the token gives only that: signing needs no more.

    Raises:
        PKCS11Error: If the token gives none.
    """
    try:
        return token.open(rw=rw, attribute_mapper=Mapper())
    except _NO_MORE:
        raise
    except ckr.PKCS11Error as error:
        with suppress(ckr.PKCS11Error):
            return token.open(rw=not rw, attribute_mapper=Mapper())
        raise error from None


def _fingerprint(token: Any, pin: Pin | None) -> bytes:
    """Return what a refused PIN is remembered by; one that the token itself asks for is another each time."""
    if pin is None:
        return os.urandom(32)
    return hashlib.sha256(_SALT + serial_of(token).encode() + b"\0" + pin.reveal().encode()).digest()


def _refuse_risky_login(token: Any, flags: TokenFlag, *, force: bool) -> None:
    if flags & TokenFlag.USER_PIN_LOCKED:
        raise PinLockedError(
            f"the user PIN of {describe_token(token)} is locked",
            hint="have the security officer reset it with the vendor's tool; nothing was tried",
        )
    if flags & TokenFlag.USER_PIN_FINAL_TRY:
        if force:
            _log.warning("one more wrong PIN locks %s; trying, as asked", describe_token(token))
            return
        raise PinLockedError(
            f"one more wrong PIN locks {describe_token(token)}; nothing was tried",
            hint="make sure of the PIN, then give --force-pin; a right one clears the counter",
        )
    if flags & TokenFlag.USER_PIN_COUNT_LOW:
        _log.warning("%s counts wrong PINs: the last one was wrong", describe_token(token))
