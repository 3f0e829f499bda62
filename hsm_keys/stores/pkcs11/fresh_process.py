"""Lists a token's objects in a new process, which sees everything that other programs have made meanwhile.

SoftHSM 2.6.1 notices objects of other processes by a counter in the token's folder. A process that makes an object
itself takes over the new count, and so may miss objects that others made just before, until something else changes. A
new process reads the whole folder.

The new process runs ``look.py``.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hsm_keys.stores.pkcs11 import look

if TYPE_CHECKING:
    from hsm_keys.stores.pins import Pin
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["private_keys_labelled", "tokens"]

_TIMEOUT_S: Final = 20.0


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
    return {texts[at : at + look.TEXTS_SIZE] for at in range(0, len(texts), look.TEXTS_SIZE)}


def _looked(*arguments: str, pin: Pin | None = None) -> bytes:
    """Return what the new process answers; nothing if it can't tell."""
    from hsm_keys.stores.environment import without_secrets

    with suppress(OSError, ValueError, subprocess.TimeoutExpired):
        process = subprocess.run(  # noqa: S603 - this interpreter, and no shell
            [sys.executable, "-I", "-S", look.__file__, *arguments],
            input=pin.reveal().encode() if pin else b"",
            env=without_secrets(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        return process.stdout
    return b""
