"""Keys in PKCS#11 tokens: SoftHSM, openCryptoki, TPMs through tpm2-pkcs11, HSMs with their vendor's module.

The library is imported when a store is opened, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsm_keys.stores.base import KeyStore
    from hsm_keys.stores.pins import Pin, PinGetter, PinWanted
    from hsm_keys.stores.pkcs11.store import Pkcs11Store
    from hsm_keys.stores.uri import Pkcs11Uri
    from hsm_keys.values import Secret

__all__ = ["open_uri", "open_with"]


def open_uri(
    uri: str | Secret,
    *,
    pin_file: Path | None = None,
    ask_pin: Callable[[str], str] | None = None,
    force_pin: bool = False,
) -> KeyStore:
    """Open the token that an RFC 7512 URI names, and log in.

    The module is the URI's ``module-path``, else ``HSM_KEYS_MODULE``, else SoftHSM where it usually is.

    Raises:
        UsageError: If the URI is malformed, or names an object of the token.
        StoreError: If the module or the token isn't there, or is ambiguous.
        PinError: If the PIN is missing, wrong or locked.
    """
    from hsm_keys.stores.pins import resolve_pin
    from hsm_keys.stores.uri import Pkcs11Uri

    parsed = Pkcs11Uri.parse(uri)

    def get_pin(wanted: PinWanted) -> Pin | None:
        return resolve_pin(wanted, pin_file=pin_file, uri=parsed, ask=ask_pin)

    return open_with(parsed, get_pin, force_pin=force_pin)


def open_with(uri: Pkcs11Uri, get_pin: PinGetter, *, force_pin: bool = False) -> Pkcs11Store:
    """Open a token as ``open_uri`` does, with a PIN from anywhere."""
    from hsm_keys.stores.pkcs11.store import Pkcs11Store
    from hsm_keys.stores.pkcs11.tokens import with_its_module

    return Pkcs11Store(with_its_module(uri), get_pin, force_pin=force_pin)
