"""Making a token in SoftHSM by C_InitToken and C_InitPIN; killed between the two, it goes on with the second."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pkcs11 import exceptions as ckr
from pkcs11.constants import TokenFlag

from hsm_keys.errors import PinError, StoreError
from hsm_keys.stores.pkcs11.codes import check
from hsm_keys.stores.pkcs11.cryptoki import CKU_SO
from hsm_keys.stores.pkcs11.errors import mapped_errors
from hsm_keys.stores.pkcs11.module import Module, acquire_module

if TYPE_CHECKING:
    from hsm_keys.stores.pkcs11.cryptoki import Functions
    from hsm_keys.values import Secret

__all__ = ["TokenState", "make_token", "state_of_token"]

_LONGEST_LABEL: Final = 32  # bytes, in CK_TOKEN_INFO


class TokenState(StrEnum):
    """How far the making of a token has got."""

    ABSENT = "absent"
    WITHOUT_PIN = "without a user PIN"
    READY = "ready"


def state_of_token(module_path: str, label: str) -> TokenState:
    """Return how far the making of the token with that label has got.

    Raises:
        StoreError: If the module can't be used.
    """
    module = acquire_module(module_path)
    try:
        with module.mutex, mapped_errors("list its slots"):
            functions = module.library.functions
            flags = [functions.token_info(slot).flags for slot in _slots(functions, label)]
    finally:
        module.release()
    if not flags:
        return TokenState.ABSENT
    ready = any(each & TokenFlag.USER_PIN_INITIALIZED for each in flags)
    return TokenState.READY if ready else TokenState.WITHOUT_PIN


def make_token(module_path: str, label: str, so_pin: Secret, pin: Secret) -> None:
    """Make a token, or give one its user PIN that was left without.

    Args:
        module_path: The module.
        label: The token's label, up to 32 bytes.
        so_pin: The security officer's PIN; of a token that was left without a user PIN, the one that it was made with.
        pin: The user PIN.

    Raises:
        PinError: If the token takes no such user PIN.
        StoreError: If the label is too long, there is no free slot, or the module refuses.
    """
    if not label.isprintable() or not 0 < len(label.encode()) <= _LONGEST_LABEL:
        raise StoreError(f"a token's label has 1 to {_LONGEST_LABEL} bytes of printable text", hint="choose another")
    module = acquire_module(module_path)
    try:
        with module.mutex, mapped_errors(f"make the token {label!r}"):
            _make(module, label, so_pin, pin)
    finally:
        module.release()


def _make(module: Module, label: str, so_pin: Secret, pin: Secret) -> None:
    functions = module.library.functions
    slot = next(iter(_slots(functions, label)), None)
    if slot is None:
        slot = next((each for each in functions.slots() if not _is_initialised(functions, each)), None)
        if slot is None:
            raise StoreError("the module has no slot without a token", hint="make the token with the vendor's tool")
        check(functions.init_token(slot, so_pin, label))
    session = functions.open_session(slot, writes=True)
    try:
        check(functions.login(session, CKU_SO, so_pin))
        _check_pin(functions.init_pin(session, pin))
        functions.logout(session)
    finally:
        functions.close_session(session)


def _check_pin(result: int) -> None:
    try:
        check(result)
    except (ckr.PinInvalid, ckr.PinLenRange):
        raise PinError(
            "the token refuses this as a new user PIN", hint="SoftHSM takes 4 to 255 bytes; run the same command again"
        ) from None


def _slots(functions: Functions, label: str) -> list[int]:
    """Return the slots of initialised tokens with that label."""
    wanted = label.encode().ljust(_LONGEST_LABEL)
    return [
        slot
        for slot in functions.slots()
        if _is_initialised(functions, slot) and functions.token_info(slot).texts[:_LONGEST_LABEL] == wanted
    ]


def _is_initialised(functions: Functions, slot: int) -> bool:
    return bool(functions.token_info(slot).flags & TokenFlag.TOKEN_INITIALIZED)
