"""Answers to clients: their content, and their bytes (RFC 9112)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ClientGoneError", "Reply", "error_body", "head_bytes", "refusal"]

_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(slots=True)
class Reply:
    """An answer.

    Args:
        status: Its status.
        reason: The words behind the status; empty for the standard's.
        headers: Its headers, but for those of this one connection.
        body: Its body.
        is_sent: Whether it has gone out already.
    """

    status: int
    reason: str = ""
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    body: bytes = b""
    is_sent: bool = False

    def to_bytes(self, *, closes: bool, without_body: bool = False) -> bytes:
        """Return it as it goes over the wire.

        Args:
            closes: Whether the connection is closed behind it.
            without_body: Whether it answers HEAD.
        """
        headers = self.headers
        if self.status not in _WITHOUT_BODY:
            headers["Content-Length"] = str(len(self.body))
        elif self.status == HTTPStatus.NO_CONTENT:
            headers.popall("Content-Length", None)
        if closes:
            headers["Connection"] = "close"
        head = head_bytes(self.status, self.reason, headers)
        return head if without_body or self.status in _WITHOUT_BODY else head + self.body


def head_bytes(status: int, reason: str, headers: Mapping[str, str]) -> bytes:
    """Return the head of an answer.

    Args:
        status: Its status.
        reason: The words behind the status; empty for the standard's.
        headers: Its headers.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"HTTP/1.1 {status} {reason or _phrase(status)}\r\n{lines}\r\n".encode("utf-8", "surrogateescape")


def error_body(reason: str, message: str) -> dict[str, dict[str, str]]:
    """Return an error of the proxy's own, in the shape of Kalshi's."""
    return {"error": {"code": reason, "message": message, "service": "hsm-keys proxy"}}


def refusal(status: int, reason: str, message: str, *, retry_after: int = 0) -> Reply:
    """Return an answer of the proxy's own.

    Args:
        status: The HTTP status.
        reason: A stable word.
        message: What the client is told.
        retry_after: Seconds after which it may try again; 0 for none.
    """
    headers = CIMultiDict({"Content-Type": "application/json; charset=utf-8"})
    if retry_after:
        headers["Retry-After"] = str(retry_after)
    return Reply(status, headers=headers, body=json.dumps(error_body(reason, message)).encode())


@lru_cache(maxsize=128)
def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
