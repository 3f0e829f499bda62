"""Reads a whole answer, within limits of size and time: a server in Kalshi's place can't fill the memory or block."""

from __future__ import annotations

import time
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httpx2

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LARGEST", "LONGEST_S", "AnswerTooLargeError", "decode", "read_whole", "read_whole_async"]

LARGEST: Final = 32 << 20
"""Bytes of a body, decoded. Kalshi's longest lists have some 3 MB."""

LONGEST_S: Final = 60.0
"""Seconds from the request to the end of the answer."""

_DECODED_AT_ONCE: Final = 4096
"""Bytes that are decoded at a time: they become a thousand times as many at most."""

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


def decode(body: bytes, coding: str) -> bytes:
    """Return a body that is here already, decoded.

    Args:
        body: As it came.
        coding: Its Content-Encoding.

    Raises:
        AnswerTooLargeError: If it is larger than ``LARGEST`` then.
        DecodingError: If it hasn't that coding.
    """
    pieces = (body[at : at + _DECODED_AT_ONCE] for at in range(0, len(body), _DECODED_AT_ONCE))
    response = httpx2.Response(HTTPStatus.OK, headers={"Content-Encoding": coding}, content=pieces)
    decoded = _Decoded()
    for chunk in response.iter_bytes():
        decoded.add(chunk)
    return bytes(decoded.content)


class _Decoded:
    def __init__(self) -> None:
        self.content = bytearray()

    def add(self, chunk: bytes) -> None:
        self.content += chunk
        if len(self.content) > LARGEST:
            raise AnswerTooLargeError(f"larger than {LARGEST >> 20} MiB")


class _Body(_Decoded):
    def __init__(self, response: httpx2.Response, began: float) -> None:
        super().__init__()
        self._response = response
        self._began = began

    def add(self, chunk: bytes) -> None:
        super().add(chunk)
        if time.monotonic() > self._began + LONGEST_S:
            raise httpx2.ReadTimeout(f"longer than {LONGEST_S:.0f} s", request=self._response.request)

    def answer(self) -> httpx2.Response:
        response = self._response
        answer = httpx2.Response(
            response.status_code,
            headers=_without(response.headers.multi_items(), _ABOUT_CODING),
            content=bytes(self.content),
            request=response.request,
            extensions=response.extensions,
        )
        answer.elapsed = timedelta(seconds=time.monotonic() - self._began)
        return answer


def _without(headers: Iterable[tuple[str, str]], names: frozenset[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in names]
