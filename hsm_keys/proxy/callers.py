"""The client of a request or a connection: by its token over TCP, by its user on a Unix socket."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from hsm_keys.proxy.access import Caller, Refused, TokenFolder, check_page, local_caller

if TYPE_CHECKING:
    import asyncio
    import socket

    from hsm_keys.proxy.client_requests import ClientRequest
    from hsm_keys.proxy.judge import Judge

__all__ = ["Callers", "socket_of"]


class Callers:
    """Tells who asks.

    Args:
        judge: Its policy names the client that a user is.
        tokens: The clients' tokens, over TCP; None on a Unix socket.
        allow_uids: Users beside this one that may use a Unix socket.

    Attributes:
        hosts: The Hosts that are the proxy's own; None where any is taken.
    """

    def __init__(self, judge: Judge, tokens: TokenFolder | None, allow_uids: frozenset[int]) -> None:
        self.hosts: frozenset[str] | None = None
        self._judge = judge
        self._tokens = tokens
        self._uids = allow_uids | {os.geteuid()}

    def of_request(self, request: ClientRequest) -> Caller:
        """Return who sends a request.

        Raises:
            Refused: If nobody who may, or a page in a browser.
        """
        if self._tokens is not None:
            check_page(request.headers, self.hosts)
            return self._tokens.caller(request.headers)
        check_page(request.headers, None)
        connection, policy = request.connection, self._judge.policy
        known = connection.caller if connection is not None and connection.transport is not None else None
        if known is not None and known[0] is policy:
            return known[1]
        caller = local_caller(socket_of(request.transport), self._uids, policy.client_of_uid)
        if connection is not None:
            connection.caller = policy, caller
        return caller

    def client_of(self, transport: asyncio.Transport) -> str:
        """Return whose a connection is; empty over TCP, where each request says so, and for strangers."""
        if self._tokens is not None:
            return ""
        with suppress(Refused):
            return local_caller(socket_of(transport), self._uids, self._judge.policy.client_of_uid).client
        return ""


def socket_of(transport: asyncio.BaseTransport | None) -> socket.socket | None:
    """Return the socket of a connection; None if it is closed."""
    return cast("socket.socket | None", transport.get_extra_info("socket")) if transport is not None else None
