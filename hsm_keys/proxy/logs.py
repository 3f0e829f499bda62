"""The log of the proxy's libraries, without text that a client sent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hsm_keys.logs import LineHandler

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["report_libraries"]


def report_libraries(report: Callable[[str], None]) -> None:
    """Pass on what the server's library and the event loop warn of.

    Args:
        report: Takes each line.
    """
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)  # its warnings quote what clients send
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).addHandler(LineHandler(report))
