"""Lines of the audit trail about programs that ran."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from hsm_keys.errors import StoreNotFoundError, UsageError
from hsm_keys.proxy.controlling import ask_one

if TYPE_CHECKING:
    from hsm_keys.proxy.controlling import ProxyChoice

__all__ = ["Note"]

_STARTED_WITHIN_S: Final = 60.0
_ROUND_S: Final = 0.1


class Note:
    """Has a proxy write that a program began, and that it ended. Arguments may hold secrets: they are counted.

    Args:
        proxy: The proxy.
        client: The client that the program is.
        path: The program's file.
        arguments: How many it has.
    """

    def __init__(self, proxy: ProxyChoice, client: str, path: str, *, arguments: int) -> None:
        self._proxy = proxy
        self._what = {
            "client": client,
            "program": str(Path(path).absolute()),
            "arguments": arguments,
            "uid": os.getuid(),
            "pid": os.getpid(),
        }

    def relayed(self, to: str) -> None:
        """Note that the program is let through to a host; a proxy that is still starting is waited for.

        Args:
            to: The host and port.

        Raises:
            HsmKeysError: If the trail doesn't have it.
        """
        until = time.monotonic() + _STARTED_WITHIN_S
        while True:
            try:
                ask_one(self._proxy, "POST", f"/programs?{urlencode({**self._what, 'relayed_to': to})}")
            except StoreNotFoundError:
                if time.monotonic() > until:
                    raise
                time.sleep(_ROUND_S)
            else:
                return

    def __call__(self, exit_code: int | None) -> None:
        """Note that it begins, or its exit code.

        Raises:
            AuditError: If the trail can't be written.
            HsmKeysError: If the proxy doesn't answer.
        """
        ended = {} if exit_code is None else {"exit_code": exit_code}
        try:
            ask_one(self._proxy, "POST", f"/programs?{urlencode({**self._what, **ended})}")
        except UsageError:
            from hsm_keys.proxy.audit import AuditError

            raise AuditError(
                "the start of the program can't be written into the audit trail, so the program was ended",
                hint="make room in the folder of the proxy's trail, then run the same command again",
            ) from None
