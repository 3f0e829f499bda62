"""The package's log: warnings, and the requests to stores and Kalshi, without PINs, private halves and signatures.

A log line is the level and the first line of the message: the lines below (tracebacks, details) may hold text from
somebody else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LOG", "LineHandler", "log_request"]

LOG: Final = logging.getLogger("hsm_keys.asked")
"""Its records have the level DEBUG; ``hsm-keys --verbose`` prints them."""


def log_request(whom: str, what: object) -> None:
    """Log a request or an answer.

    Args:
        whom: Who is asked: ``token``, ``KMS``, ``Vault`` or ``Kalshi``.
        what: What for, in words; turned into text only if somebody listens.
    """
    LOG.debug("%s: %s", whom, what)


class LineHandler(logging.Handler):
    """Reports records of a log as lines: the level, the first line of the message, and the kind of an exception.

    Args:
        report: Takes each line.
        level: The lowest level that is reported.
    """

    def __init__(self, report: Callable[[str], None], level: int = logging.WARNING) -> None:
        super().__init__(level)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record."""
        kind = f" ({record.exc_info[0].__name__})" if record.exc_info and record.exc_info[0] else ""
        first = record.getMessage().partition("\n")[0]
        self._report(f"{record.levelname.lower()}: {first}{kind}")
