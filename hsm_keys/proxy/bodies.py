"""Bodies of requests: read before anything is signed where they are small, streamed where they aren't."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import HttpVersion11

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

__all__ = ["BodyError", "body_ahead", "whole_body"]

_BODY_S: Final = 30.0
_AHEAD_LIMIT: Final = 1 << 20


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
                    raise BodyError(413, f"a body that is judged has at most {limit} bytes")
    except TimeoutError:
        raise BodyError(408, f"the body didn't come within {_BODY_S:.0f} seconds") from None
    except (aiohttp.ClientError, ConnectionError):
        raise BodyError(400, "the body was cut off") from None
    return bytes(body)


async def body_ahead(request: web.BaseRequest) -> bytes | AsyncIterator[bytes] | None:
    """Return the body of a request as it goes to Kalshi: whole if its length is said and small, else as it comes.

    What is signed after this goes out at once: a client that hesitates lets no signature grow old.

    Raises:
        BodyError: If it doesn't come.
    """
    if not request.body_exists:
        return None
    if request.content_length is not None and request.content_length <= _AHEAD_LIMIT:
        return await whole_body(request, limit=_AHEAD_LIMIT)
    await _ask_for(request)
    chunks = _chunks(request)
    first = await anext(chunks, b"")
    return _joined(first, chunks)


async def _ask_for(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to go on (RFC 9110, section 10.1.1)."""
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has yet to begin


async def _chunks(request: web.BaseRequest) -> AsyncIterator[bytes]:
    try:
        while True:
            async with asyncio.timeout(_BODY_S):
                chunk = await request.content.readany()
            if not chunk:
                return
            yield chunk
    except TimeoutError:
        raise BodyError(408, f"nothing came of the body for {_BODY_S:.0f} seconds") from None
    except (aiohttp.ClientError, ConnectionError):
        raise BodyError(400, "the body was cut off") from None


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk
