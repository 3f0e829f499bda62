"""A module's own functions, called through ctypes, where python-pkcs11 has no way to make a call as it is needed.

It initialises without locking, closes a session only with a logout, leaves a session behind for each refused PIN, has
no C_GetSessionInfo, and calls C_Sign twice for a signature. The numbers and structures are those of PKCS#11 v2.40
(pkcs11.h, pkcs11t.h). ctypes gives the GIL up in every call.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import _pkcs11

from hsm_keys.errors import StoreError
from hsm_keys.signing.algorithms import SALT_LENGTH
from hsm_keys.stores.pkcs11.codes import CKR_BUFFER_TOO_SMALL, CKR_OK, check, exception_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkcs11.mechanisms import Mechanism

    from hsm_keys.values import Secret

__all__ = [
    "CKU_CONTEXT_SPECIFIC",
    "CKU_SO",
    "CKU_USER",
    "PLACES",
    "FunctionList",
    "Functions",
    "TokenInfo",
    "function_list_of",
    "functions_of",
    "sign_mechanism",
]

CKU_SO: Final = 0
CKU_USER: Final = 1
CKU_CONTEXT_SPECIFIC: Final = 2

_CKF_RW_SESSION: Final = 2
_CKF_SERIAL_SESSION: Final = 4
_CKF_OS_LOCKING_OK: Final = 2
_LOGGED_IN: Final = frozenset({1, 3})  # CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS
_LABEL_SIZE: Final = 32
_SLOT_INFO_SIZE: Final = 256  # more than CK_SLOT_INFO has
_UNAVAILABLE: Final = ctypes.c_ulong(-1).value
_LARGEST_SIGNATURE: Final = 1 << 16
_CKM_SHA256: Final = 0x250
_CKG_MGF1_SHA256: Final = 2

_ulong, _pointer = ctypes.c_ulong, ctypes.c_void_p

_FUNCTIONS: Final = 68
PLACES: Final = {  # in CK_FUNCTION_LIST, after the version: place, and what the function takes
    "C_Initialize": (0, (_pointer,)),
    "C_Finalize": (1, (_pointer,)),
    "C_GetSlotList": (4, (ctypes.c_ubyte, _pointer, _pointer)),
    "C_GetSlotInfo": (5, (_ulong, _pointer)),
    "C_GetTokenInfo": (6, (_ulong, _pointer)),
    "C_InitToken": (9, (_ulong, _pointer, _ulong, _pointer)),
    "C_InitPIN": (10, (_ulong, _pointer, _ulong)),
    "C_OpenSession": (12, (_ulong, _ulong, _pointer, _pointer, _pointer)),
    "C_CloseSession": (13, (_ulong,)),
    "C_GetSessionInfo": (15, (_ulong, _pointer)),
    "C_Login": (18, (_ulong, _ulong, _pointer, _ulong)),
    "C_Logout": (19, (_ulong,)),
    "C_SignInit": (42, (_ulong, _pointer, _ulong)),
    "C_Sign": (43, (_ulong, _pointer, _ulong, _pointer, _pointer)),
}


class FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST."""

    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", _pointer * _FUNCTIONS))


class _InitializeArgs(ctypes.Structure):
    _fields_ = (
        ("CreateMutex", _pointer),
        ("DestroyMutex", _pointer),
        ("LockMutex", _pointer),
        ("UnlockMutex", _pointer),
        ("flags", _ulong),
        ("pReserved", _pointer),
    )


class _SessionInfo(ctypes.Structure):
    _fields_ = (("slotID", _ulong), ("state", _ulong), ("flags", _ulong), ("ulDeviceError", _ulong))


class _TokenInfo(ctypes.Structure):
    _fields_ = (
        ("texts", ctypes.c_ubyte * 96),  # label, manufacturerID, model, serialNumber
        ("flags", _ulong),
        ("ulMaxSessionCount", _ulong),
        ("ulSessionCount", _ulong),
        ("ulMaxRwSessionCount", _ulong),
        ("ulRwSessionCount", _ulong),
        ("ulMaxPinLen", _ulong),
        ("ulMinPinLen", _ulong),
        ("memory", _ulong * 4),
        ("versions", ctypes.c_ubyte * 4),
        ("utcTime", ctypes.c_ubyte * 16),
    )


class _PssParameters(ctypes.Structure):
    _fields_ = (("hashAlg", _ulong), ("mgf", _ulong), ("sLen", _ulong))


class _Mechanism(ctypes.Structure):
    _fields_ = (("mechanism", _ulong), ("pParameter", _pointer), ("ulParameterLen", _ulong))


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What C_GetTokenInfo tells and python-pkcs11 leaves out.

    Args:
        flags: CKF_ bits, as they are now.
        sessions: How many sessions this process has open with the token; None where the module doesn't say.
        shortest_pin: In bytes.
        texts: Label, manufacturer, model and serial, as they are.
    """

    flags: int
    sessions: int | None
    shortest_pin: int
    texts: bytes


class Functions:
    """The functions of a module.

    Args:
        address: Of its CK_FUNCTION_LIST.
    """

    def __init__(self, address: int) -> None:
        table = FunctionList.from_address(address)
        self.address = address
        self._call = {
            name: ctypes.CFUNCTYPE(_ulong, *takes)(table.functions[place]) for name, (place, takes) in PLACES.items()
        }
        self.sign_init = self._call["C_SignInit"]
        self.sign = self._call["C_Sign"]

    def initialize(self, *, locking: bool) -> int:
        """Call C_Initialize, with operating system locking or with NULL; return its CKR_ code."""
        arguments = ctypes.byref(_InitializeArgs(flags=_CKF_OS_LOCKING_OK)) if locking else None
        return int(self._call["C_Initialize"](arguments))

    def finalize(self) -> None:
        """Call C_Finalize; what it answers helps nobody."""
        self._call["C_Finalize"](None)

    def token_info(self, slot: int) -> TokenInfo:
        """Call C_GetTokenInfo.

        Raises:
            PKCS11Error: If the module refuses.
        """
        info = _TokenInfo()
        check(self._call["C_GetTokenInfo"](slot, ctypes.byref(info)))
        sessions = None if info.ulSessionCount == _UNAVAILABLE else info.ulSessionCount
        return TokenInfo(info.flags, sessions, info.ulMinPinLen, bytes(info.texts))

    def slots(self) -> list[int]:
        """Return the ids of the slots that hold a token, by C_GetSlotList.

        Raises:
            PKCS11Error: If the module refuses.
        """
        number = _ulong()
        check(self._call["C_GetSlotList"](1, None, ctypes.byref(number)))
        slots = (_ulong * number.value)()
        check(self._call["C_GetSlotList"](1, slots, ctypes.byref(number)))
        return list(slots[: number.value])

    def tells_of(self, slot: int) -> bool:
        """Tell whether C_GetSlotInfo gives a slot's information."""
        return int(self._call["C_GetSlotInfo"](slot, ctypes.create_string_buffer(_SLOT_INFO_SIZE))) == CKR_OK

    def init_token(self, slot: int, so_pin: Secret, label: str) -> int:
        """Call C_InitToken and return its CKR_ code; the label is padded with blanks."""
        secret = so_pin.reveal().encode()
        return int(self._call["C_InitToken"](slot, secret, len(secret), label.encode().ljust(_LABEL_SIZE)))

    def init_pin(self, session: int, pin: Secret) -> int:
        """Call C_InitPIN, in a read-write session of the security officer, and return its CKR_ code."""
        secret = pin.reveal().encode()
        return int(self._call["C_InitPIN"](session, secret, len(secret)))

    def open_session(self, slot: int, *, writes: bool = False) -> int:
        """Open a session, read-only unless the token refuses these, and return its handle.

        Args:
            slot: The slot's id.
            writes: Whether it has to be a read-write session.

        Raises:
            PKCS11Error: If the module refuses.
        """
        handle = _ulong()
        both = _CKF_SERIAL_SESSION | _CKF_RW_SESSION
        for flags in (both,) if writes else (_CKF_SERIAL_SESSION, both):
            result = self._call["C_OpenSession"](slot, flags, None, None, ctypes.byref(handle))
            if result == CKR_OK:
                break
        check(result)
        return handle.value

    def close_session(self, session: int) -> None:
        """Call C_CloseSession.

        Raises:
            PKCS11Error: If the module refuses.
        """
        check(self._call["C_CloseSession"](session))

    def is_logged_in(self, session: int) -> bool:
        """Tell whether the user is logged in, by C_GetSessionInfo.

        Raises:
            PKCS11Error: If the session is gone.
        """
        info = _SessionInfo()
        check(self._call["C_GetSessionInfo"](session, ctypes.byref(info)))
        return info.state in _LOGGED_IN

    def login(self, session: int, user: int, pin: Secret | None) -> int:
        """Call C_Login and return its CKR_ code: whoever raises then has no PIN in its frame.

        Args:
            session: The session.
            user: ``CKU_USER``, ``CKU_CONTEXT_SPECIFIC`` or ``CKU_SO``.
            pin: The PIN; None lets the token ask on a pad of its own.
        """
        if pin is None:
            return int(self._call["C_Login"](session, user, None, 0))
        secret = pin.reveal().encode()
        return int(self._call["C_Login"](session, user, secret, len(secret)))

    def logout(self, session: int) -> None:
        """Call C_Logout.

        Raises:
            PKCS11Error: If the module refuses.
        """
        check(self._call["C_Logout"](session))

    def signing(
        self, session: int, key: int, mechanism: Any, length: int, authenticate: Callable[[int], None] | None = None
    ) -> Callable[[bytes], bytes]:
        """Return what signs with a key in a session, in two calls; one thread uses it at a time.

        Args:
            session: The session's handle.
            key: The private object's handle.
            mechanism: From ``sign_mechanism``.
            length: Of a signature, in bytes. A module that wants more room gets it.
            authenticate: Called with the session before each C_Sign, for keys that want a login each time.
        """
        sign_init, sign, by_reference = self.sign_init, self.sign, ctypes.byref(mechanism)
        buffer, room = ctypes.create_string_buffer(length), _ulong()
        room_by_reference = ctypes.byref(room)

        def signature(message: bytes) -> bytes:
            result = sign_init(session, by_reference, key)
            if result == CKR_OK:
                room.value = length
                if authenticate is not None:
                    try:
                        authenticate(session)
                    except BaseException:  # the operation is under way, and without a login this refusal ends it
                        sign(session, message, len(message), buffer, room_by_reference)
                        raise
                result = sign(session, message, len(message), buffer, room_by_reference)
                if result == CKR_OK:
                    return buffer.raw[: room.value]
                if result == CKR_BUFFER_TOO_SMALL and length < room.value <= _LARGEST_SIGNATURE:
                    larger = ctypes.create_string_buffer(room.value)
                    check(sign(session, message, len(message), larger, room_by_reference))
                    return larger.raw[: room.value]
            raise exception_of(result)

        return signature


def sign_mechanism(mechanism: Mechanism, *, pss: bool) -> Any:
    """Return a CK_MECHANISM. Without parameters modules sign PSS with SHA-1 and a salt of 20, and don't complain."""
    if not pss:
        return _Mechanism(mechanism, None, 0)
    parameters = _PssParameters(_CKM_SHA256, _CKG_MGF1_SHA256, SALT_LENGTH)
    structure = _Mechanism(mechanism, ctypes.addressof(parameters), ctypes.sizeof(parameters))
    structure.keeps_alive = parameters
    return structure


def functions_of(library: Any) -> Functions:
    """Return the functions that python-pkcs11 itself calls.

    Raises:
        StoreError: If its struct isn't as it was in version 0.10, or the module has given no functions.
    """
    address = function_list_of(library).value
    if not address:
        raise StoreError(
            "the file has C_GetFunctionList, which gives no functions: it is no PKCS#11 module that works",
            hint="give the vendor's PKCS#11 shared object; its manual names it",
        )
    return Functions(int(address))


def function_list_of(library: Any) -> Any:
    """Return where python-pkcs11 keeps the address of the CK_FUNCTION_LIST that it calls.

    A module may give each caller of C_GetFunctionList a list of its own, and keep its state behind it (p11-kit's do).
    So python-pkcs11's is taken, which no Python attribute shows: it is the first member of its C struct.

    Raises:
        StoreError: If the struct isn't as it was in version 0.10.
    """
    head, members = object.__basicsize__, 3  # funclist, funclist30, funclist32
    base: Any = vars(_pkcs11)["HasFuncList"]
    if base.__basicsize__ != head + members * ctypes.sizeof(_pointer):
        raise StoreError(
            "this release of python-pkcs11 isn't one that hsm-keys knows", hint="pip install 'python-pkcs11<0.11'"
        )
    return _pointer.from_address(id(library) + head)
