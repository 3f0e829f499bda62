"""A token as a process sees it that has just begun: what other programs have made meanwhile, all of it.

SoftHSM 2.6.1 notices what another process made by a counter in the token's folder. A process that makes an object
itself sets its own count to the new one, and so may pass over what others made just before: it finds that only when
something else changes. A process that has just begun reads the whole folder.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hsm_keys.stores.pins import Pin
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["labelled"]

_TIMEOUT_S: Final = 20.0


def labelled(uri: Pkcs11Uri, name: str, pin: Pin) -> int | None:
    """Return how many private keys of that label a new process sees in a token.

    Args:
        uri: Names the module and the token.
        name: The label.
        pin: The PIN that this process has logged in with; it goes through a pipe.

    Returns:
        Their number; None if it can't be told.
    """
    from hsm_keys.stores.environment import without_secrets

    # Run as a file: the package around it would cost more than the look.
    command = [sys.executable, "-P", __file__, str(uri.module_path), str(uri.token), str(uri.serial or ""), name]
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


def _count(module: str, label: str, serial: str, name: str, pin: str) -> int:
    import pkcs11

    token = pkcs11.lib(module).get_token(token_label=label, token_serial=serial.encode() or None)
    with token.open(user_pin=pin) as session:
        template = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.Attribute.LABEL: name}
        return len(list(session.get_objects(template)))


if __name__ == "__main__":
    module, label, serial, name = sys.argv[1:]
    sys.stdout.write(str(_count(module, label, serial, name, sys.stdin.buffer.read().decode())))
