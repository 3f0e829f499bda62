"""Kalshi's environments and the hosts of each. Keys belong to one environment."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hsm_keys.errors import UsageError, WrongEnvironmentError
from hsm_keys.signing.message import MARGIN_WEBSOCKET_PATH, REST_PREFIX, WEBSOCKET_PATH
from hsm_keys.values import describe, hides_its_arguments, what_is_round

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ENVIRONMENTS",
    "PERPS",
    "Hosts",
    "check_environment",
    "check_origin",
    "check_websocket_url",
    "environment_name",
    "is_environment",
    "is_loopback",
    "is_named",
    "resolve",
    "web_hosts",
    "websocket_path",
    "websocket_url",
]


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of an environment; all but ``fix`` and ``margin_fix`` speak HTTP over TLS, and those FIX over TLS.

    Args:
        rest: Serves REST, for perpetual futures below ``/trade-api/v2/margin``.
        websocket: Serves the WebSocket.
        margin_websocket: Serves the WebSocket for perpetual futures.
        fix: Serves FIX, and its market data where that has no host of its own.
        fix_market_data: Serves FIX market data.
        margin_fix: Serves FIX for perpetual futures.
        margin_fix_market_data: Serves FIX market data for perpetual futures.
    """

    rest: str
    websocket: str
    margin_websocket: str
    fix: str
    fix_market_data: str
    margin_fix: str
    margin_fix_market_data: str

    @property
    def base_url(self) -> str:
        """The base URL of the REST API."""
        return f"https://{self.rest}{REST_PREFIX}"


ENVIRONMENTS: Final = {
    "prod": Hosts(
        rest="external-api.kalshi.com",
        websocket="external-api-ws.kalshi.com",
        margin_websocket="external-api-margin-ws.kalshi.com",
        fix="mm.fix.elections.kalshi.com",
        fix_market_data="mm.fix.elections.kalshi.com",
        margin_fix="margin-fix-api.fix.elections.kalshi.com",
        margin_fix_market_data="margin-fix-api.fix.elections.kalshi.com",
    ),
    "demo": Hosts(
        rest="external-api.demo.kalshi.co",
        websocket="external-api-ws.demo.kalshi.co",
        margin_websocket="external-api-margin-ws.demo.kalshi.co",
        fix="fix.demo.kalshi.co",
        fix_market_data="marketdata.fix.demo.kalshi.co",
        margin_fix="margin-fix.demo.kalshi.co",
        margin_fix_market_data="margin-marketdata.fix.demo.kalshi.co",
    ),
}

_OLDER_HOSTS: Final = {"api.elections.kalshi.com": "prod", "demo-api.kalshi.co": "demo"}
"""They serve REST and the WebSocket on one host; perpetual futures have only the new ones."""

PERPS: Final = "perps"
"""Kalshi's exchange for perpetual futures: its API keys are its own, on the same hosts."""

_HOSTS: Final = {hosts.rest: name for name, hosts in ENVIRONMENTS.items()} | _OLDER_HOSTS
_WEBSOCKET_HOSTS: Final = _OLDER_HOSTS | {
    host: name for name, hosts in ENVIRONMENTS.items() for host in (hosts.websocket, hosts.margin_websocket)
}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_DIGITS: Final = 8
_NAME = re.compile(rf"(?:{'|'.join(ENVIRONMENTS)}|[0-9a-f]{{{_DIGITS}}})(?:-{PERPS})?")

_NETLOC = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"", "0", "false", "no", "off"})


@hides_its_arguments
def resolve(
    *,
    base_url: str | None = None,
    environment: str | None = None,
    exchange: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> str:
    """Return the base URL to use.

    The order is: ``base_url``, ``environment``, ``KALSHI_API_BASE_URL``, ``KALSHI_DEMO``, production. For the exchange
    ``perps``, ``KALSHI_PERPS_API_BASE_URL`` and ``KALSHI_PERPS_DEMO`` stand before those two, as kalshi-sdk reads them.

    Returns:
        The URL without a trailing slash, ending in ``/trade-api/v2``.

    Raises:
        UsageError: If the environment is unknown, or the URL isn't https (or http to loopback), or has
            another path than Kalshi's.
    """
    if base_url is None and environment is None:
        base_url, environment = _from_variables(exchange, env)
    if base_url is not None:
        return _checked(base_url)
    if environment is None:
        environment = "prod"
    if environment not in ENVIRONMENTS:
        raise UsageError(f"Kalshi has no environment {describe(environment)}", hint="use " + " or ".join(ENVIRONMENTS))
    return ENVIRONMENTS[environment].base_url


@hides_its_arguments
def is_named(
    *,
    base_url: str | None = None,
    environment: str | None = None,
    exchange: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> bool:
    """Tell whether anything names the environment, rather than that ``resolve`` takes production."""
    return any(name is not None for name in (base_url, environment, *_from_variables(exchange, env)))


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
        import hashlib  # it loads OpenSSL

        name = hashlib.sha256(origin.encode()).hexdigest()[:_DIGITS]
    return f"{name}-{PERPS}" if exchange else name


@hides_its_arguments
def websocket_url(
    *,
    base_url: str | None = None,
    environment: str | None = None,
    exchange: str | None = None,
    ws_url: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> str:
    """Return the URL of an environment's WebSocket, which has a host of its own.

    Args:
        base_url: The base URL of the REST API. This, ``environment`` and ``exchange`` are as for ``resolve``.
        environment: ``prod`` or ``demo``, instead of a base URL.
        exchange: ``perps`` for the WebSocket for perpetual futures.
        ws_url: A URL with the WebSocket's host. Without it ``KALSHI_WS_URL`` is read (but ignored if the base URL is
            Kalshi's and this host isn't); without that the host is derived from the base URL.
        env: The environment's variables.

    Raises:
        UsageError: If a URL isn't valid, or REST and WebSocket would be in two environments.
    """
    base = urlsplit(resolve(base_url=base_url, environment=environment, exchange=exchange, env=env))
    path = MARGIN_WEBSOCKET_PATH if exchange == PERPS else WEBSOCKET_PATH
    name = _HOSTS.get(str(base.hostname)) if base.scheme == "https" else None
    origin = _websocket_origin(ws_url) if ws_url is not None else _origin_from(env, name)
    if origin is None:
        origin = f"{'wss' if base.scheme == 'https' else 'ws'}://{base.netloc}"
        theirs = name
    else:
        theirs = _WEBSOCKET_HOSTS.get(str(urlsplit(origin).hostname))
    if None not in (name, theirs) and name != theirs:
        raise UsageError(
            f"the base URL is of the environment {name}, and the WebSocket's URL of {theirs}",
            hint="give both of one environment: --ws-url, KALSHI_WS_URL, --env, --base-url",
        )
    if theirs is None:
        return origin + path
    hosts, host = ENVIRONMENTS[theirs], urlsplit(origin).hostname
    if exchange == PERPS:
        host = hosts.margin_websocket
    elif host not in _OLDER_HOSTS:
        host = hosts.websocket
    return f"wss://{host}{path}"


@hides_its_arguments
def check_websocket_url(ws_url: str | None, *, env: Mapping[str, str] = os.environ) -> None:
    """Refuse what can't be a WebSocket's URL, also where none is opened: the URL, else ``KALSHI_WS_URL``.

    Raises:
        UsageError: If it can't.
    """
    url = ws_url if ws_url is not None else env.get("KALSHI_WS_URL") or None
    if url is not None:
        _websocket_origin(url)


def _origin_from(env: Mapping[str, str], name: str | None) -> str | None:
    """Return the WebSocket's origin by ``KALSHI_WS_URL``, unless it is left over from a sandbox."""
    if not env.get("KALSHI_WS_URL"):
        return None
    origin = _websocket_origin(env["KALSHI_WS_URL"])
    left_over = name is not None and urlsplit(origin).hostname not in _WEBSOCKET_HOSTS
    return None if left_over else origin


def websocket_path(url: str) -> str:
    """Return the path of a WebSocket's URL, to sign.

    Raises:
        UsageError: If it isn't one of Kalshi's, or its host serves no WebSocket.
    """
    parts = urlsplit(_websocket_origin(url))
    path = urlsplit(url).path.rstrip("/")
    host = str(parts.hostname)
    margin = path == MARGIN_WEBSOCKET_PATH
    for hosts in ENVIRONMENTS.values():
        right = hosts.margin_websocket if margin else hosts.websocket
        if host in {hosts.rest, hosts.websocket, hosts.margin_websocket} - {right}:
            raise UsageError(f"{host} doesn't serve {path}", hint=f"open wss://{right}{path}")
    return path or WEBSOCKET_PATH


def check_environment(name: str, environment: str | None, here: str) -> None:
    """Make sure that a key belongs to the environment at hand.

    Args:
        name: The key's name.
        environment: The environment in which it is registered, as its store keeps it; None if it isn't in any.
        here: The environment at hand, as ``environment_name`` gives it.

    Raises:
        WrongEnvironmentError: If it belongs to another one; the message names both.
    """
    if environment in {None, here}:
        return
    plain, _, exchange = str(environment).partition("-")
    kalshis = plain in ENVIRONMENTS
    way = f"--env {plain}" if kalshis else "--base-url, or KALSHI_API_BASE_URL,"
    if exchange:
        way += f" --exchange {exchange}"
    raise WrongEnvironmentError(
        f"the key {name!r} belongs to the environment {environment}, and this one is {here}; nothing was done",
        hint=f"point the command at the key's environment with {way}"
        + ("" if kalshis else f" and the base URL at which it was enrolled ({environment} is derived from that)"),
    )


def check_origin(name: str, environment: str | None, base_url: str) -> None:
    """Make sure that a key belongs to the environment that a base URL leads to, on whichever exchange.

    Args:
        name: The key's name.
        environment: The environment in which it is registered; None if it isn't in any.
        base_url: A base URL of Kalshi's REST API.

    Raises:
        WrongEnvironmentError: If it belongs to another one; the message names both.
    """
    perps = environment is not None and environment.endswith(f"-{PERPS}")
    check_environment(name, environment, environment_name(base_url, exchange=PERPS if perps else None))


def web_hosts(environment: str) -> tuple[str, ...]:
    """Return the hosts of an environment that speak HTTP, the older ones too; of all where it isn't one of Kalshi's."""
    plain = environment.partition("-")[0]
    names = [plain] if plain in ENVIRONMENTS else list(ENVIRONMENTS)
    hosts = [host for name in names for host in (*_of_http(ENVIRONMENTS[name]), *_older(name))]
    return tuple(hosts)


def _of_http(hosts: Hosts) -> tuple[str, ...]:
    return hosts.rest, hosts.websocket, hosts.margin_websocket


def _older(name: str) -> list[str]:
    return [host for host, theirs in _OLDER_HOSTS.items() if theirs == name]


def is_environment(name: str) -> bool:
    """Tell whether ``environment_name`` gives such names."""
    return _NAME.fullmatch(name) is not None


def _from_variables(exchange: str | None, env: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the base URL and the environment that variables name."""
    names = [("KALSHI_API_BASE_URL", "KALSHI_DEMO")]
    if exchange == PERPS:
        names.insert(0, ("KALSHI_PERPS_API_BASE_URL", "KALSHI_PERPS_DEMO"))
    for url_name, demo_name in names:
        base_url, demo = env.get(url_name) or None, env.get(demo_name, "").strip()
        if base_url:
            _check_not_against(demo_name, demo, url_name, base_url)
            return base_url, None
        if demo:
            return None, "demo" if _is_demo(demo_name, demo) else "prod"
    return None, None


def _check_not_against(demo_name: str, demo: str, url_name: str, base_url: str) -> None:
    """Refuse production's base URL where the demo environment is asked for beside it: orders would cost real money."""
    if demo and _is_demo(demo_name, demo) and environment_name(_checked(base_url)) == "prod":
        raise UsageError(
            f"{demo_name} asks for the demo environment, and {url_name} is production's; nothing was sent",
            hint="leave one of them out, or say which with --env demo or --env prod",
        )


def _is_demo(name: str, value: str) -> bool:
    if value.lower() not in _TRUE | _FALSE:
        raise UsageError(f"{name} is neither true nor false", hint="set it to true, or leave it out")
    return value.lower() in _TRUE


def _checked(base_url: str) -> str:
    origin = _origin(base_url, "base URL", ("https", "http"), {REST_PREFIX}, ENVIRONMENTS["prod"].base_url)
    return f"{origin}{REST_PREFIX}"


def _websocket_origin(ws_url: str) -> str:
    paths = {WEBSOCKET_PATH, MARGIN_WEBSOCKET_PATH}
    example = f"wss://{ENVIRONMENTS['prod'].websocket}{WEBSOCKET_PATH}"
    return _origin(ws_url, "WebSocket URL", ("wss", "ws"), paths, example)


def _origin(url: str, what: str, schemes: tuple[str, str], paths: set[str], example: str) -> str:
    """Return the origin of a URL that signed headers may go to.

    Args:
        url: The URL.
        what: What it is called.
        schemes: The one over TLS, and the one that is for loopback.
        paths: Those that it may have, beside none.
        example: A right one.
    """
    if round_it := what_is_round(url):
        raise UsageError(f"the {what} has {round_it} around it", hint=f"give it without them; it looks like {example}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise UsageError(f"the {what} is malformed", hint=f"it looks like {example}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"the {what} holds a user name or password, and Kalshi takes none", hint=f"leave it out: {example}"
        )
    if not parts.hostname or not _NETLOC.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise UsageError(f"{describe(url)} isn't a {what}", hint=f"it looks like {example}")
    safe, plain = schemes
    if parts.scheme != safe and not (parts.scheme == plain and is_loopback(parts.hostname or "")):
        raise UsageError(
            f"the {what}, {describe(url)}, is neither {safe} nor loopback",
            hint=f"others could read and use signed headers over plain {plain}: use {safe}",
        )
    if parts.path.rstrip("/") not in {"", *paths}:
        raise UsageError(f"the path of the {what} isn't {' or '.join(sorted(paths))}", hint="leave the path out")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Tell whether a URL's host is this machine's loopback: ``localhost``, 127.0.0.0/8 or ::1 (RFC 6761, RFC 1122)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
