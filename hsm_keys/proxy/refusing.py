"""Answers of the proxy's own, in the shape of Kalshi's errors."""

from __future__ import annotations

from aiohttp import web

__all__ = ["ClientGoneError", "refusal"]


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


def refusal(status: int, reason: str, message: str, *, retry_after: int = 0) -> web.Response:
    """Return an answer of the proxy's own.

    Args:
        status: The HTTP status.
        reason: A stable word.
        message: What the client is told.
        retry_after: Seconds after which it may try again; 0 for none.
    """
    answer = web.json_response(
        {"error": {"code": reason, "message": message, "service": "hsm-keys proxy"}}, status=status
    )
    if retry_after:
        answer.headers["Retry-After"] = str(retry_after)
    return answer
