"""The token of Vault, which a background thread renews, so that no signature waits for it.

The thread starts with the first signature. It renews a renewable token when two thirds of its lifetime have passed,
and reads the file again, since an agent may have written another token. If the server refuses a token, the file is read
again within the call, too, because a running program is expected to read a replaced file.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from hsm_keys.errors import HsmKeysError
from hsm_keys.stores.vault.environment import read_token
from hsm_keys.stores.vault.errors import VaultTokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.values import Secret

__all__ = ["SteadyToken", "TokenServer"]

_log = logging.getLogger(__name__)

_SHARE: Final = 2 / 3
_AGAIN_S: Final = 15.0
"""Seconds to the next try where the server couldn't be asked."""

_SHORTEST_S: Final = 0.5


class TokenServer(Protocol):
    """What the server is asked of a token."""

    def look_up_token(self, token: Secret) -> Mapping[str, Any]:
        """Return what the server says of it."""

    def renew_token(self, token: Secret) -> float:
        """Renew it, and return for how many seconds."""


class SteadyToken:
    """The newest token that was had, never waited for.

    Args:
        server: Asks the server.

    Raises:
        VaultTokenError: If there is none.
    """

    def __init__(self, server: TokenServer) -> None:
        self.current: Secret = read_token()
        """Replaced as a whole; read without a lock."""
        self._server = server
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._kept = False
        self._told: Secret | None = None
        """The token of which people were told that it ends."""

    def read_again(self, refused: Secret) -> bool:
        """Read the token anew, and tell whether there is another one than that which the server refused."""
        if self.current == refused:  # otherwise another thread had the same refusal before
            with suppress(VaultTokenError):
                self.current = read_token()
        return self.current != refused

    def keep(self) -> None:
        """Start to keep the token alive, unless that was done before."""
        if not self._kept:
            with self._lock:
                begin, self._kept = not self._kept, True
            if begin:
                threading.Thread(target=self._keep, name="hsm-keys-vault-token", daemon=True).start()

    def close(self) -> None:
        """End the thread; a renewal under way is not waited for."""
        self._closing.set()

    def _keep(self) -> None:
        wait_s: float | None = 0.0
        while wait_s is not None and not self._closing.wait(wait_s):
            wait_s = self._looked_after()

    def _looked_after(self) -> float | None:
        """Renew the token if it is time, and return the seconds to the next look; None if it never ends."""
        token = self.current
        left_s = 0.0
        try:
            facts = self._server.look_up_token(token)
            left_s = float(facts.get("ttl") or 0)
            if left_s <= 0:
                return None
            lifetime_s = float(facts.get("creation_ttl") or left_s)
            if left_s > lifetime_s * (1 - _SHARE):
                return max(_SHORTEST_S, left_s - lifetime_s * (1 - _SHARE))
            if facts.get("renewable") is True:
                renewed_s = self._server.renew_token(token)
                if renewed_s > left_s:
                    return max(_SHORTEST_S, renewed_s * _SHARE)
        except VaultTokenError:
            pass  # it has ended
        except HsmKeysError as error:
            _log.warning("the token for Vault couldn't be read or renewed: %s", error.message)
            return _AGAIN_S
        if self.read_again(token):
            return 0.0
        if self._told is not token:
            self._told = token
            _log.warning(
                "the token for Vault expires in %.0f s and can't be renewed: log in again, or let an agent renew it",
                left_s,
            )
        return max(_AGAIN_S, left_s)
