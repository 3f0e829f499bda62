"""The proxy's endpoints: for clients, for control and for Prometheus, served until an exit stack closes."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Final

from aiohttp import web

from hsm_keys.proxy.access import Refused, check_page, local_caller
from hsm_keys.proxy.callers import socket_of
from hsm_keys.proxy.listening import BACKLOG, bind_tcp, bind_unix, from_systemd, parse_address
from hsm_keys.proxy.locations import control_link, control_socket, default_socket
from hsm_keys.proxy.options import server_tls
from hsm_keys.proxy.replies import error_body
from hsm_keys.proxy.serving import ACCEPTED_AT_ONCE, ClientServer, raise_file_limit

if TYPE_CHECKING:
    import socket
    import ssl
    from contextlib import AsyncExitStack
    from pathlib import Path

    from hsm_keys.proxy.callers import Callers
    from hsm_keys.proxy.control import Control
    from hsm_keys.proxy.handler import Handler
    from hsm_keys.proxy.options import Options

__all__ = ["serve_clients", "serve_control", "serve_metrics"]

_DRAIN_S: Final = 10.0
_ROOT: Final = 0

_log: Final = logging.getLogger(__name__)


async def serve_control(stack: AsyncExitStack, name: str, control: Control) -> None:
    """Serve the control endpoint for this user and root, on a Unix socket of its own.

    Args:
        stack: Its end drains the socket and removes its path.
        name: The key's name.
        control: Answers.

    Raises:
        UsageError: If the socket can't be had.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            local_caller(socket_of(request.transport), frozenset({os.geteuid(), _ROOT}), str)
        except Refused as refused:
            return _refusal(refused)
        return await control.answer(request)

    path = control_socket(name)
    listener = bind_unix(path, mode=0o600)
    stack.callback(path.unlink, missing_ok=True)
    await _serve_web(stack, listener, web.Server(answer, access_log=None))
    _link(control_link(name), path)


async def serve_metrics(stack: AsyncExitStack, address: str, control: Control) -> None:
    """Serve Prometheus.

    Args:
        stack: Its end drains the socket.
        address: ``HOST:PORT``.
        control: Answers.

    Raises:
        UsageError: If the address can't be had.
    """
    host, port = parse_address(address)
    hosts = _own_hosts(host, port)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            check_page(request.headers, hosts)
        except Refused as refused:
            return _refusal(refused)
        return await control.answer_metrics(request)

    await _serve_web(stack, bind_tcp(host, port), web.Server(answer, access_log=None))


async def serve_clients(stack: AsyncExitStack, options: Options, handler: Handler, callers: Callers) -> str:
    """Serve clients, and return where, in words.

    Args:
        stack: Its end finishes what is under way and removes the socket's path.
        options: Say where.
        handler: Answers.
        callers: Tells whose a connection is. Over TCP it is told the proxy's own Hosts.

    Raises:
        UsageError: If the socket or address can't be had, or not with this TLS.
    """
    clients = ClientServer(handler.answer, handler.refuse_unanswered, callers.client_of, files=raise_file_limit())
    if options.listen:
        host, port = parse_address(options.listen)
        listener = options.listener or bind_tcp(host, port)
        port = listener.getsockname()[1]
        if not options.unsafe_listen:
            callers.hosts = _own_hosts(host, port) | options.hosts
        await _serve(stack, listener, clients, tls=server_tls(options.tls))
        return f"http{'s' if options.tls else ''}://{_in_url(host)}:{port}/trade-api/v2"
    inherited = from_systemd()
    if inherited is not None:
        await _serve(stack, inherited, clients)
        return f"the socket {inherited.getsockname()}"
    path = options.socket or default_socket(options.name)
    listener = bind_unix(path, mode=0o666 if options.allow_uids else 0o600)
    stack.callback(path.unlink, missing_ok=True)
    await _serve(stack, listener, clients)
    return f"the socket {path.resolve()}"


async def _serve(
    stack: AsyncExitStack, listener: socket.socket, clients: ClientServer, *, tls: ssl.SSLContext | None = None
) -> None:
    stack.push_async_callback(clients.stop, _DRAIN_S)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(clients, sock=listener, ssl=tls, backlog=ACCEPTED_AT_ONCE)
    stack.callback(server.close)
    listener.listen(BACKLOG)  # asyncio has one number for how many wait, and how many it accepts at once


async def _serve_web(stack: AsyncExitStack, listener: socket.socket, server: web.Server) -> None:
    runner = web.ServerRunner(server, shutdown_timeout=_DRAIN_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener).start()


def _link(link: Path, path: Path) -> None:
    """Write the control socket's path where shells with another XDG_RUNTIME_DIR look for it too."""
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    except OSError as error:
        _log.warning("other shells find the control socket only with --socket: %s", error.strerror)


def _refusal(refused: Refused) -> web.Response:
    return web.json_response(error_body(refused.reason, refused.message), status=refused.status)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _own_hosts(host: str, port: int) -> frozenset[str]:
    """Return the Hosts that a client on this machine sends; it leaves out the port that is its scheme's own."""
    names = ("localhost", "127.0.0.1", "[::1]", _in_url(host))
    return frozenset(f"{name}:{port}" for name in names) | (frozenset(names) if port in {80, 443} else frozenset())
