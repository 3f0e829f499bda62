"""What Kalshi's refusals mean: one class a status, read from all the shapes that Kalshi sends.

::

    KalshiError                     6
    └── RefusedError                any status below 500 that isn't a success
        ├── BadRequestError         400
        ├── UnauthorizedError       401: key id, signature or header
        │   └── ClockError          401: the timestamp
        ├── ForbiddenError          403: scope, subaccount, location
        │   └── TierError           403 to POST /api_keys: the account's usage level
        ├── NotFoundError           404
        ├── ConflictError           409
        └── RateLimitError          429
    NetworkError                    7
    ├── ServerError                 5xx to a request that changes nothing
    └── OutcomeUnknownError
        └── ServerOutcomeError      5xx to any other

Each carries ``status``, and ``kalshi_code`` and ``details`` as Kalshi sent them (empty where it sent none).
What a server says is shown without control characters, private keys and signatures.
"""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import HsmKeysError, KalshiError, NetworkError, OutcomeUnknownError
from hsm_keys.signing.signer import TIMESTAMP_HEADER

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "BadRequestError",
    "ClockError",
    "ConflictError",
    "ForbiddenError",
    "NotFoundError",
    "RateLimitError",
    "RefusedError",
    "ServerError",
    "ServerOutcomeError",
    "TierError",
    "UnauthorizedError",
    "clean",
    "error_of",
    "garbled",
]

_MAX_TEXT: Final = 300
# A server in trouble may send back what it was sent, or what it was about to send: a PEM, a signature (base64
# of 64 bytes and more). Ids and tickers are shorter, or hold a "-".
_SECRET: Final = re.compile(r"-----BEGIN.*?(?:-----END[^-]*-----|$)|[A-Za-z0-9+/]{40,}={0,2}", re.DOTALL)


class _AnsweredError(HsmKeysError):
    """Kalshi answered, and not with success.

    Attributes:
        status: The HTTP status.
        kalshi_code: Kalshi's own code, such as ``authentication_error``; empty if it sent none.
        details: What Kalshi adds to it; empty if nothing.
    """

    status: int = 0
    kalshi_code: str = ""
    details: str = ""


class RefusedError(_AnsweredError, KalshiError):
    """Kalshi refused the request, so that it wasn't carried out."""


class BadRequestError(RefusedError):
    """400: Kalshi doesn't take the request as it is."""

    code = "kalshi_bad_request"


class UnauthorizedError(RefusedError):
    """401: key id, signature or a header is wrong."""

    code = "kalshi_unauthorized"


class ClockError(UnauthorizedError):
    """401: the timestamp is too far from Kalshi's clock."""

    code = "kalshi_clock"


class ForbiddenError(RefusedError):
    """403: the key is known and may not do this."""

    code = "kalshi_forbidden"


class TierError(ForbiddenError):
    """403: the account's usage level doesn't allow keys to be registered by API."""

    code = "kalshi_tier"


class NotFoundError(RefusedError):
    """404: there is no such thing."""

    code = "kalshi_not_found"


class ConflictError(RefusedError):
    """409: what the key is to be bound to isn't visible yet."""

    code = "kalshi_conflict"


class RateLimitError(RefusedError):
    """429: too many requests."""

    code = "kalshi_rate_limit"


class ServerError(_AnsweredError, NetworkError):
    """5xx to a request that changes nothing."""

    code = "kalshi_server"


class ServerOutcomeError(_AnsweredError, OutcomeUnknownError):
    """5xx to a request that changes something: it may have been carried out."""


def clean(text: str, limit: int = _MAX_TEXT) -> str:
    """Return a server's text fit for a terminal: one line, no control characters, no secrets, not too long."""
    shown = _SECRET.sub("[hidden]", text)
    line = " ".join("".join(char if char.isprintable() else " " for char in shown).split())
    return line if len(line) <= limit else line[:limit] + "..."


def _told(response: httpx2.Response) -> tuple[str, str, str]:
    """Return code, message and details, from whichever shape the body has."""
    body = read_json(response)
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    if not isinstance(body, dict):
        # UTF-8 whatever the Content-Type says: a charset of somebody's choosing is a codec of their choosing.
        return "", clean(response.content.decode(errors="replace")), ""
    message = body.get("message") or body.get("msg") or body.get("error") or ""
    return clean(_text(body.get("code"))), clean(_text(message)), clean(_text(body.get("details")))


def read_json(response: httpx2.Response) -> Any:
    """Return the JSON of the body; None if it is no JSON."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def _text(part: Any) -> str:
    return "" if part is None else part if isinstance(part, str) else json.dumps(part)


def error_of(response: httpx2.Response) -> _AnsweredError:
    """Return the error that an answer other than 2xx stands for; the message names the request, not its headers."""
    code, message, details = _told(response)
    error = _error(response, code, message, details)
    error.status, error.kalshi_code, error.details = response.status_code, code, details
    return error


def _error(response: httpx2.Response, code: str, message: str, details: str) -> _AnsweredError:
    request = response.request
    said = " ".join(part for part in (f"{code}:" if code and message else code, message, f"[{details}]") if part)
    said = said.removesuffix("[]").strip()
    what = f"Kalshi answered {response.status_code} to {request.method} {request.url.path}"
    sentence = f"{what}: {said}" if said else what
    if response.status_code >= 500:  # noqa: PLR2004 - the class of the status, RFC 9110, section 15.6
        if request.method == "GET":
            return ServerError(sentence, hint="Kalshi is in trouble; try again later")
        return ServerOutcomeError(sentence, hint="it may have been carried out: look before you do it again")
    return _refusal(response, sentence, f"{code} {message} {details}".lower())


_REFUSALS: Final[dict[int, tuple[type[RefusedError], str]]] = {
    400: (BadRequestError, "see what Kalshi says is wrong with the request"),
    404: (NotFoundError, "check the id or the path, and the environment (prod or demo)"),
    409: (ConflictError, "it isn't visible everywhere yet: try again in a moment"),
    429: (RateLimitError, "wait a second; the account's usage level sets the limit"),
}


def _refusal(response: httpx2.Response, sentence: str, said: str) -> RefusedError:
    if response.status_code == 401:  # noqa: PLR2004 - Unauthorized
        return _unauthorized(response, sentence, said)
    if response.status_code == 403:  # noqa: PLR2004 - Forbidden
        return _forbidden(response, sentence, said)
    kind, hint = _REFUSALS.get(
        response.status_code, (RefusedError, "this status is not one that Kalshi documents here")
    )
    return kind(sentence, hint=hint)


def _unauthorized(response: httpx2.Response, sentence: str, said: str) -> UnauthorizedError:
    if "timestamp" in said and "missing" not in said:
        return ClockError(sentence + _skew(response), hint="set this machine's clock (NTP); Kalshi allows some seconds")
    if "not_found" in said or "not found" in said:
        return UnauthorizedError(
            sentence,
            hint="Kalshi doesn't know this API key id: it was deleted, or belongs to the other environment "
            "(prod or demo); see KALSHI_KEY_ID, KALSHI_DEMO and KALSHI_API_BASE_URL",
        )
    if "missing" in said:
        return UnauthorizedError(sentence, hint="a proxy on the way may strip the KALSHI-ACCESS headers")
    if "signature" in said:
        return UnauthorizedError(
            sentence,
            hint="the signature doesn't belong to this API key id: check that key and id are a pair, and that no "
            "proxy rewrites the path" + _skew(response),
        )
    return UnauthorizedError(
        sentence,
        hint="Kalshi doesn't say which part is wrong: check the API key id, the environment (prod or demo), that "
        "key and id are a pair, and the clock" + _skew(response),
    )


def _skew(response: httpx2.Response) -> str:
    """Return how far the signed timestamp is from the answer's Date, if that is more than the transit."""
    stamp = response.request.headers.get(TIMESTAMP_HEADER, "")
    try:
        server_ms = parsedate_to_datetime(response.headers["Date"]).timestamp() * 1000
        behind = (server_ms - int(stamp)) / 1000
    except (KeyError, TypeError, ValueError):
        return ""
    if abs(behind) < 2:  # noqa: PLR2004 - seconds; Date has a resolution of one
        return ""
    return f"; this clock is about {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} Kalshi's"


def _forbidden(response: httpx2.Response, sentence: str, said: str) -> ForbiddenError:
    request = response.request
    about_other = any(word in said for word in ("fcm", "scope", "subaccount", "attestation", "location", "region"))
    if request.method == "POST" and request.url.path.endswith("/api_keys") and not about_other:
        return TierError(sentence, hint="registering keys by API needs the usage level Premier or Market Maker")
    return ForbiddenError(
        sentence,
        hint="the key lacks a scope for this, is bound to a subaccount, or the account's location attestation lapsed",
    )


def garbled(response: httpx2.Response, why: str) -> HsmKeysError:
    """Return the error for an answer of success whose body isn't what was promised; the body isn't repeated."""
    request = response.request
    sentence = f"Kalshi's answer {response.status_code} to {request.method} {request.url.path} {why}"
    if request.method == "GET":
        return NetworkError(sentence, hint="something on the way may have changed it: check the base URL")
    return OutcomeUnknownError(sentence, hint="it was probably carried out: look before you do it again")
