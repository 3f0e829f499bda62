"""Stores: where private halves live. ``open_store`` finds the back-end of a URI's scheme."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.values import Secret, describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsm_keys.stores.backend import Backend
    from hsm_keys.stores.base import KeyStore

__all__ = ["backend_of", "backends", "open_store"]

_BACKENDS: Final = ("pkcs11", "awskms", "vault")
"""The packages of the back-ends, each with the name of its URIs' scheme. The first is the default.

A new back-end is one package, whose module ``backend`` describes it, and one word here.
"""


def backends() -> tuple[Backend, ...]:
    """Return the description of each back-end; nothing heavy is imported."""
    return tuple(import_module(f"hsm_keys.stores.{name}.backend").BACKEND for name in _BACKENDS)


def backend_of(uri: str | Secret) -> Backend:
    """Return the description of a store's back-end.

    Raises:
        UsageError: If the URI's scheme is unknown.
    """
    uri = (
        uri if isinstance(uri, Secret) else Secret(uri)
    )  # an error's report has this frame, and the URI may hold a PIN
    backend_found = next((backend for backend in backends() if backend.has(uri.reveal())), None)
    if _has_something_round_it(uri):
        raise UsageError("the store's URI has quotes or white space around it", hint="give the URI without them")
    if backend_found is None:
        raise UsageError(
            f"{describe(uri)} isn't the URI of a store",
            hint="use " + " or ".join(f"{backend.scheme}:..." for backend in backends()),
        )
    return backend_found


def _has_something_round_it(uri: Secret) -> bool:
    bare = uri.reveal().strip(" \t\r\n\"'")
    return bare != uri.reveal() and any(backend.has(bare) for backend in backends())


def open_store(
    uri: str | Secret,
    *,
    pin_file: Path | None = None,
    ask_pin: Callable[[str], str] | None = None,
    force_pin: bool = False,
    isolated: bool = False,
) -> KeyStore:
    """Open a store of keys.

    Args:
        uri: ``pkcs11:token=LABEL?module-path=/path/to/module.so`` (RFC 7512), ``awskms:///?region=REGION``, or
            ``vault:///MOUNT?address=URL``. A URI with a PIN may be given as a ``Secret``.
        pin_file: A file, pipe or descriptor that holds the token's user PIN; read once.
        ask_pin: Called for the PIN, with a prompt that names the token, if no other source has one.
        force_pin: Log in even if the token reports that one more wrong PIN locks it; KMS and Vault have no PIN.
        isolated: Sign in a process of its own, which ends with this one: busy threads here then delay signatures
            less, and forked children share its login. Such a store can only sign.

    Returns:
        The open store; close it, or use it as a context manager.

    Raises:
        UsageError: If the URI is malformed or its scheme unknown.
        StoreError: If the module or token can't be found or used.
        PinError: If the PIN is missing, wrong or locked.
        AwsError: If AWS has no Region or credentials for it.
        VaultTokenError: If there is no token for Vault.
    """
    uri = (
        uri if isinstance(uri, Secret) else Secret(uri)
    )  # an error's report has this frame, and the URI may hold a PIN
    backend = backend_of(uri)
    if isolated:
        from hsm_keys.stores.isolated import open_isolated

        return open_isolated(uri, pin_file=pin_file, ask_pin=ask_pin, force_pin=force_pin)
    return backend.open(uri, {"pin_file": pin_file, "force_pin": force_pin}, ask_pin, {})
