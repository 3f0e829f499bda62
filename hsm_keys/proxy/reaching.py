"""How the proxy reaches Kalshi: through which network proxy, and why Kalshi wasn't reached."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from hsm_keys import network_proxies
from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NotHttpError", "network_proxy", "reason_of"]


class NotHttpError(aiohttp.ClientError):
    """Kalshi's answer isn't HTTP that can be read in one way."""


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
    NotHttpError: "the answer isn't HTTP",
    aiohttp.ClientResponseError: "the answer isn't HTTP",
}
"""The more special ones come first."""


def network_proxy(url: str) -> URL | None:
    """Return the network's proxy on the way to a URL, as all of this program reads the environment.

    Raises:
        UsageError: If it is none that can be used: this one has to speak HTTP.
    """
    proxy = network_proxies.network_proxy(url)
    if proxy is None:
        return None
    if proxy.speaks_socks:
        raise UsageError(
            f"{proxy.variable} names a proxy that isn't an HTTP proxy",
            hint="give an http:// proxy, or let NO_PROXY name Kalshi's hosts",
        )
    return URL(proxy.url.reveal())


def reason_of(error: BaseException) -> str:
    """Return in a few words why Kalshi wasn't reached, or didn't answer."""
    for kind, words in _REASONS.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return "the connection failed"
