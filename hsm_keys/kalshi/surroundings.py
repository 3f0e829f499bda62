"""What the environment says of the way to Kalshi: whom to trust, and through which proxy. Checked before it is used."""

from __future__ import annotations

import os
import ssl
from functools import cache
from importlib.util import find_spec
from typing import Final

from hsm_keys.errors import UsageError
from hsm_keys.values import Secret, describe, hides_its_arguments, shown_path

__all__ = ["check_authorities", "check_proxies", "proxy_variables", "trusted_authorities", "why_not_trusted"]

_PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
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


def proxy_variables() -> list[str]:
    """Return the names of the variables that name a proxy for requests to Kalshi."""
    return [name for known in _PROXIES for name in (known, known.lower()) if os.environ.get(name)]


def check_proxies() -> None:
    """Make sure that the proxies that the environment names can be used.

    Raises:
        UsageError: If one is no URL of a proxy, or speaks SOCKS and the library for that isn't installed.
    """
    for name in proxy_variables():
        given = Secret(os.environ[name])  # there may be a password in it
        scheme = _scheme_of(given)
        if scheme not in _SCHEMES:
            raise UsageError(
                f"{name} names no proxy that can be used: it is {describe(given)}",
                hint="it looks like http://proxy.example:3128, or socks5h://proxy.example:1080",
            )
        if scheme.startswith("socks") and find_spec("socksio") is None:
            raise UsageError(
                f"{name} names a SOCKS proxy, and the library for SOCKS isn't installed",
                hint="pip install 'httpx2[socks]', name an HTTP proxy, or leave the variable out",
            )


def _scheme_of(given: Secret) -> str:
    """Return the scheme of a proxy's URL; empty if it is none."""
    import httpx2

    text = given.reveal()
    try:
        url = httpx2.URL(text if "://" in text else f"http://{text}")  # as httpx2 reads it
    except httpx2.InvalidURL:
        return ""
    return url.scheme if url.host else ""
