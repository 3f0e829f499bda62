"""Signing in a process of its own: a busy thread of the program delays each signature once instead of several times.

For signing it is a store like any other. The process that opens the store starts the signer process, which ends with
it. Threads and forked children share the signer's login and its pool of sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.stores import backend_of
from hsm_keys.stores.isolated.process import SignerProcess
from hsm_keys.stores.isolated.store import IsolatedStore
from hsm_keys.values import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsm_keys.stores.base import KeyStore

__all__ = ["open_isolated"]


def open_isolated(
    uri: str | Secret,
    *,
    pin_file: Path | None = None,
    ask_pin: Callable[[str], str] | None = None,
    force_pin: bool = False,
) -> KeyStore:
    """Start a signer that opens the store; see ``open_store``.

    The PIN is looked for here, and goes to the signer over a socket that only the two have.
    """
    hidden = uri if isinstance(uri, Secret) else Secret(uri)
    del uri  # an error's report has this frame, and the URI may hold a PIN
    without_pin, get_pin = backend_of(hidden).pin_apart(hidden, pin_file, ask_pin)
    return IsolatedStore(SignerProcess(without_pin, get_pin, force_pin=force_pin))
