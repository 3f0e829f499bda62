"""C_SignInit and C_Sign in a loop, called through ctypes: what a module does at best, for ``bench`` to compare with.

The numbers are those of PKCS#11 v2.40: the place of a function in CK_FUNCTION_LIST (section 3.6), mechanisms and
attributes (pkcs11t.h).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final, Self

from hsm_keys.errors import StoreError
from hsm_keys.signing.algorithms import SALT_LENGTH, KeyType

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["RawSigner"]

_OPEN_SESSION: Final = 12
_CLOSE_SESSION: Final = 13
_FIND_INIT: Final = 26
_FIND: Final = 27
_FIND_FINAL: Final = 28
_SIGN_INIT: Final = 42
_SIGN: Final = 43
_FUNCTIONS: Final = 68

_CKF_SERIAL_SESSION: Final = 4
_CKA_CLASS: Final = 0x000
_CKA_LABEL: Final = 0x003
_CKO_PRIVATE_KEY: Final = 3
_CKM_SHA256_RSA_PKCS_PSS: Final = 0x043
_CKM_EDDSA: Final = 0x1057
_CKM_SHA256: Final = 0x250
_CKG_MGF1_SHA256: Final = 2
_BUFFER: Final = 512

_ulong = ctypes.c_ulong


class _FunctionList(ctypes.Structure):
    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * _FUNCTIONS))


class _Attribute(ctypes.Structure):
    _fields_ = (("type", _ulong), ("value", ctypes.c_void_p), ("length", _ulong))


class _PssParameters(ctypes.Structure):
    _fields_ = (("hash", _ulong), ("mgf", _ulong), ("salt_length", _ulong))


class _Mechanism(ctypes.Structure):
    _fields_ = (("mechanism", _ulong), ("parameter", ctypes.c_void_p), ("length", _ulong))


class RawSigner:
    """Signs through the module's C interface in a session of its own, on one thread. Use it as a context manager.

    Args:
        file: The module; initialised and logged in by a store that is open.
        slot: The slot's id.
        name: The label of the key; there must be one such key.
        key_type: The key's type.

    Raises:
        StoreError: If the module refuses, or the key isn't found.
    """

    def __init__(self, file: str, slot: int, name: str, key_type: KeyType) -> None:
        pointer = ctypes.POINTER(_FunctionList)()
        ctypes.CDLL(file).C_GetFunctionList(ctypes.byref(pointer))
        self._table = pointer.contents
        self._session = _ulong()
        self._call(_OPEN_SESSION, _ulong(slot), _ulong(_CKF_SERIAL_SESSION), None, None, ctypes.byref(self._session))
        self._key = self._find(name)
        pss = _PssParameters(_CKM_SHA256, _CKG_MGF1_SHA256, SALT_LENGTH)
        self._parameters = pss  # the module reads it at each call
        self._mechanism = (
            _Mechanism(_CKM_EDDSA, None, 0)
            if key_type is KeyType.ED25519
            else _Mechanism(_CKM_SHA256_RSA_PKCS_PSS, ctypes.addressof(pss), ctypes.sizeof(pss))
        )
        self._buffer = ctypes.create_string_buffer(_BUFFER)
        self._sign_init, self._sign = self._function(_SIGN_INIT), self._function(_SIGN)

    def _function(self, place: int) -> Any:
        return ctypes.CFUNCTYPE(_ulong)(self._table.functions[place])

    def _call(self, place: int, *arguments: Any) -> None:
        result = self._function(place)(*arguments)
        if result:
            raise StoreError(f"the module answered {result:#x} to call {place} of its raw loop")

    def _find(self, name: str) -> _ulong:
        label, kind = ctypes.create_string_buffer(name.encode()), _ulong(_CKO_PRIVATE_KEY)
        template = (_Attribute * 2)(
            _Attribute(_CKA_CLASS, ctypes.addressof(kind), ctypes.sizeof(kind)),
            _Attribute(_CKA_LABEL, ctypes.addressof(label), len(name.encode())),
        )
        found, count = _ulong(), _ulong()
        self._call(_FIND_INIT, self._session, template, _ulong(2))
        self._call(_FIND, self._session, ctypes.byref(found), _ulong(1), ctypes.byref(count))
        self._call(_FIND_FINAL, self._session)
        if count.value != 1:
            raise StoreError(f"the raw loop finds no private key {name!r}")
        return found

    def sign(self, message: bytes) -> bytes:
        """Return the signature.

        Raises:
            StoreError: If the module refuses.
        """
        length = _ulong(_BUFFER)
        result = self._sign_init(self._session, ctypes.byref(self._mechanism), self._key)
        result = result or self._sign(self._session, message, _ulong(len(message)), self._buffer, ctypes.byref(length))
        if result:
            raise StoreError(f"the module answered {result:#x} to a signature of its raw loop")
        return self._buffer.raw[: length.value]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._function(_CLOSE_SESSION)(self._session)
