"""Lists slots even if some don't answer: python-pkcs11 would give none at all then."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.stores.pkcs11.codes import CKR_BUFFER_TOO_SMALL, CKR_OK
from hsm_keys.stores.pkcs11.cryptoki import PLACES, FunctionList, function_list_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["only_slots"]

_SlotList: Final = ctypes.CFUNCTYPE(
    ctypes.c_ulong, ctypes.c_ubyte, ctypes.POINTER(ctypes.c_ulong), ctypes.POINTER(ctypes.c_ulong)
)
_tables: Final[dict[tuple[int, tuple[int, ...]], tuple[Any, Any]]] = {}
"""Function lists with a C_GetSlotList of our own. Slots and tokens that were found by one go on using it."""


@contextmanager
def only_slots(library: Any, slots: Sequence[int]) -> Iterator[None]:
    """Let python-pkcs11 see these slots of the module alone: it gives none at all where one doesn't answer.

    Args:
        library: python-pkcs11's.
        slots: Ids of slots.
    """
    place = function_list_of(library)
    real = place.value
    key = real, tuple(slots)
    if key not in _tables:
        table, slot_list = FunctionList.from_buffer_copy(FunctionList.from_address(real)), _giving(key[1])
        table.functions[PLACES["C_GetSlotList"][0]] = ctypes.cast(slot_list, ctypes.c_void_p)
        _tables[key] = table, slot_list
    place.value = ctypes.addressof(_tables[key][0])
    try:
        yield
    finally:
        place.value = real


def _giving(slots: tuple[int, ...]) -> Any:
    """Return a C_GetSlotList that gives these slots."""

    def slot_list(_present: int, found: Any, number: Any) -> int:
        room, number[0] = number[0], len(slots)
        if not found:
            return CKR_OK
        if room < len(slots):
            return CKR_BUFFER_TOO_SMALL
        for place, slot in enumerate(slots):
            found[place] = slot
        return CKR_OK

    return _SlotList(slot_list)
