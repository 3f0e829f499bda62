"""The program of the process that ``fresh_process`` starts to look at a token.

It imports as little as it can, because imports are most of its time: python-pkcs11 would take most of it, and
``typing``, ``contextlib`` and ``subprocess`` half of the rest.
"""

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False  # the name that type checkers know, without importing typing
if TYPE_CHECKING:
    from typing import Any, Final

TEXTS_SIZE: Final = 96  # bytes that CK_TOKEN_INFO begins with: label, manufacturer, model and serial
_PLACES: Final = {  # in CK_FUNCTION_LIST, after the version (PKCS#11 v2.40)
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_GetSlotList": 4,
    "C_GetTokenInfo": 6,
    "C_OpenSession": 12,
    "C_Login": 18,
    "C_GetAttributeValue": 24,
    "C_FindObjectsInit": 26,
    "C_FindObjects": 27,
}
_CKF_SERIAL_SESSION, _CKU_USER, _CKO_PRIVATE_KEY, _CKA_CLASS, _CKA_LABEL = 4, 1, 3, 0, 3
_LONGEST_LABEL: Final = 256  # bytes: longer than a name with its mark
_SEVERAL: Final = 2
_LABEL_SIZE, _SERIAL_SIZE = 32, 16
_TOKEN_INFO_SIZE = 512  # more than it has


def _count(module: str, token: tuple[str, str, str], name: str, pin: bytes) -> int:
    call = _caller(module)
    call("C_Initialize", None)
    session = ctypes.c_ulong()
    call("C_OpenSession", _slot(call, *token), _CKF_SERIAL_SESSION, None, None, ctypes.byref(session))
    call("C_Login", session, _CKU_USER, pin, len(pin))
    # A search only by class: one unreadable object makes SoftHSM refuse a search by label.
    kind, count = ctypes.c_ulong(_CKO_PRIVATE_KEY), 0
    call("C_FindObjectsInit", session, _attribute(_CKA_CLASS, kind), 1)
    handle, number = ctypes.c_ulong(), ctypes.c_ulong(1)
    while number.value and count < _SEVERAL:
        call("C_FindObjects", session, ctypes.byref(handle), 1, ctypes.byref(number))
        count += bool(number.value) and _label(call, session, handle) == name.encode()
    call("C_Finalize", None)
    return count


def _attribute(kind: int, value: Any) -> Any:
    """Return a CK_ATTRIBUTE: type, address and length."""
    return (ctypes.c_void_p * 3)(kind, ctypes.addressof(value), ctypes.sizeof(value))


def _label(call: Any, session: Any, handle: Any) -> bytes | None:
    text = ctypes.create_string_buffer(_LONGEST_LABEL)
    label = _attribute(_CKA_LABEL, text)
    try:
        call("C_GetAttributeValue", session, handle, label, 1)
    except OSError:  # it can't be read, or is longer than any name
        return None
    return text.raw[: label[2] or 0]


def _caller(module: str) -> Any:
    functions = ctypes.c_void_p()
    ctypes.CDLL(module).C_GetFunctionList(ctypes.byref(functions))
    places = ctypes.cast(functions, ctypes.POINTER(ctypes.c_void_p))

    def call(name: str, *arguments: Any) -> None:
        widened = [ctypes.c_ulong(argument) if isinstance(argument, int) else argument for argument in arguments]
        result = ctypes.CFUNCTYPE(ctypes.c_ulong)(places[1 + _PLACES[name]])(*widened)
        if result:
            raise OSError(f"{name}: {result:#x}")

    return call


def _slot(call: Any, label: str, serial: str, slot: str) -> int:
    wanted = label.encode(), serial.encode()
    for found, texts in _infos(call).items():
        fields = texts[:_LABEL_SIZE], texts[-_SERIAL_SIZE:]
        if tuple(field.rstrip(b" \0") for field in fields) == wanted and slot in {"", str(found)}:
            return found
    raise OSError("no such token")


def _infos(call: Any) -> dict[int, bytes]:
    """Return what the token in each slot says of itself; another slot's reader may be at fault, and is passed over."""
    number = ctypes.c_ulong()
    call("C_GetSlotList", 1, None, ctypes.byref(number))
    slots = (ctypes.c_ulong * number.value)()
    call("C_GetSlotList", 1, slots, ctypes.byref(number))
    infos = {}
    for slot in slots:
        info = ctypes.create_string_buffer(_TOKEN_INFO_SIZE)
        try:
            call("C_GetTokenInfo", slot, info)
        except OSError:
            continue
        infos[slot] = info.raw[:TEXTS_SIZE]
    return infos


def _tokens(module: str) -> bytes:
    call = _caller(module)
    call("C_Initialize", None)
    texts = b"".join(_infos(call).values())
    call("C_Finalize", None)
    return texts


if __name__ == "__main__":
    answer = os.dup(1)
    os.dup2(2, 1)  # a module may write there whatever it likes
    module, *which = sys.argv[1:]
    if which:
        label, serial, slot, name = which
        os.write(answer, str(_count(module, (label, serial, slot), name, sys.stdin.buffer.read())).encode())
    else:
        os.write(answer, _tokens(module))
