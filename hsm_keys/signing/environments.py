"""Kalshi's environments and their base URLs. Keys belong to one environment."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hsm_keys.errors import UsageError
from hsm_keys.signing.message import REST_PREFIX
from hsm_keys.values import describe

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENVIRONMENTS", "PERPS", "environment_name", "is_environment", "is_loopback", "resolve"]

ENVIRONMENTS: Final = {
    "prod": "https://external-api.kalshi.com/trade-api/v2",
    "demo": "https://external-api.demo.kalshi.co/trade-api/v2",
}

PERPS: Final = "perps"
"""Kalshi's exchange for perpetual futures: its API keys are its own, on the same hosts."""

_OLDER_HOSTS: Final = {"api.elections.kalshi.com": "prod", "demo-api.kalshi.co": "demo"}
_HOSTS: Final = {str(urlsplit(url).hostname): name for name, url in ENVIRONMENTS.items()} | _OLDER_HOSTS
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_DIGITS: Final = 8
_NAME = re.compile(rf"(?:{'|'.join(ENVIRONMENTS)}|[0-9a-f]{{{_DIGITS}}})(?:-{PERPS})?")

_NETLOC = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"", "0", "false", "no", "off"})


def resolve(*, base_url: str | None = None, environment: str | None = None, env: Mapping[str, str] = os.environ) -> str:
    """Return the base URL to use.

    The order is: ``base_url``, ``environment``, ``KALSHI_API_BASE_URL``, ``KALSHI_DEMO``, production.

    Returns:
        The URL without a trailing slash, ending in ``/trade-api/v2``.

    Raises:
        UsageError: If the environment is unknown, or the URL isn't https (or http to loopback), or has
            another path than Kalshi's.
    """
    if base_url is None and environment is None:
        base_url = env.get("KALSHI_API_BASE_URL") or None
    if base_url is not None:
        return _checked(base_url)
    if environment is None:
        environment = "demo" if _is_demo(env.get("KALSHI_DEMO", "")) else "prod"
    if environment not in ENVIRONMENTS:
        raise UsageError(f"Kalshi has no environment {describe(environment)}", hint="use " + " or ".join(ENVIRONMENTS))
    return ENVIRONMENTS[environment]


def environment_name(base_url: str, *, exchange: str | None = None) -> str:
    """Return the name of the environment that a base URL leads to, as stores keep it beside a key.

    Args:
        base_url: A base URL of Kalshi's REST API.
        exchange: ``perps`` for the exchange whose API keys are its own; None for the other one.

    Returns:
        ``prod`` or ``demo``, by Kalshi's new hosts and its older ones; for another base URL the first 8 hexadecimal
        digits of the SHA-256 of its origin (RFC 6454, section 6.2). ``-perps`` follows for that exchange.

    Raises:
        UsageError: If there is no such exchange.
    """
    if exchange not in {None, PERPS}:
        raise UsageError(f"Kalshi has no exchange {describe(exchange)}", hint=f"use {PERPS}, or leave it out")
    parts = urlsplit(base_url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    port = parts.port if parts.port != _DEFAULT_PORTS.get(scheme) else None
    name = _HOSTS.get(host) if scheme == "https" and port is None else None
    if name is None:
        origin = f"{scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port is not None else ''}"
        name = hashlib.sha256(origin.encode()).hexdigest()[:_DIGITS]
    return f"{name}-{PERPS}" if exchange else name


def is_environment(name: str) -> bool:
    """Tell whether ``environment_name`` gives such names."""
    return _NAME.fullmatch(name) is not None


def _is_demo(value: str) -> bool:
    if value.strip().lower() not in _TRUE | _FALSE:
        raise UsageError("KALSHI_DEMO is neither true nor false", hint="set it to true, or leave it out")
    return value.strip().lower() in _TRUE


def _checked(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        raise UsageError("the base URL is malformed", hint=f"it looks like {ENVIRONMENTS['prod']}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError("the base URL holds a user name or password, and Kalshi takes none")
    if not parts.hostname or not _NETLOC.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise UsageError(f"{describe(base_url)} is no base URL", hint=f"it looks like {ENVIRONMENTS['prod']}")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise UsageError(
            f"the base URL, {describe(base_url)}, isn't https, and isn't loopback",
            hint="signed headers over plain HTTP can be taken and used by others: use https",
        )
    if parts.path.rstrip("/") not in {"", REST_PREFIX}:
        raise UsageError(f"the path of the base URL isn't {REST_PREFIX}", hint="leave the path out")
    return f"{parts.scheme}://{parts.netloc}{REST_PREFIX}"


def is_loopback(host: str) -> bool:
    """Tell whether a URL's host is this machine's loopback: ``localhost``, 127.0.0.0/8 or ::1 (RFC 6761, RFC 1122)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
