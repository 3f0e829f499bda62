"""WebSocket sessions of clients with any restricting rule: their commands are judged."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from hsm_keys.proxy.audit import AuditError
from hsm_keys.proxy.frames import FrameError, FrameFilter

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.access import Caller
    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.metrics import Metrics

__all__ = ["JudgedSession"]

_log: Final = logging.getLogger(__name__)


class JudgedSession:
    """Judges what a client sends.

    Args:
        caller: Whose session it is.
        path: The WebSocket's path.
        hear: Called with the client's name whenever something comes from it.
        trail: Where it is written down what wasn't passed on.
        metrics: What is counted.
    """

    def __init__(
        self, caller: Caller, path: str, *, hear: Callable[[str], None], trail: AuditTrail, metrics: Metrics
    ) -> None:
        self._caller = caller
        self._path = path
        self._hear = hear
        self._trail = trail
        self._metrics = metrics
        self._frames: FrameFilter | None = None

    def begin(self, extensions: str) -> None:
        """Begin, with what Kalshi has agreed on.

        Args:
            extensions: Its ``Sec-WebSocket-Extensions``; empty for none.

        Raises:
            FrameError: If its frames couldn't be read.
        """
        self._frames = FrameFilter(extensions)

    def passed(self, data: bytes) -> bytes:
        """Return what goes on to Kalshi of some bytes of the client's.

        Raises:
            FrameError: If the client may not send that; it is written down.
        """
        self._hear(self._caller.client)
        if self._frames is None:
            raise RuntimeError("the session hasn't begun")
        try:
            return self._frames.feed(data)
        except FrameError as error:
            self._write(error)
            raise

    def _write(self, error: FrameError) -> None:
        self._metrics.verdict("denied", "websocket").inc()
        caller = self._caller
        try:
            self._trail.append(
                "websocket_refused",
                client=caller.client,
                uid=caller.uid,
                pid=caller.pid,
                path=self._path,
                status=int(error.code),
                rule=error.reason,
            )
        except AuditError as failed:
            _log.warning("%s", failed)
