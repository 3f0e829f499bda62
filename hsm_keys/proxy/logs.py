"""What the libraries below the proxy log, as lines that say nothing of what a client sent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hear_libraries"]


class _Saying(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        kind = f" ({record.exc_info[0].__name__})" if record.exc_info and record.exc_info[0] else ""
        # Without what comes after: tracebacks and the event loop's details may hold what a client sent.
        first = record.getMessage().partition("\n")[0]
        self._say(f"{record.levelname.lower()}: {first}{kind}")


def hear_libraries(say: Callable[[str], None]) -> None:
    """Pass on what the server's library and the event loop warn of.

    Args:
        say: Hears it, with its level before it.
    """
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)  # its warnings quote what clients send
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).addHandler(_Saying(say))
