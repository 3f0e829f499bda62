"""Bodies of requests: read to their end before anything is judged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import HttpVersion11

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["BODY_LIMIT", "BodyError", "whole_body"]

BODY_LIMIT: Final = 256 * 1024
"""Bytes of a body that isn't judged. Kalshi's own requests are far smaller, and each one waits in memory."""

_BODY_S: Final = 30.0


class BodyError(Exception):
    """The body is too long, too slow, or was cut off.

    Args:
        status: The HTTP status.
        message: What the client is told.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


async def whole_body(request: web.BaseRequest, *, limit: int) -> bytes:
    """Return the body.

    Args:
        request: The request.
        limit: How many bytes it may have.

    Raises:
        BodyError: If it is longer, takes longer than 30 seconds, or doesn't come whole.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            await _ask_for(request)
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise BodyError(413, f"the body has more than {limit} bytes")
    except TimeoutError:
        raise BodyError(408, f"the body didn't come within {_BODY_S:.0f} seconds") from None
    except (aiohttp.ClientError, ConnectionError):
        raise BodyError(400, "the body was cut off") from None
    return bytes(body)


async def _ask_for(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to go on (RFC 9110, section 10.1.1)."""
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has yet to begin
