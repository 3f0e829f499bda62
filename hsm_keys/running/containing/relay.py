"""The bridge of a contained program: its connections to its own loopback go to the proxy, or to an allowed host.

Its sockets listen in the program's network namespace; the process that accepts there is outside.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from hsm_keys.errors import HsmKeysError
from hsm_keys.processes import die_with_parent
from hsm_keys.running.bridging import bridge

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from hsm_keys.running.containing.hosts import Place

__all__ = ["relay"]


def relay(
    listeners: Sequence[tuple[Place, socket.socket]], proxy_port: int, certificate: str, note: Callable[[str], None]
) -> NoReturn:
    """Be the bridge, in a process of its own, until it is killed or its parent has ended.

    Args:
        listeners: Sockets, and where each leads.
        proxy_port: Where the proxy listens on loopback.
        certificate: File with the certificate and key for Kalshi's hosts.
        note: Writes in the audit trail that a connection to an allowed host is opened; without it there is none.
    """
    try:
        die_with_parent()
        asyncio.run(_serve(listeners, proxy_port, certificate, note))
    finally:
        os._exit(1)


async def _serve(
    listeners: Sequence[tuple[Place, socket.socket]], proxy_port: int, certificate: str, note: Callable[[str], None]
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["http/1.1"])
    for place, listener in listeners:
        to = (place.host, place.port) if place.host else ("127.0.0.1", proxy_port)

        async def relayed(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            to: tuple[str, int] = to,
            noted: str = f"{place.host}:{place.port}" if place.host else "",
        ) -> None:
            with suppress(OSError, HsmKeysError):
                if noted:
                    await asyncio.to_thread(note, noted)
                await bridge(reader, writer, *await asyncio.open_connection(*to))
            writer.close()

        await asyncio.start_server(relayed, sock=listener, ssl=context if place.is_tls else None)
    await asyncio.Event().wait()
