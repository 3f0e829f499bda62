"""A look at a token by a process that was started for it: it sees what other programs have made meanwhile, all of it.

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

__all__ = ["private_keys_labelled", "tokens"]

_TIMEOUT_S: Final = 20.0
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
_LABEL_SIZE, _SERIAL_SIZE, _TEXTS_SIZE = 32, 16, 96  # in CK_TOKEN_INFO, which begins with the label
_TOKEN_INFO_SIZE = 512  # more than it has


def private_keys_labelled(uri: Pkcs11Uri, name: str, pin: Pin) -> int | None:
    """Return how many private keys of that label a new process sees in a token.

    Args:
        uri: Names the module and the token.
        name: The label.
        pin: The PIN that this process has logged in with; it goes through a pipe.

    Returns:
        0, 1, or 2 for several; None if it can't be told.
    """
    count = _looked(str(uri.module_path), str(uri.token), str(uri.serial or ""), _slot_of(uri), name, pin=pin)
    return int(count) if count.isdigit() else None


def _slot_of(uri: Pkcs11Uri) -> str:
    return "" if uri.slot_id is None else str(uri.slot_id)


def tokens(module: str) -> set[bytes]:
    """Return what a new process sees of each token of a module: label, manufacturer, model and serial as they are.

    Args:
        module: The module's path.

    Returns:
        The first 96 bytes of each CK_TOKEN_INFO; none if that can't be told.
    """
    texts = _looked(module)
    return {texts[at : at + _TEXTS_SIZE] for at in range(0, len(texts), _TEXTS_SIZE)}


def _looked(*arguments: str, pin: Pin | None = None) -> bytes:
    """Return what the new process answers; nothing if it can't tell."""
    from hsm_keys.stores.environment import without_secrets

    with suppress(OSError, ValueError, subprocess.TimeoutExpired):
        process = subprocess.run(  # noqa: S603 - this interpreter, and no shell
            [sys.executable, "-I", "-S", __file__, *arguments],
            input=pin.reveal().encode() if pin else b"",
            env=without_secrets(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        return process.stdout
    return b""


def _count(module: str, token: tuple[str, str, str], name: str, pin: bytes) -> int:
    call = _caller(module)
    call("C_Initialize", None)
    session = ctypes.c_ulong()
    call("C_OpenSession", _slot(call, *token), _CKF_SERIAL_SESSION, None, None, ctypes.byref(session))
    call("C_Login", session, _CKU_USER, pin, len(pin))
    # By class alone: one object that can't be read makes SoftHSM refuse a search by label.
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
    with suppress(OSError):  # it can't be read, or is longer than any name
        call("C_GetAttributeValue", session, handle, label, 1)
        return text.raw[: label[2] or 0]
    return None


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
        with suppress(OSError):
            call("C_GetTokenInfo", slot, info)
            infos[slot] = info.raw[:_TEXTS_SIZE]
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
