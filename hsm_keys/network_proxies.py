"""The network's proxies that environment variables name, for connections to Kalshi and to stores across the network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from hsm_keys.errors import UsageError
from hsm_keys.values import Secret, describe, may_be_shown

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    import httpx2

__all__ = ["NetworkProxy", "httpx_proxy", "network_proxy"]

_SCHEMES: Final = frozenset({"http", "https", "socks5", "socks5h"})


@dataclass(frozen=True, slots=True)
class NetworkProxy:
    """The network's proxy on the way to a URL.

    Attributes:
        variable: What names it: a variable, or the system's settings.
        scheme: How it is spoken to: ``http``, ``https``, ``socks5`` or ``socks5h``.
        place: Its host and port, for people.
        url: Its URL, which may hold a password.
    """

    variable: str
    scheme: str
    place: str
    url: Secret

    @property
    def speaks_socks(self) -> bool:
        """Whether it is spoken to over SOCKS, and not over HTTP."""
        return self.scheme.startswith("socks")


def network_proxy(url: str) -> NetworkProxy | None:
    """Return the proxy that ``HTTPS_PROXY``, or else ``ALL_PROXY``, names for a URL, unless ``NO_PROXY`` has its host.

    A plain connection has none: it is to this machine, and a proxy would read the signature.

    Raises:
        UsageError: If it is no URL of a proxy.
    """
    parts = urlsplit(url)
    variable, given = _named_proxy()
    if parts.scheme not in {"https", "wss"} or not given or _is_left_out(parts):
        return None
    proxy = _read_proxy(variable, given)
    if proxy is None:
        raise UsageError(
            f"{variable} isn't a proxy's URL: it is {describe(given)}",
            hint="it looks like http://proxy.example:3128, or socks5h://proxy.example:1080",
        )
    return proxy


def _named_proxy() -> tuple[str, Secret]:
    """Return what names a proxy for https, and what it says, in which there may be a password."""
    named = getproxies()  # the lower case of a variable comes first; on macOS and Windows the system's settings last
    name = "https" if named.get("https") else "all"
    variables = (f"{name}_proxy", f"{name}_proxy".upper())
    variable = next((known for known in variables if os.environ.get(known)), "the system's settings")
    return variable, Secret(named.get(name, ""))


def _read_proxy(variable: str, given: Secret) -> NetworkProxy | None:
    import httpx2

    url = Secret(given.reveal() if "://" in given.reveal() else f"http://{given.reveal()}")
    try:
        proxy = httpx2.URL(url.reveal())
    except httpx2.InvalidURL:
        return None
    if proxy.scheme not in _SCHEMES or not proxy.host:
        return None
    host = proxy.host if may_be_shown(proxy.host) else describe(proxy.host)
    return NetworkProxy(variable, proxy.scheme, f"{host}:{proxy.port}" if proxy.port else host, url)


def _is_left_out(parts: SplitResult) -> bool:
    """Tell whether a host is reached directly: ``NO_PROXY`` has ``*``, the host, or a domain that it is in."""
    host = parts.hostname or ""
    entries = [entry.strip().lower() for entry in getproxies().get("no", "").split(",")]
    names = [entry.removesuffix(f":{parts.port or 443}").removeprefix("*").removeprefix(".") for entry in entries]
    listed = any(name and (host == name or host.endswith(f".{name}")) for name in names)
    return "*" in entries or listed or bool(proxy_bypass(host))


def httpx_proxy(url: str) -> httpx2.Proxy | None:
    """Return the proxy for a URL, as httpx2 takes it.

    Raises:
        UsageError: If it is none that can be used, or the library that it takes isn't installed.
    """
    import httpx2

    proxy = network_proxy(url)
    if proxy is None:
        return None
    if proxy.speaks_socks and find_spec("socksio") is None:
        raise UsageError(
            f"{proxy.variable} names a SOCKS proxy, and the library for SOCKS isn't installed",
            hint="pip install 'httpx2[socks]', name an HTTP proxy, or leave the variable out",
        )
    return httpx2.Proxy(proxy.url.reveal())
