"""Bodies of answers: reads them, cleans them for messages, and tells Kalshi's errors from a gateway's or a proxy's.

Kalshi's errors are JSON objects of one of these forms (``details`` and ``service`` may be left out)::

    {"error": {"code": "...", "message": "...", "details": "...", "service": "..."}}
    {"code": "...", "message": "...", "details": "..."}
    {"msg": "..."}
    {"error": "too many requests"}

Any other body, even an empty one, is from something between here and Kalshi: a CDN, a proxy, a login page, another
server. Such an answer says nothing about a key or an account.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "OUR_PROXY",
    "Said",
    "clean",
    "is_html",
    "json_in",
    "read_json",
    "said_by_kalshi",
    "sender_of",
    "shown_body",
]

OUR_PROXY: Final = "hsm-keys proxy"
"""The service that errors of our own signing proxy name: they have Kalshi's form, and aren't Kalshi's words."""

_MAX_TEXT: Final = 300
_MAX_TITLE: Final = 120
_TAGS: Final = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)
# A server in trouble may send back what it was sent, or what it was about to send: a PEM, a signature (base64
# of 64 bytes and more). Ids and tickers are shorter, or hold a "-".
_SECRET: Final = re.compile(r"-----BEGIN.*?(?:-----END[^-]*-----|$)|[A-Za-z0-9+/]{40,}={0,2}", re.DOTALL)
_HTML: Final = re.compile(r"\s*<(?:!doctype html|html|head|body|title|h1)\b", re.IGNORECASE)
_TITLE: Final = re.compile(r"<(title|h1)\b[^>]*>(.{1,2000}?)</\1", re.IGNORECASE | re.DOTALL)


class Said(NamedTuple):
    """What Kalshi says of an error; empty where it says nothing."""

    code: str
    message: str
    details: str


def clean(text: str, limit: int = _MAX_TEXT) -> str:
    """Return a server's text fit for a terminal: one line, no control characters, no secrets, not too long."""
    shown = _SECRET.sub("[hidden]", text)
    line = " ".join("".join(char if char.isprintable() else " " for char in shown).split())
    return line if len(line) <= limit else line[:limit] + "..."


def read_json(response: httpx2.Response) -> Any:
    """Return the JSON of the body; None if it is no JSON."""
    return json_in(response.content)


def json_in(content: bytes) -> Any:
    """Return the JSON that a body holds; None if it is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def said_by_kalshi(response: httpx2.Response) -> Said | None:
    """Return what an error of Kalshi's says; None if the body has none of the forms of Kalshi's errors."""
    body = read_json(response)
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, str) and len(body) == 1:
        return Said("", clean(error), "")
    part = error if isinstance(error, dict) else body
    code, message = part.get("code") or "", part.get("message") or part.get("msg") or ""
    # {"message": "Forbidden"} alone is what AWS's gateways send; Google's codes are numbers.
    has_form = code or (message and (part is error or "msg" in part))
    if not (has_form and isinstance(code, str) and isinstance(message, str)) or part.get("service") == OUR_PROXY:
        return None
    return Said(clean(code), clean(message), _details(part))


def _details(part: dict[str, Any]) -> str:
    details = part.get("details")
    if not details:
        return ""
    return clean(details if isinstance(details, str) else json.dumps(details))


def sender_of(response: httpx2.Response) -> str:
    """Return what an answer calls the server that sent it, such as ``CloudFront``; empty if nothing."""
    body = read_json(response)
    if isinstance(body, dict) and isinstance(body.get("error"), dict) and body["error"].get("service") == OUR_PROXY:
        return OUR_PROXY
    for header in ("Server", "Via"):
        name = clean(response.headers.get(header, ""), 60)
        if name:
            return name
    return ""


def is_html(response: httpx2.Response) -> bool:
    """Tell whether the body is a page for people: Kalshi's API sends none."""
    return _HTML.match(_text(response)) is not None


def _text(response: httpx2.Response) -> str:
    # Always UTF-8: with the Content-Type's charset, the sender would choose which codec runs here.
    return response.content.decode(errors="replace")


def shown_body(response: httpx2.Response) -> str:
    """Return what a body is, and what it says, in words for people: a page's title, the beginning of a text."""
    if response.has_redirect_location:
        return f"a redirect to {clean(response.headers['Location'].partition('?')[0], _MAX_TITLE)}"
    text = _text(response)
    if not text.strip():
        return "an empty body"
    if is_html(response):
        title = _TITLE.search(text)
        words = clean(html.unescape(_TAGS.sub(" ", title[2] if title else text)), _MAX_TITLE)
        return f"an HTML page, {words}" if words else "an HTML page"
    kind = "text" if read_json(response) is None else "JSON in another form than Kalshi's"
    return f"{kind}: {clean(text)}"
