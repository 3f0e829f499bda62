"""Why a connection failed, in words. HTTP libraries keep the reason in the causes of their own exceptions."""

from __future__ import annotations

import os
import socket
import ssl

__all__ = ["why_not_reached"]


def why_not_reached(error: BaseException) -> str:
    """Return in a few words why a connection failed; empty if no exception below says so.

    Args:
        error: What an HTTP library raised (httpx2, botocore).
    """
    words = ""
    below: BaseException | None = error
    while below is not None:
        words = _words(below) or words
        below = below.__cause__ or below.__context__ or _first(below)
    return words


def _first(error: BaseException) -> BaseException | None:
    """Return the first of several: one for each address of a host that was tried."""
    return error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "TLS: its certificate isn't trusted"
    if isinstance(error, ssl.SSLError):
        reason = (getattr(error, "reason", "") or "").lower().replace("_", " ")
        return f"TLS: the handshake failed, {reason}" if reason else "TLS: the handshake failed"
    if isinstance(error, socket.gaierror):
        return "its name can't be resolved"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return ""
