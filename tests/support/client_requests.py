"""Requests as the proxy's handler gets them, without a connection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hsm_keys.proxy.client_requests import ClientRequest


def client_request(method: str, path: str, *, transport: Any = "open") -> ClientRequest:
    """Return a request without a body. A client without a transport has gone."""
    connection = cast("Any", SimpleNamespace(transport=transport, caller=None, send=lambda _request, _reply: None))
    return ClientRequest(connection, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
