"""Errors for answers other than 2xx: one class for each status, and two for answers that aren't Kalshi's.

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
        ├── GoneError               410: the route was switched off
        └── RateLimitError          429
    NetworkError                    7
    ├── ServerError                 5xx to a request that changes nothing
    ├── NotKalshiError              below 500, and not in Kalshi's words: a CDN, a proxy or a login page answered
    │   └── NotKalshiOutcomeError   the same to a request that changes something
    └── OutcomeUnknownError
        ├── ServerOutcomeError      5xx to a request that changes something
        └── NotKalshiOutcomeError

Each has ``status``, ``from_kalshi``, and ``kalshi_code`` and ``details`` as Kalshi sent them (empty if it sent
none). ``from_kalshi`` tells whether the body has a form of Kalshi's errors (``hsm_keys.kalshi.bodies`` lists them): an
answer without such a body proves nothing about a key, an account or a request.
Text from a server is shown without control characters, private keys and signatures.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import HsmKeysError, KalshiError, NetworkError, OutcomeUnknownError
from hsm_keys.kalshi.bodies import Said, is_html, said_by_kalshi, sender_of, shown_body
from hsm_keys.kalshi.operations import find_operation
from hsm_keys.signing.headers import TIMESTAMP_HEADER
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "BadRequestError",
    "ClockError",
    "ConflictError",
    "ForbiddenError",
    "ForeignListError",
    "GoneError",
    "NotFoundError",
    "NotKalshiError",
    "NotKalshiOutcomeError",
    "RateLimitError",
    "RefusedError",
    "ServerError",
    "ServerOutcomeError",
    "TierError",
    "UnauthorizedError",
    "error_of",
    "garbled",
]

_SAFE: Final = frozenset({"GET", "HEAD"})


class _AnsweredError(HsmKeysError):
    """There was an answer, and no success.

    Attributes:
        status: The HTTP status.
        from_kalshi: Whether the answer has a form of Kalshi's errors.
        kalshi_code: Kalshi's own code, such as ``authentication_error``; empty if it sent none.
        details: What Kalshi adds to it; empty if nothing.
    """

    status: int = 0
    from_kalshi: bool = False
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


class GoneError(RefusedError):
    """410: Kalshi has switched this route off."""

    code = "kalshi_gone"


class RateLimitError(RefusedError):
    """429: too many requests."""

    code = "kalshi_rate_limit"


class ServerError(_AnsweredError, NetworkError):
    """5xx to a request that changes nothing."""

    code = "kalshi_server"


class ServerOutcomeError(_AnsweredError, OutcomeUnknownError):
    """5xx to a request that changes something: it may have been carried out."""


class NotKalshiError(_AnsweredError, NetworkError):
    """Something on the way answered in Kalshi's place; the request changes nothing."""

    code = "not_kalshi"


class ForeignListError(NotKalshiError):
    """A list of API keys can't be that of the account which asked for it: it leaves out the key that signed."""


class NotKalshiOutcomeError(NotKalshiError, OutcomeUnknownError):
    """Something on the way answered a request that changes something: it may have been carried out."""

    code = OutcomeUnknownError.code


def error_of(response: httpx2.Response) -> _AnsweredError:
    """Return the error that an answer other than 2xx stands for; the message names the request, not its headers."""
    words = said_by_kalshi(response)
    error = _foreign(response) if words is None else _in_kalshis_words(response, words)
    error.status, error.from_kalshi = response.status_code, words is not None
    if words is not None:
        error.kalshi_code, error.details = words.code, words.details
    return error


def _in_kalshis_words(response: httpx2.Response, said: Said) -> _AnsweredError:
    words = f"{said.code}: {said.message}" if said.code and said.message else said.code or said.message
    words = f"{words} [{said.details}]" if said.details else words
    request = response.request
    sentence = f"Kalshi answered {response.status_code} to {request.method} {shown_path(request.url.path)}"
    sentence = f"{sentence}: {words}" if words else sentence
    if _is_server_error(response):
        return _server_error(response, sentence, "Kalshi failed; try again later")
    return _refusal(response, sentence, " ".join(said).lower())


def _is_server_error(response: httpx2.Response) -> bool:
    return response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR


def _server_error(response: httpx2.Response, sentence: str, hint: str) -> _AnsweredError:
    if response.request.method in _SAFE:
        return ServerError(sentence, hint=hint)
    return ServerOutcomeError(
        sentence, hint="the request may have been carried out: look at Kalshi whether it was, before you send it again"
    )


def _foreign(response: httpx2.Response) -> _AnsweredError:
    """Return the error for an answer that isn't in Kalshi's words: it says who answered, and what."""
    request = response.request
    sender = sender_of(response)
    by = f"{sender} answered with" if sender else "what answered sent"
    what = f"{response.status_code} to {request.method} {shown_path(request.url.path)}"
    sentence = f"the answer {what} isn't in Kalshi's words: {by} {shown_body(response)}"
    if request.method == "HEAD" and not _is_server_error(response):  # has no body by definition: the status must do
        return _refusal(response, f"the answer is {what}", "")
    if _is_server_error(response):
        return _server_error(response, sentence, "Kalshi, or a server in front of it, failed; try again later")
    return _not_kalshi(response, sentence, _way_on(response.status_code, sender))


def _not_kalshi(response: httpx2.Response, sentence: str, hint: str) -> NotKalshiError:
    if response.request.method in _SAFE:
        return NotKalshiError(sentence, hint=hint)
    return NotKalshiOutcomeError(
        f"{sentence}; the request may have been carried out",
        hint=f"{hint}; look at Kalshi whether it was, before you send it again",
    )


def _way_on(status: int, sender: str) -> str:
    """Return what to do about an answer of something that stands between here and Kalshi."""
    if status == HTTPStatus.FORBIDDEN and "cloudfront" in sender.lower():
        return (
            "CloudFront, in front of Kalshi, blocks addresses, countries and unusual requests: try another "
            "network, without a VPN; Kalshi didn't check the key and the account"
        )
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return "the proxy wants a user name and password: write them into HTTPS_PROXY"
    return (
        "a proxy, firewall or login page may have answered, or the server isn't Kalshi's: check HTTPS_PROXY "
        "and the base URL (KALSHI_API_BASE_URL, --base-url)"
    )


_REFUSALS: Final[dict[int, tuple[type[RefusedError], str]]] = {
    HTTPStatus.BAD_REQUEST: (BadRequestError, "see what Kalshi says is wrong with the request"),
    HTTPStatus.NOT_FOUND: (NotFoundError, "check the id or the path, and the environment (prod or demo)"),
    HTTPStatus.CONFLICT: (
        ConflictError,
        "the change before it may not be visible everywhere yet: try again in a moment",
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (RateLimitError, "wait a second; the account's usage level sets the limit"),
}


def _refusal(response: httpx2.Response, sentence: str, words: str) -> RefusedError:
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        return _unauthorized(response, sentence, words)
    if response.status_code == HTTPStatus.FORBIDDEN:
        return _forbidden(response, sentence, words)
    if response.status_code == HTTPStatus.GONE:
        return GoneError(sentence, hint=_successor(response.request.method, response.request.url.path))
    kind, hint = _REFUSALS.get(
        response.status_code, (RefusedError, "Kalshi doesn't document this status here: see what its answer says")
    )
    return kind(sentence, hint=hint)


_V2_ORDER: Final = (
    " with ticker, side (bid or ask, of the YES leg), count, price (dollars, of the YES leg), time_in_force and "
    "self_trade_prevention_type"
)


def _successor(method: str, path: str) -> str:
    """Return what to send in place of a route that was switched off."""
    operation = find_operation(method, path)
    instead = operation.replaced(path)
    if instead is None:
        return "Kalshi has switched this route off: its API changelog names the one to use"
    fields = _V2_ORDER if operation.name == "POST /portfolio/orders" else ""
    return f"Kalshi switched V1 orders off in June 2026: send {method} {instead}{fields}"


def _unauthorized(response: httpx2.Response, sentence: str, words: str) -> UnauthorizedError:
    if "timestamp" in words and "missing" not in words:
        return ClockError(sentence + _skew(response), hint="set this machine's clock (NTP); Kalshi allows some seconds")
    if "not_found" in words or "not found" in words:
        return UnauthorizedError(
            sentence,
            hint="Kalshi doesn't know this API key id: it was deleted, or belongs to the other environment "
            "(prod or demo); see KALSHI_KEY_ID, KALSHI_DEMO and KALSHI_API_BASE_URL",
        )
    if "missing" in words:
        return UnauthorizedError(sentence, hint="a proxy on the way may strip the KALSHI-ACCESS headers")
    if "signature" in words:
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


def _forbidden(response: httpx2.Response, sentence: str, words: str) -> ForbiddenError:
    request = response.request
    about_other = any(word in words for word in ("fcm", "scope", "subaccount", "attestation", "location", "region"))
    if request.method == "POST" and request.url.path.endswith("/api_keys") and not about_other:
        return TierError(sentence, hint="registering keys by API needs the usage level Premier or Market Maker")
    return ForbiddenError(
        sentence,
        hint="the key lacks a scope for this, is bound to a subaccount, or the account's location attestation lapsed",
    )


def garbled(response: httpx2.Response, why: str) -> HsmKeysError:
    """Return the error for a 2xx answer with a body that Kalshi's API doesn't document.

    Only a page's title is repeated: anything else may hold the private key that Kalshi generates.
    """
    if is_html(response):
        error = _foreign(response)
        error.status = response.status_code
        return error
    request = response.request
    sentence = f"Kalshi's answer {response.status_code} to {request.method} {shown_path(request.url.path)} {why}"
    if request.method == "GET":
        return NetworkError(sentence, hint="something on the way may have changed it: check the base URL")
    return OutcomeUnknownError(
        sentence, hint="the request was probably carried out: look at Kalshi whether it was, before you send it again"
    )
