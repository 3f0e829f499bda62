"""Keeps signatures out of botocore's log.

At the level DEBUG botocore logs the body of each answer. The body of a Sign call is a signature that Kalshi
accepts for some seconds, and logs are kept and sent to other places.
"""

from __future__ import annotations

import logging

__all__ = ["hide_signatures"]


class _HideSignatures(logging.Filter):
    """Takes bodies that hold a signature out of a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                "[hidden: it holds a signature]" if isinstance(part, bytes) and b"Signature" in part else part
                for part in record.args
            )
        return True


_HIDE = _HideSignatures()


def hide_signatures() -> None:
    """Keep signatures out of botocore's log, at every level and for every handler; safe to repeat."""
    logging.getLogger("botocore.parsers").addFilter(_HIDE)
