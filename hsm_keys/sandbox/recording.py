"""The requests that reached the server, for assertions in tests, without signatures and bodies."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["RecordedRequest", "Recorder"]

_KEEP: Final = 10_000
_TIMESTAMP: Final = re.compile(r"[0-9]{1,19}")
_API_KEY_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(slots=True)
class RecordedRequest:
    """One request, as it came over the wire.

    Attributes:
        method: The method.
        path: The path with its percent-escapes as sent, without the query.
        query: The query as sent, without the question mark.
        api_key_id: The KALSHI-ACCESS-KEY header, if a UUID; anything else may be a secret in the wrong place.
        timestamp: The KALSHI-ACCESS-TIMESTAMP header, if decimal.
        verified: Whether the signature was looked at and found good.
        refusal: Why not (one word); None if it is good, or if the endpoint is public.
        fault: The fault that hit the request, latencies apart.
        status: The status of the answer; None if none was sent, or none yet.
    """

    method: str
    path: str
    query: str
    api_key_id: str | None
    timestamp: str | None
    verified: bool = False
    refusal: str | None = None
    fault: str | None = None
    status: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


class Recorder:
    """Keeps the last ten thousand requests."""

    def __init__(self) -> None:
        self._requests: deque[RecordedRequest] = deque(maxlen=_KEEP)

    def record(
        self, method: str, path: str, query: str, api_key_id: str | None, timestamp: str | None
    ) -> RecordedRequest:
        """Keep a request that has just arrived; what becomes of it is filled in later."""
        request = RecordedRequest(
            method,
            path,
            query,
            api_key_id if api_key_id and _API_KEY_ID.fullmatch(api_key_id) else None,
            timestamp if timestamp and _TIMESTAMP.fullmatch(timestamp) else None,
        )
        self._requests.append(request)
        return request

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """The requests in the order of their arrival."""
        return tuple(self._requests)
