"""What the environment says of the way to Kalshi: whom to trust, and through which proxy. Checked before it is used."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from hsm_keys.errors import UsageError
from hsm_keys.values import Secret, describe, hides_its_arguments, may_be_shown, shown_path

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = [
    "NetworkProxy",
    "check_authorities",
    "client_options",
    "network_proxy",
    "trusted_authorities",
    "why_not_trusted",
]

_SCHEMES: Final = frozenset({"http", "https", "socks5", "socks5h"})
_FILE: Final = "SSL_CERT_FILE"
_FOLDER: Final = "SSL_CERT_DIR"
_UNREAD: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def trusted_authorities() -> ssl.SSLContext:
    """Return the authorities that are trusted; clients share them, as reading them takes longer than a request.

    Raises:
        UsageError: If ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names nothing that can be read.
    """
    return _read_authorities(os.environ.get(_FILE), os.environ.get(_FOLDER))


@cache
@hides_its_arguments
def _read_authorities(file: str | None, folder: str | None) -> ssl.SSLContext:
    import httpx2

    _check(file, folder)
    return httpx2.create_ssl_context()


def check_authorities() -> None:
    """Make sure that the authorities that the environment names are there; OpenSSL would go on, and trust nobody.

    Raises:
        UsageError: If ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names nothing that can be read.
    """
    _check(os.environ.get(_FILE), os.environ.get(_FOLDER))


@hides_its_arguments
def _check(file: str | None, folder: str | None) -> None:
    if file:
        why = _why_unreadable(file)
        if why:
            raise UsageError(
                f"{_FILE} names {shown_path(file)}, which can't be read: {why}",
                hint=f"mend {_FILE}, or leave it out: then the system's authorities are trusted",
            )
    elif folder and not os.path.isdir(folder):  # noqa: PTH112 - pathlib refuses some texts, and this tells
        raise UsageError(
            f"{_FOLDER} names {shown_path(folder)}, and there is no such folder",
            hint=f"mend {_FOLDER}, or leave it out",
        )


def _why_unreadable(file: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return "it holds no certificate"
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def why_not_trusted(error: Exception) -> str:
    """Return what to do where the certificate of a server isn't trusted; empty if that isn't the trouble."""
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return ""
    unread = next((name for name in _UNREAD if os.environ.get(name) and not os.environ.get(_FILE)), None)
    if unread:
        return f"{unread} isn't read for this: name the same file in {_FILE}"
    return (
        "who answers isn't trusted: is the base URL right, and does a proxy look into TLS? The authority of that proxy "
        f"goes into {_FILE}"
    )


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
            f"{variable} names no proxy that can be used: it is {describe(given)}",
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


def client_options(url: str) -> dict[str, Any]:
    """Return how a client of httpx2 reaches a URL: through which proxy, and whom it trusts; nothing else counts.

    Raises:
        UsageError: If what the environment names for it can't be used.
    """
    import httpx2

    if url.startswith("http:"):
        # A context that trusts nobody is made at once, and plain HTTP needs no other.
        return {"trust_env": False, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
    proxy = network_proxy(url)
    if proxy is not None and proxy.speaks_socks and find_spec("socksio") is None:
        raise UsageError(
            f"{proxy.variable} names a SOCKS proxy, and the library for SOCKS isn't installed",
            hint="pip install 'httpx2[socks]', name an HTTP proxy, or leave the variable out",
        )
    through = {} if proxy is None else {"proxy": httpx2.Proxy(proxy.url.reveal())}
    return {"trust_env": False, "verify": trusted_authorities()} | through
