"""Restarts a module whose back-end went away: its daemon was killed, its socket is gone, its token directory moved.

These steps brought back every module that was tried, in the same process: finalise, initialise, find the token, log
in, find the key again. Fewer steps didn't work with all of them. The first two are done here, for all users of the
module.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from pkcs11.exceptions import PKCS11Error

from hsm_keys.errors import StoreUnavailableError
from hsm_keys.stores.pkcs11 import fresh_process
from hsm_keys.stores.pkcs11.errors import reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.pkcs11.module import Module

__all__ = ["restart", "sees_new_tokens"]

_REST_S: Final = 0.25
"""Between two attempts: each may log in. Short enough to sign again within a second of the module's return."""

_DRAINED_S: Final = 2.0
_WAIT_S: Final = 3.0
"""How long the others wait for the one that does it. Its call may never return."""

_log = logging.getLogger(__name__)


@contextmanager
def _initialised_again() -> Iterator[None]:
    try:
        yield
    except PKCS11Error as error:
        raise StoreUnavailableError(
            f"the PKCS#11 module didn't initialise again: {reason(error)}",
            hint="check its daemon and its configuration; signing goes on by itself once it works",
        ) from None


def restart(module: Module, epoch: int) -> None:
    """Finalise the module and initialise it, unless that has happened since the epoch that the caller knows.

    All sessions on it are gone afterwards, of all stores of the process.

    Raises:
        StoreUnavailableError: If it doesn't initialise, was tried a moment ago, or is busy with another call.
    """
    if not module.restarting.acquire(timeout=_WAIT_S):
        raise StoreUnavailableError(
            f"the PKCS#11 module hasn't initialised again within {_WAIT_S:.0f} s",
            hint="check the token and its daemon; restart this program if it never does",
        )
    try:
        if module.epoch != epoch:
            return
        if time.monotonic() < module.rests_until:
            raise StoreUnavailableError(
                "the PKCS#11 module doesn't answer", hint="signing goes on by itself once it does"
            )
        try:
            _restart(module)
        finally:  # those that waited meanwhile don't each wait as long again
            module.rests_until = time.monotonic() + _REST_S
    finally:
        module.restarting.release()


def sees_new_tokens(module: Module) -> bool:
    """Initialise a module again that other stores of the process have open, if a new process sees further tokens.

    SoftHSM, for one, shows a process the tokens that there were when it was initialised.

    Returns:
        Whether there may be something new to see.

    Raises:
        StoreUnavailableError: If it doesn't initialise again.
    """
    if module.users == 1:  # it was initialised only for this look
        return False
    functions = module.library.functions
    with suppress(PKCS11Error), module.mutex:
        known = {functions.token_info(slot).texts for slot in functions.slots()}
        if fresh_process.tokens(module.file) <= known:
            return False
    with _initialised_again():
        return module.renew()


def _restart(module: Module) -> None:
    # A thread inside a function of the module while it is finalised would use freed memory.
    if not module.rest(time.monotonic() + _DRAINED_S, for_good=True):
        raise StoreUnavailableError(
            "a call into the PKCS#11 module doesn't return", hint="check its daemon; restart this program"
        )
    try:
        module.logins.clear()  # their sessions end with it
        module.pools.clear()
        module.epoch += 1
        with suppress(PKCS11Error):
            module.library.finalize()
        with _initialised_again():
            module.library.initialize()
    finally:
        module.mutex.release()
    _log.warning("the PKCS#11 module %s was initialised again", module.file)
