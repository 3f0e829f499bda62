"""The way to Kalshi: through which proxy of the network, and why Kalshi wasn't reached."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["network_proxy", "reason_of"]

_REASONS: Final[Mapping[type[BaseException], str]] = {
    aiohttp.ClientConnectorDNSError: "its name can't be resolved",
    aiohttp.ClientConnectorCertificateError: "TLS: its certificate isn't trusted",
    aiohttp.ClientSSLError: "TLS: the handshake failed",
    aiohttp.ClientProxyConnectionError: "the network's proxy can't be reached",
    aiohttp.ClientHttpProxyError: "the network's proxy refuses the connection",
    aiohttp.ConnectionTimeoutError: "the connection wasn't open in time",
    TimeoutError: "no answer in time",
    aiohttp.ServerDisconnectedError: "the connection was closed",
    aiohttp.ClientPayloadError: "the answer was cut off",
    aiohttp.ClientResponseError: "the answer isn't HTTP",
}
"""The more special ones come first."""


def network_proxy(url: str) -> URL | None:
    """Return the proxy that ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` name for a URL.

    A plain connection has none: it is to this machine, and a proxy would read the signature.

    Raises:
        UsageError: If it is none that can be used.
    """
    parts = URL(url)
    if parts.scheme not in {"https", "wss"} or proxy_bypass(parts.host or ""):
        return None
    named = getproxies()
    address = named.get("https") or named.get("all")
    if not address:
        return None
    kind = address.partition("://")[0].lower() if "://" in address else "http"
    if kind not in {"http", "https"}:
        raise UsageError(
            "HTTPS_PROXY or ALL_PROXY names a proxy that isn't spoken to over HTTP",
            hint="give an http:// proxy, or let NO_PROXY name Kalshi's hosts",
        )
    return URL(address if "://" in address else f"http://{address}")


def reason_of(error: BaseException) -> str:
    """Return in a few words why Kalshi wasn't reached, or didn't answer."""
    for kind, words in _REASONS.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return "the connection failed"
