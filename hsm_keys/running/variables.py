"""The environment variables of a program behind a proxy: which are set, in one table, and which are removed."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Final

from hsm_keys.stores import backends

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.running.throwaway import Throwaway

__all__ = ["VARIABLES", "environment_for", "kept_from_programs"]

VARIABLES: Final = {
    # the base URL of REST, with /trade-api/v2
    "KALSHI_API_BASE_URL": "base_url",  # kalshi-sdk, hsm-keys
    "KALSHI_PERPS_API_BASE_URL": "base_url",  # kalshi-sdk
    "KALSHI_BASE_URL": "base_url",  # kyro, kalshi-degen-mcp
    "KALSHI_API_BASE": "base_url",  # kalshi-mcp
    "KALSHI_API_URL": "base_url",
    "KALSHI_REST_URL": "base_url",
    "KALSHI_HOST": "base_url",
    # the WebSocket, with /trade-api/ws/v2
    "KALSHI_WS_URL": "ws_url",  # hsm-keys
    "KALSHI_PERPS_WS_BASE_URL": "margin_ws_url",  # kalshi-sdk
    # the origins: these clients put the path behind them
    "KALSHI_HTTP_BASE_URL": "origin",  # pykalshi-client
    "KALSHI_WS_BASE_URL": "ws_origin",  # pykalshi-client
    # the API key id: the client's token
    "KALSHI_KEY_ID": "token",  # kalshi-sdk
    "KALSHI_PERPS_KEY_ID": "token",  # kalshi-sdk
    "KALSHI_API_KEY_ID": "token",  # pykalshi, kalshi-mcp-server, kalshi-degen-mcp
    "KALSHI_API_KEY": "token",  # mcp-server-kalshi, kalshi-mcp
    "KALSHI_ACCESS_KEY": "token",  # kyro
    "KALSHI_ACCESS_KEY_ID": "token",  # kyro
    # a PEM that Kalshi has never seen, as a file. As a text only in base64: beside a path, kalshi-sdk refuses
    # KALSHI_PRIVATE_KEY, and kalshi-mcp-server KALSHI_PRIVATE_KEY_PEM
    "KALSHI_PRIVATE_KEY_PATH": "pem_path",  # kalshi-sdk, pykalshi, kyro, mcp-server-kalshi, kalshi-mcp-server
    "KALSHI_PERPS_PRIVATE_KEY_PATH": "pem_path",  # kalshi-sdk
    "KALSHI_PRIVATE_KEY_FILE": "pem_path",
    "KALSHI_PRIVATE_KEY_BASE64": "pem_base64",  # kalshi-degen-mcp
}
"""Each variable that a known client reads, and what it is to say."""

_KEPT_FROM_PROGRAMS: Final = (
    "HSM_KEYS_",
    "CREDENTIALS_DIRECTORY",  # systemd's, where a service's PIN lies
    "LISTEN_",
    "KALSHI_PRIVATE_KEY",
    "KALSHI_PERPS_PRIVATE_KEY",
    "KALSHI_DEMO",  # beside a base URL it can only contradict
    "KALSHI_PERPS_DEMO",
)
"""What the names of variables begin with that hold a key or a PIN, or lead past the proxy."""

_NO_PROXY: Final = ("NO_PROXY", "no_proxy")
_OWN: Final = "127.0.0.1,localhost"


def kept_from_programs() -> tuple[str, ...]:
    """Return what the names of variables begin with that open a store, hold a key or a PIN, or lead past the proxy."""
    return (*_KEPT_FROM_PROGRAMS, *(name for backend in backends() for name in backend.access.variables))


def environment_for(environment: Mapping[str, str], *, port: int, token: str, throwaway: Throwaway) -> dict[str, str]:
    """Return the environment of a program behind a proxy.

    Args:
        environment: The environment that it would have.
        port: Where the proxy listens on loopback.
        token: The client's.
        throwaway: The PEM that stands in the place of a key.
    """
    values = {
        "base_url": f"http://127.0.0.1:{port}/trade-api/v2",
        "ws_url": f"ws://127.0.0.1:{port}/trade-api/ws/v2",
        "margin_ws_url": f"ws://127.0.0.1:{port}/trade-api/ws/v2/margin",
        "origin": f"http://127.0.0.1:{port}",
        "ws_origin": f"ws://127.0.0.1:{port}",
        "token": token,
        "pem_path": str(throwaway.path),
        "pem_base64": b64encode(throwaway.pem.encode("ascii")).decode("ascii"),
    }
    kept = kept_from_programs()
    given = {name: value for name, value in environment.items() if not name.upper().startswith(kept)}
    given |= {name: values[what] for name, what in VARIABLES.items()}
    for name in _NO_PROXY:  # a proxy of the network isn't on the way to loopback
        given[name] = f"{given[name]},{_OWN}" if given.get(name) else _OWN
    return given
