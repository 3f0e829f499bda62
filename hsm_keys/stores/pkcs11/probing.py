"""Looks at a module and a token without a login, so that no try of the PIN is risked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pkcs11.constants import TokenFlag
from pkcs11.mechanisms import Mechanism

from hsm_keys.stores.pkcs11.errors import mapped_errors
from hsm_keys.stores.pkcs11.module import acquire_module
from hsm_keys.stores.pkcs11.tokens import find_token, with_its_module

if TYPE_CHECKING:
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["TokenReport", "look_at"]

_KINDS: Final = {
    "RSA": (Mechanism.RSA_PKCS_KEY_PAIR_GEN, (Mechanism.SHA256_RSA_PKCS_PSS, Mechanism.RSA_PKCS_PSS)),
    "Ed25519": (Mechanism.EC_EDWARDS_KEY_PAIR_GEN, (Mechanism.EDDSA,)),
}


_USER_PIN_TO_BE_CHANGED: Final = 0x80000  # CKF_USER_PIN_TO_BE_CHANGED, which python-pkcs11 has no name for


@dataclass(frozen=True, slots=True)
class TokenReport:
    """What a module and a token say of themselves.

    Args:
        module: Maker, description and version of the module.
        parallel: Whether the module is known to sign on several threads at once.
        token: The token's label and serial.
        pin: ``ok``, ``low``: a wrong PIN was given; ``final``: one more locks it; ``locked``; ``unset``: it has none;
            ``change``: it is the maker's; ``none``: the token wants no login.
        has_pad: Whether the token can ask for the PIN itself.
        makes: The kinds of key that the token makes and signs with.
        signs: The kinds of key that it signs with, whoever made them.
        write_protected: Whether keys can't be made or changed.
    """

    module: str
    parallel: bool
    token: str
    pin: str
    has_pad: bool
    makes: tuple[str, ...]
    signs: tuple[str, ...]
    write_protected: bool


def look_at(uri: Pkcs11Uri) -> TokenReport:
    """Return the state of the token that a URI names.

    Raises:
        UsageError: If the URI names something else than a token.
        StoreError: If module or token aren't there, or don't answer.
    """
    uri = with_its_module(uri)
    module = acquire_module(str(uri.module_path))
    try:
        found = find_token(module, uri)
        token = found.token
        with mapped_errors("list its mechanisms"):
            offered = token.slot.get_mechanisms()
            flags = token.flags
        signs = tuple(kind for kind, (_, mechanisms) in _KINDS.items() if set(mechanisms) & offered)
        return TokenReport(
            module=module.software,
            parallel=module.parallel,
            token=found.description,
            pin=_pin_state(flags),
            has_pad=bool(flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH),
            makes=tuple(kind for kind in signs if _KINDS[kind][0] in offered),
            signs=signs,
            write_protected=bool(flags & TokenFlag.WRITE_PROTECTED),
        )
    finally:
        module.release()


def _pin_state(flags: TokenFlag) -> str:
    if not flags & TokenFlag.LOGIN_REQUIRED:
        return "none"
    for flag, state in (
        (TokenFlag.USER_PIN_LOCKED, "locked"),
        (TokenFlag.USER_PIN_FINAL_TRY, "final"),
        (TokenFlag.USER_PIN_COUNT_LOW, "low"),
    ):
        if flags & flag:
            return state
    if flags & _USER_PIN_TO_BE_CHANGED:
        return "change"
    return "ok" if flags & TokenFlag.USER_PIN_INITIALIZED else "unset"
