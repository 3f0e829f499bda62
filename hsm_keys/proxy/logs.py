"""What the libraries below the proxy log, as lines that say nothing of what a client sent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hear_libraries"]


class _Saying(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):  # its message and traceback hold the bytes, which may be a token
            self._say(f"warning: what was sent is no HTTP request and was refused ({type(error).__name__})")
        else:
            kind = f" ({type(error).__name__})" if error else ""
            self._say(f"{record.levelname.lower()}: {record.getMessage()}{kind}")


def hear_libraries(say: Callable[[str], None]) -> None:
    """Pass on what the server's library and the event loop warn of.

    Args:
        say: Hears it, with its level before it.
    """
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)  # its warnings quote what clients send
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).addHandler(_Saying(say))
