"""Reading an answer whole, within limits: whoever stands in for Kalshi can't fill the memory or hold up for ever."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import httpx2

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LARGEST", "LONGEST_S", "AnswerTooLargeError", "read_whole", "read_whole_async"]

LARGEST: Final = 32 << 20
"""Bytes of a body, decoded. Kalshi's longest lists have some 3 MB."""

LONGEST_S: Final = 60.0
"""Seconds from the request to the end of the answer."""

_ABOUT_CODING: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class AnswerTooLargeError(httpx2.DecodingError):
    """The body is larger than any of Kalshi's, decoded."""


def read_whole(response: httpx2.Response, began: float) -> httpx2.Response:
    """Return an answer with its body, decoded; the stream is closed.

    Args:
        response: As it comes from ``send(stream=True)``.
        began: When the request was sent, on the monotonic clock.

    Raises:
        AnswerTooLargeError: If the body is larger than ``LARGEST``.
        ReadTimeout: If it takes longer than ``LONGEST_S`` in all.
        HTTPError: Whatever else httpx2 raises.
    """
    with_limits = _Body(response, began)
    try:
        for chunk in response.iter_bytes():
            with_limits.add(chunk)
    finally:
        response.close()
    return with_limits.answer()


async def read_whole_async(response: httpx2.Response, began: float) -> httpx2.Response:
    """Do as ``read_whole`` does."""
    with_limits = _Body(response, began)
    try:
        async for chunk in response.aiter_bytes():
            with_limits.add(chunk)
    finally:
        await response.aclose()
    return with_limits.answer()


class _Body:
    def __init__(self, response: httpx2.Response, began: float) -> None:
        self._response = response
        self._began = began
        self._content = bytearray()

    def add(self, chunk: bytes) -> None:
        self._content += chunk
        if len(self._content) > LARGEST:
            raise AnswerTooLargeError(f"larger than {LARGEST >> 20} MiB", request=self._response.request)
        if time.monotonic() > self._began + LONGEST_S:
            raise httpx2.ReadTimeout(f"longer than {LONGEST_S:.0f} s", request=self._response.request)

    def answer(self) -> httpx2.Response:
        response = self._response
        answer = httpx2.Response(
            response.status_code,
            headers=_without(response.headers.multi_items(), _ABOUT_CODING),
            content=bytes(self._content),
            request=response.request,
            extensions=response.extensions,
        )
        answer.elapsed = timedelta(seconds=time.monotonic() - self._began)
        return answer


def _without(headers: Iterable[tuple[str, str]], names: frozenset[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in names]
