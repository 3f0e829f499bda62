"""Looking at a module and a token without logging in: nothing here can cost a try of the PIN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pkcs11.constants import TokenFlag
from pkcs11.mechanisms import Mechanism

from hsm_keys.stores.pkcs11.errors import told_as_ours
from hsm_keys.stores.pkcs11.library import find_module
from hsm_keys.stores.pkcs11.module import acquire
from hsm_keys.stores.pkcs11.tokens import describe_token, find_token

if TYPE_CHECKING:
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["TokenState", "look_at"]

_KINDS: Final = {
    "RSA": (Mechanism.RSA_PKCS_KEY_PAIR_GEN, (Mechanism.SHA256_RSA_PKCS_PSS, Mechanism.RSA_PKCS_PSS)),
    "Ed25519": (Mechanism.EC_EDWARDS_KEY_PAIR_GEN, (Mechanism.EDDSA,)),
}


@dataclass(frozen=True, slots=True)
class TokenState:
    """What a module and a token say of themselves.

    Args:
        module: Maker, description and version of the module.
        parallel: Whether the module is known to sign on several threads at once.
        token: The token's label and serial.
        pin: ``ok``, ``low``: a wrong PIN was given; ``final``: one more locks it; ``locked``; ``unset``: it has none.
        signs: The kinds of key that the token makes and signs with.
        write_protected: Whether keys can't be made or changed.
    """

    module: str
    parallel: bool
    token: str
    pin: str
    signs: tuple[str, ...]
    write_protected: bool


def look_at(uri: Pkcs11Uri) -> TokenState:
    """Return the state of the token that a URI names.

    Raises:
        StoreError: If module or token aren't there, or don't answer.
    """
    module = acquire(find_module(uri.module_path))
    try:
        token = find_token(module, uri)
        with told_as_ours("list its mechanisms"):
            offered = token.slot.get_mechanisms()
            flags = token.flags
        library = module.library
        return TokenState(
            module=f"{library.manufacturer_id} {library.library_description}, version "
            f"{'.'.join(map(str, library.library_version))}",
            parallel=module.parallel,
            token=describe_token(token),
            pin=_pin_state(flags),
            signs=tuple(kind for kind, (makes, signs) in _KINDS.items() if makes in offered and set(signs) & offered),
            write_protected=bool(flags & TokenFlag.WRITE_PROTECTED),
        )
    finally:
        module.release()


def _pin_state(flags: TokenFlag) -> str:
    for flag, state in (
        (TokenFlag.USER_PIN_LOCKED, "locked"),
        (TokenFlag.USER_PIN_FINAL_TRY, "final"),
        (TokenFlag.USER_PIN_COUNT_LOW, "low"),
    ):
        if flags & flag:
            return state
    return "ok" if flags & TokenFlag.USER_PIN_INITIALIZED else "unset"
