"""Which certificate authorities and which proxy the environment names for Kalshi, checked before they are used."""

from __future__ import annotations

import os
import ssl
from functools import cache
from typing import Any, Final

from hsm_keys.errors import UsageError
from hsm_keys.network_proxies import httpx_proxy
from hsm_keys.values import hides_its_arguments, shown_path

__all__ = [
    "check_authorities",
    "client_options",
    "trusted_authorities",
    "why_not_trusted",
]

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
    elif folder and not os.path.isdir(folder):
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


def client_options(url: str) -> dict[str, Any]:
    """Return how a client of httpx2 reaches a URL: through which proxy, and whom it trusts; nothing else counts.

    Raises:
        UsageError: If what the environment names for it can't be used.
    """
    if url.startswith("http:"):
        # A context that trusts nobody is made at once, and plain HTTP needs no other.
        return {"trust_env": False, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
    proxy = httpx_proxy(url)
    through = {} if proxy is None else {"proxy": proxy}
    return {"trust_env": False, "verify": trusted_authorities()} | through
