"""A token as a process sees it that has just begun: what other programs have made meanwhile, all of it.

SoftHSM 2.6.1 notices what another process made by a counter in the token's folder. A process that makes an object
itself sets its own count to the new one, and so may pass over what others made just before: it finds that only when
something else changes. A process that has just begun reads the whole folder.

The new process runs this file, with the standard library alone: python-pkcs11 would be most of what the look costs.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hsm_keys.stores.pins import Pin
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["labelled"]

_TIMEOUT_S: Final = 20.0
_PLACES: Final = {  # in CK_FUNCTION_LIST, after the version (PKCS#11 v2.40)
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_GetSlotList": 4,
    "C_GetTokenInfo": 6,
    "C_OpenSession": 12,
    "C_Login": 18,
    "C_FindObjectsInit": 26,
    "C_FindObjects": 27,
}
_CKF_SERIAL_SESSION, _CKU_USER, _CKO_PRIVATE_KEY, _CKA_CLASS, _CKA_LABEL = 4, 1, 3, 0, 3
_SERIAL_AT, _TOKEN_INFO_SIZE = 80, 512  # in CK_TOKEN_INFO, which is shorter


def labelled(uri: Pkcs11Uri, name: str, pin: Pin) -> int | None:
    """Return how many private keys of that label a new process sees in a token.

    Args:
        uri: Names the module and the token.
        name: The label.
        pin: The PIN that this process has logged in with; it goes through a pipe.

    Returns:
        0, 1, or 2 for several; None if it can't be told.
    """
    from hsm_keys.stores.environment import without_secrets

    command = [sys.executable, "-I", "-S", __file__, str(uri.module_path), str(uri.token), str(uri.serial or ""), name]
    with suppress(OSError, ValueError, subprocess.TimeoutExpired):
        seen = subprocess.run(  # noqa: S603 - this interpreter, and no shell
            command,
            input=pin.reveal().encode(),
            env=without_secrets(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        return int(seen.stdout)
    return None


def _count(module: str, label: str, serial: str, name: str, pin: bytes) -> int:
    call = _caller(module)
    call("C_Initialize", None)
    session, found, number = ctypes.c_ulong(), (ctypes.c_ulong * 2)(), ctypes.c_ulong()
    call("C_OpenSession", _slot(call, label, serial), _CKF_SERIAL_SESSION, None, None, ctypes.byref(session))
    call("C_Login", session, _CKU_USER, pin, len(pin))
    kind, text = ctypes.c_ulong(_CKO_PRIVATE_KEY), ctypes.create_string_buffer(name.encode())
    template = (ctypes.c_void_p * 6)(  # two of CK_ATTRIBUTE: type, address and length
        _CKA_CLASS, ctypes.addressof(kind), ctypes.sizeof(kind), _CKA_LABEL, ctypes.addressof(text), len(name.encode())
    )
    call("C_FindObjectsInit", session, template, 2)
    call("C_FindObjects", session, found, len(found), ctypes.byref(number))
    call("C_Finalize", None)
    return number.value


def _caller(module: str) -> Any:
    functions = ctypes.c_void_p()
    ctypes.CDLL(module).C_GetFunctionList(ctypes.byref(functions))
    places = ctypes.cast(functions, ctypes.POINTER(ctypes.c_void_p))

    def call(name: str, *arguments: Any) -> None:
        widened = [ctypes.c_ulong(argument) if isinstance(argument, int) else argument for argument in arguments]
        result = ctypes.CFUNCTYPE(ctypes.c_ulong)(places[1 + _PLACES[name]])(*widened)
        if result:
            raise SystemExit(f"{name}: {result:#x}")

    return call


def _slot(call: Any, label: str, serial: str) -> int:
    number = ctypes.c_ulong()
    call("C_GetSlotList", 1, None, ctypes.byref(number))
    slots = (ctypes.c_ulong * number.value)()
    call("C_GetSlotList", 1, slots, ctypes.byref(number))
    wanted = label.encode().ljust(32), serial.encode().ljust(16)
    for slot in slots:
        info = ctypes.create_string_buffer(_TOKEN_INFO_SIZE)
        call("C_GetTokenInfo", slot, info)
        if (info.raw[:32], info.raw[_SERIAL_AT : _SERIAL_AT + 16]) == wanted:
            return slot
    raise SystemExit("no such token")


if __name__ == "__main__":
    answer = os.dup(1)
    os.dup2(2, 1)  # a module may write there whatever it likes
    module, label, serial, name = sys.argv[1:]
    os.write(answer, str(_count(module, label, serial, name, sys.stdin.buffer.read())).encode())
