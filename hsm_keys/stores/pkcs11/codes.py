"""CKR_ codes (PKCS#11 v2.40, pkcs11t.h) as python-pkcs11's exceptions, for calls that don't go through it."""

from __future__ import annotations

from typing import Final

from pkcs11 import exceptions as ckr

__all__ = ["CKR_BUFFER_TOO_SMALL", "CKR_OK", "KeyRefusedError", "check", "exception_of"]

CKR_OK: Final = 0x000
CKR_BUFFER_TOO_SMALL: Final = 0x150

_ERRORS: Final[dict[int, type[ckr.PKCS11Error]]] = {
    0x002: ckr.HostMemory,
    0x003: ckr.SlotIDInvalid,
    0x005: ckr.GeneralError,
    0x006: ckr.FunctionFailed,
    0x007: ckr.ArgumentsBad,
    0x020: ckr.DataInvalid,
    0x021: ckr.DataLenRange,
    0x030: ckr.DeviceError,
    0x031: ckr.DeviceMemory,
    0x032: ckr.DeviceRemoved,
    0x050: ckr.FunctionCancelled,
    0x054: ckr.FunctionNotSupported,
    0x060: ckr.KeyHandleInvalid,
    0x062: ckr.KeySizeRange,
    0x063: ckr.KeyTypeInconsistent,
    0x070: ckr.MechanismInvalid,
    0x071: ckr.MechanismParamInvalid,
    0x082: ckr.ObjectHandleInvalid,
    0x090: ckr.OperationActive,
    0x091: ckr.OperationNotInitialized,
    0x0A0: ckr.PinIncorrect,
    0x0A1: ckr.PinInvalid,
    0x0A2: ckr.PinLenRange,
    0x0A3: ckr.PinExpired,
    0x0A4: ckr.PinLocked,
    0x0B0: ckr.SessionClosed,
    0x0B1: ckr.SessionCount,
    0x0B3: ckr.SessionHandleInvalid,
    0x0B5: ckr.SessionReadOnly,
    0x0B7: ckr.SessionReadOnlyExists,
    0x0B8: ckr.SessionReadWriteSOExists,
    0x0E0: ckr.TokenNotPresent,
    0x0E1: ckr.TokenNotRecognised,
    0x0E2: ckr.TokenWriteProtected,
    0x100: ckr.UserAlreadyLoggedIn,
    0x101: ckr.UserNotLoggedIn,
    0x102: ckr.UserPinNotInitialized,
    0x104: ckr.AnotherUserAlreadyLoggedIn,
    0x105: ckr.UserTooManyTypes,
    0x200: ckr.FunctionRejected,
}
_CKR_CRYPTOKI_NOT_INITIALIZED: Final = 0x190
_KEY_REFUSED: Final = {
    0x01B: "CKR_ACTION_PROHIBITED",
    0x065: "CKR_KEY_CHANGED",
    0x068: "CKR_KEY_FUNCTION_NOT_PERMITTED",
}


class KeyRefusedError(ckr.PKCS11Error):
    """The token doesn't let this key be used so; python-pkcs11 has no class for it."""


def exception_of(result: int) -> ckr.PKCS11Error:
    """Return python-pkcs11's exception for a CKR_ code, as its own calls raise it."""
    error = _ERRORS.get(result)
    if error is not None:
        return error()
    if result in _KEY_REFUSED:
        return KeyRefusedError(_KEY_REFUSED[result])
    if result == _CKR_CRYPTOKI_NOT_INITIALIZED:
        return ckr.PKCS11Error("not initialized")
    return ckr.PKCS11Error(f"error code {result:#x}")


def check(result: int) -> None:
    """Raise the exception of a CKR_ code, unless it is CKR_OK."""
    if result != CKR_OK:
        raise exception_of(result)
