"""Calls, answers, and errors in the shapes in which Kalshi sends them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multidict import MultiMapping

    from hsm_keys.sandbox.state import SandboxKey, SandboxState

__all__ = ["Call", "SandboxAnswer", "WireError", "flat", "json_object", "nested", "of_status"]


@dataclass(frozen=True, slots=True)
class SandboxAnswer:
    """A status and a JSON body; None for no body."""

    status: int
    body: object = None


@dataclass(frozen=True, slots=True)
class Call:
    """A request that passed authentication (``key`` is None on public endpoints) and authorisation."""

    state: SandboxState
    now_ms: int
    key: SandboxKey | None
    path: Mapping[str, str]
    query: MultiMapping[str]
    content_type: str
    body: bytes

    def json_object(self) -> dict[str, Any]:
        """Return the JSON object in the body.

        Raises:
            WireError: 400, if there is none.
        """
        if self.content_type != "application/json":
            # Seen on Kalshi's wire for a POST without a JSON content type.
            raise flat(400, "invalid_content_type", "the Content-Type must be application/json")
        return json_object(self.body)


def json_object(body: bytes) -> dict[str, Any]:
    """Read one JSON object (RFC 8259).

    Raises:
        WireError: 400, if the body is anything else.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _bare(400, "the body is not valid JSON") from None
    if not isinstance(value, dict):
        raise _bare(400, "the body must be a JSON object")
    return value


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON (RFC 8259)")


class WireError(Exception):
    """An answer that refuses.

    Args:
        status: The HTTP status.
        body: The JSON body.
        reason: One word for the records of what reached the server.
    """

    def __init__(self, status: int, body: Mapping[str, object], reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.body = body
        self.reason = reason

    @property
    def answer(self) -> SandboxAnswer:
        """What is sent."""
        return SandboxAnswer(self.status, self.body)


def nested(
    status: int, code: str, message: str, *, details: str | None = None, service: str | None = None
) -> WireError:
    """Return an error as the gateway sends it: ``{"error": {"code", "message", "details", "service"}}``."""
    error = {"code": code, "message": message}
    if details is not None:
        error["details"] = details
    if service is not None:
        error["service"] = service
    return WireError(status, {"error": error}, details or code)


def flat(status: int, code: str, message: str) -> WireError:
    """Return an error as the OpenAPI documents it: ``{"code", "message"}``."""
    return WireError(status, {"code": code, "message": message}, code)


def _bare(status: int, message: str) -> WireError:
    """Return an error in the third shape, ``{"msg"}``."""
    return WireError(status, {"msg": message}, "malformed")


_AUTH_STATUSES: Final = {401: "authentication_error", 403: "forbidden"}


def of_status(status: int) -> WireError:
    """Return an error for a status alone, in the shape that Kalshi uses for it."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return WireError(429, {"error": "too many requests"}, "too_many_requests")  # Kalshi sends no Retry-After
    try:
        phrase = HTTPStatus(status).phrase.lower()
    except ValueError:
        phrase = f"status {status}"
    if status in _AUTH_STATUSES:
        return nested(status, _AUTH_STATUSES[status], phrase)
    code = phrase.replace(" ", "_").replace("-", "_")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return nested(status, code, phrase, service="sandbox")
    return flat(status, code, phrase)
