"""Opens a token: loads its module, finds the token, logs in; again after a fork and after the module was restarted."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import PinError, StoreAmbiguousError, StoreNotFoundError, StoreUnavailableError
from hsm_keys.stores.pkcs11.module import acquire_module
from hsm_keys.stores.pkcs11.restart import restart, sees_new_tokens
from hsm_keys.stores.pkcs11.token_connection import TokenConnection
from hsm_keys.stores.pkcs11.tokens import FoundToken, find_token

if TYPE_CHECKING:
    from hsm_keys.stores.pins import Pin, PinGetter, PinWanted
    from hsm_keys.stores.pkcs11.module import Module
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["PAUSES_S", "Opening"]

PAUSES_S: Final = (0.03, 0.07)
"""Between looks for what another program may be writing at this moment."""

_log = logging.getLogger(__name__)


class Opening:
    """Opens one token, as often as need be. What was chosen stays chosen, also where the URI comes to mean another one.

    Args:
        uri: Names the token, with the path of its module.
        get_pin: Gives the user PIN, or None where the token asks on its own pad. What it gives is kept.
        force_pin: Log in also where the token says that one more wrong PIN locks it.

    Attributes:
        uri: Names the token, in its own words once it was opened; never holds a PIN.
        description: What people call it.
        times: How often it was opened.
        pin: The PIN that was given; None if there is none, or the store is closed.
    """

    def __init__(self, uri: Pkcs11Uri, get_pin: PinGetter, *, force_pin: bool) -> None:
        self.uri = replace(uri, pin_source=None, pin_value=None)
        self.description = "the token"
        self.times = 0
        self.pin: Pin | None = None
        self._get_pin = get_pin
        self._force_pin = force_pin
        self._slot: int | None = None
        self._refused: PinError | None = None

    def open(self) -> TokenConnection:
        """Load the module, find the token, log in.

        SoftHSM writes a token's file in place at each login: a program that looks at that moment finds no token, or
        a broken one, until it initialises the module again. So whoever finds none looks again.

        Raises:
            StoreError: If there is no such token, or it can't be opened.
            PinError: If the PIN is refused, or can't be tried.
        """
        for pause in PAUSES_S:
            try:
                return self._opened()
            except (StoreNotFoundError, StoreUnavailableError):
                time.sleep(pause)
        return self._opened(anew=True)

    def reopen(self, connection: TokenConnection) -> TokenConnection:
        """Find the token again and log in, in a module that was initialised again.

        Raises:
            StoreError: If the token isn't there, or can't be opened.
            PinError: If the PIN is refused; it is never tried again in this process.
        """
        if self._refused is not None:
            raise self._refused
        if connection.epoch == connection.module.epoch:  # nobody has initialised it since this connection broke
            restart(connection.module, connection.epoch)
        connection.epoch = connection.module.epoch  # if the rest fails, the next attempt begins with the module
        try:
            return self._logged_in(connection.module, self._found(connection.module))
        except PinError as error:
            self._refused = error
            raise

    def _opened(self, *, anew: bool = False) -> TokenConnection:
        """Open the token; ``anew`` is whether to look also for one that was made after the module was initialised."""
        module = acquire_module(str(self.uri.module_path))
        try:
            try:
                token = self._found(module)
            except StoreNotFoundError:
                if not (anew and sees_new_tokens(module)):
                    raise
                token = self._found(module)
            connection = self._logged_in(module, token)
        except BaseException:
            module.release()
            raise
        if token.needs_slot:
            _log.warning(
                "another token has label and serial of %s too; only its slot tells it apart, and slot ids can change",
                token.description,
            )
        return connection

    def _found(self, module: Module) -> FoundToken:
        try:
            return find_token(module, self.uri)
        except StoreAmbiguousError:  # a second token with the same names as the chosen one was added
            if self._slot is None:
                raise
            return find_token(module, replace(self.uri, slot_id=self._slot))

    def _logged_in(self, module: Module, token: FoundToken) -> TokenConnection:
        self.description = token.description
        connection = TokenConnection.open(module, token.token, token.description, self._pin_once, force=self._force_pin)
        self.times += 1
        self.uri = token.uri
        self._slot = token.token.slot.slot_id
        return connection

    def _pin_once(self, wanted: PinWanted) -> Pin | None:
        if self.pin is None:
            self.pin = self._get_pin(wanted)
        return self.pin
