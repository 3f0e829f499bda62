"""What Kalshi signs: timestamp, method and path, nothing else. Pure functions.

The message is ``<timestamp in milliseconds><METHOD><path>``, where the path carries its
``/trade-api/v2`` prefix and no query. The host and the body are not part of it.

Kalshi doesn't say whether it folds trailing slashes and the case of percent-escapes before it verifies.
So this module has one canonical form, and the clients of this package send exactly the form they sign:
whichever rule the server follows, both sides see the same bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from hsm_keys.errors import UsageError
from hsm_keys.values import describe, shown_path

__all__ = [
    "MARGIN_WEBSOCKET_PATH",
    "REST_PREFIX",
    "WEBSOCKET_PATH",
    "canonical_method",
    "canonical_path",
    "signing_message",
]

REST_PREFIX: Final = "/trade-api/v2"
WEBSOCKET_PATH: Final = "/trade-api/ws/v2"
MARGIN_WEBSOCKET_PATH: Final = "/trade-api/ws/v2/margin"

_METHOD = re.compile(r"[A-Za-z]{1,20}")
# RFC 3986, section 3.3: an absolute path of pchars; a stray "%" is not one.
_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


@lru_cache(maxsize=64)
def canonical_method(method: str) -> str:
    """Return the method in upper case.

    Raises:
        UsageError: If it isn't an HTTP method (letters only).
    """
    if not _METHOD.fullmatch(method):
        raise UsageError(f"{describe(method)} is not an HTTP method", hint="use GET, POST, PUT or DELETE")
    return method.upper()


@lru_cache(maxsize=4096)
def canonical_path(path: str) -> str:
    """Return the path as it is signed and sent: no query, no trailing slash, ``%xx`` in upper case.

    Raises:
        UsageError: If the path isn't absolute, or holds a character that a path on the wire can't hold
            (RFC 3986, section 3.3): a space, CR, LF, a fragment, a broken percent-escape. Or if it has a segment
            of dots alone, which clients and servers remove on its way (section 5.2.4).
    """
    bare = path.partition("?")[0]
    if not _PATH.fullmatch(bare):
        raise UsageError(
            f"{shown_path(path)} is not a path that can be signed",
            hint=f"give the absolute, percent-encoded path, such as {REST_PREFIX}/portfolio/balance",
        )
    if "%" in bare:
        bare = _ESCAPE.sub(lambda escape: escape[0].upper(), bare)
    if "/." in bare or "%2E" in bare:
        _refuse_dots(path, bare)
    return bare.rstrip("/") or "/"


def _refuse_dots(path: str, bare: str) -> None:
    if any(segment.replace("%2E", ".") in {".", ".."} for segment in bare.split("/")):
        raise UsageError(f"clients and servers rewrite {shown_path(path)}", hint="leave '.' and '..' out of the path")


def signing_message(timestamp_ms: int, method: str, path: str) -> bytes:
    """Return the bytes that Kalshi verifies.

    Args:
        timestamp_ms: Unix time in milliseconds.
        method: HTTP method, in any case.
        path: Absolute path with its ``/trade-api/...`` prefix; a query is dropped.

    Raises:
        UsageError: If one of them can't be signed.
    """
    if timestamp_ms < 0:
        raise UsageError(f"{timestamp_ms} is not a Unix time in milliseconds", hint="give a whole number, 0 or more")
    return f"{timestamp_ms}{canonical_method(method)}{canonical_path(path)}".encode("ascii")
