"""Errors of python-pkcs11 mapped to errors of this package."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pkcs11 import exceptions as ckr

from hsm_keys.errors import HsmKeysError, PinError, PinLockedError, StoreError, StoreUnavailableError
from hsm_keys.logs import log_request
from hsm_keys.stores.pkcs11.codes import KeyRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KEY_REFUSED", "LOGIN_LOST", "is_gone", "mapped_errors", "pin_problem", "reason"]

_GONE: Final = (
    ckr.DeviceError,
    ckr.DeviceRemoved,
    ckr.GeneralError,
    ckr.KeyHandleInvalid,
    ckr.ObjectHandleInvalid,
    ckr.SessionClosed,
    ckr.SessionHandleInvalid,
    ckr.SlotIDInvalid,
    ckr.TokenNotPresent,
    ckr.TokenNotRecognised,
)
"""What modules answered when a daemon was killed or a token directory moved. CKR_FUNCTION_FAILED is none of these: it
says that one call failed, whatever for."""

LOGIN_LOST: Final = (ckr.UserNotLoggedIn, ckr.KeyHandleInvalid, ckr.ObjectHandleInvalid)
"""What modules answer to a signature where nobody is logged in any more; the last two also where more is lost."""

KEY_REFUSED: Final = (KeyRefusedError, ckr.KeySizeRange, ckr.KeyTypeInconsistent)
"""What modules answer to a signature if it is the key that can't be used so, by its attributes or its kind."""

_SECURITY_OFFICER: Final = "other code of this process has logged in as the security officer: let it log out first"
_HINTS: Final[dict[type[ckr.PKCS11Error], str]] = {
    ckr.TokenWriteProtected: "the token is write-protected: remove the protection to make or change keys",
    ckr.SessionReadOnly: "the token gave a read-only session: check that it isn't write-protected",
    ckr.DeviceMemory: "the token is full: destroy a key that is no longer used",
    ckr.SessionCount: "the token has no free session: close other programs that use it",
    ckr.MechanismInvalid: "the token doesn't know this mechanism: choose another --key-type",
    ckr.KeySizeRange: "the token doesn't make keys of this size: choose another --key-type",
    ckr.AnotherUserAlreadyLoggedIn: _SECURITY_OFFICER,
    ckr.SessionReadWriteSOExists: _SECURITY_OFFICER,
    ckr.UserTooManyTypes: _SECURITY_OFFICER,
    ckr.FunctionNotSupported: "the module can't do this at all",
    ckr.UserNotLoggedIn: "it wants a login: give its PIN, an empty one by an empty --pin-file",
}


def reason(error: Exception) -> str:
    """Return what the module answered, in the words of python-pkcs11: the name of the CKR_ code."""
    text = " ".join(str(part) for part in error.args)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_gone(error: BaseException) -> bool:
    """Tell whether a module answers like this when its token, daemon or session is gone."""
    if type(error) is ckr.PKCS11Error:  # python-pkcs11 has no class for CKR_CRYPTOKI_NOT_INITIALIZED
        return "not initialized" in str(error)
    return isinstance(error, _GONE)


def pin_problem(error: ckr.PKCS11Error, token: str) -> PinError | None:
    """Return what an answer says about the user PIN; None if it is about something else.

    Args:
        error: The answer, to a login or to what comes after it.
        token: What people call the token.
    """
    match error:
        case ckr.PinLocked():
            return PinLockedError(
                f"the user PIN of {token} is locked", hint="have the security officer reset it with the vendor's tool"
            )
        case ckr.PinExpired():
            return PinError(
                f"the user PIN of {token} has expired, or must be changed before the token does more",
                hint="set a new one with the vendor's tool, such as pkcs11-tool --module MODULE --login --change-pin",
            )
        case ckr.UserPinNotInitialized():
            return PinError(
                f"{token} has no user PIN yet",
                hint="set one with the vendor's tool (softhsm2-util --init-token, pkcs11-tool --init-pin)",
            )
    return None


@contextmanager
def mapped_errors(what: str, *, logs: bool = True) -> Iterator[None]:
    """Turn what python-pkcs11 raises inside into a StoreError.

    Args:
        what: What was being done, to follow "the token failed to", such as ``list its keys``.
        logs: Whether the log gets a line of it.

    Raises:
        StoreUnavailableError: If the token or its session is gone.
        PinError: If it refuses over the PIN.
        StoreError: If it refuses otherwise.
    """
    if logs:
        log_request("token", what)
    try:
        yield
    except HsmKeysError:
        raise
    except ckr.PKCS11Error as error:
        if is_gone(error):
            raise StoreUnavailableError(
                f"the token failed to {what}: {reason(error)}",
                hint="check that the token is plugged in and its daemon runs, then try again",
            ) from None
        refusal = StoreError(f"the token failed to {what}: {reason(error)}", hint=_HINTS.get(type(error), ""))
        raise pin_problem(error, "the token") or refusal from None
