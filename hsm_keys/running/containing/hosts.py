"""The hosts that a contained program can reach, and where each leads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.signing.environments import environment_name, web_hosts
from hsm_keys.values import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Place", "hosts_file", "kalshi_hosts", "places"]

_HTTPS: Final = 443
_LARGEST_PORT: Final = 65535
_MOST: Final = 200
_HOST: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}))*")
_ADDRESS: Final = re.compile(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class Place:
    """An address of the program's loopback, and where it leads.

    Args:
        address: The address that is listened at.
        listens_at: The port there.
        host: The host that it leads to; empty for the proxy.
        port: The port of that host; 0 for the proxy.
        is_tls: Whether TLS ends there, with a certificate for Kalshi's hosts.
    """

    address: str
    listens_at: int
    host: str = ""
    port: int = 0
    is_tls: bool = False


def kalshi_hosts(base_url: str) -> tuple[str, ...]:
    """Return the hosts that lead to the proxy: those of the environment at hand.

    One of production never stands for demo: a bot would take real money for play money. A sandbox stands for all.
    """
    return web_hosts(environment_name(base_url))


def places(proxy_port: int, allowed: Sequence[str]) -> list[Place]:
    """Return where the program's loopback leads.

    Args:
        proxy_port: Where the proxy listens; the same port is its on the program's loopback.
        allowed: Hosts that the program may reach, ``HOST`` or ``HOST:PORT``; 443 is the port by default.

    Raises:
        UsageError: If one can't be a host.
    """
    found = [Place("127.0.0.1", proxy_port), Place("127.0.0.1", _HTTPS, is_tls=True)]
    numbers: dict[str, int] = {}
    for text in dict.fromkeys(allowed):
        host, port = _parsed(text)
        number = numbers.setdefault(host, len(numbers) + 1)
        found.append(Place(f"127.0.1.{number}", port, host, port))
    if len(numbers) > _MOST:
        raise UsageError(f"--allow-host names more than {_MOST} hosts", hint="name only those that the program needs")
    return found


def _parsed(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    number = int(port) if port.isascii() and port.isdecimal() else 0 if ":" in text else _HTTPS
    if not _HOST.fullmatch(host) or _ADDRESS.fullmatch(host) or not 0 < number <= _LARGEST_PORT:
        raise UsageError(
            f"{describe(text)} isn't a host to allow",
            hint="give a name such as api.openai.com, or HOST:PORT; no address",
        )
    return host.lower(), number


def hosts_file(kalshis: Sequence[str], all_places: Sequence[Place]) -> str:
    """Return the text of the program's hosts(5)."""
    lines = ["127.0.0.1 localhost", "::1 localhost", f"127.0.0.1 {' '.join(kalshis)}"]
    lines += dict.fromkeys(f"{place.address} {place.host}" for place in all_places if place.host)
    return "\n".join(lines) + "\n"
