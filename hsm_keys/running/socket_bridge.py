"""A port of loopback that leads to a proxy's Unix socket, for the one program that has the token.

Kalshi's clients connect to ports. A proxy at a Unix socket accepts users whom the kernel names, and wants no token; but
any user can connect to a port. So the bridge checks the token, once for each connection.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, Self

from hsm_keys.processes import die_with_parent
from hsm_keys.running.leaving import drop_terminal_signals, fork_aside, hear_terminal_signals

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from hsm_keys.proxy.replies import Reply

__all__ = ["SocketBridge"]

_BACKLOG: Final = 2048
_LONGEST_HEAD: Final = 32 * 1024
_HEAD_WITHIN_S: Final = 30.0
_LINGER_S: Final = 2.0


class SocketBridge:
    """Leads from a port to a Unix socket, in a process of its own; to be used with ``with``.

    Args:
        path: The proxy's socket.
        token: What a connection has to bring along in its first request, as to a proxy on loopback.

    Attributes:
        port: The port.
    """

    def __init__(self, path: Path, token: str) -> None:
        self._path = path
        self._token = token

    def __enter__(self) -> Self:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        self.port = int(listener.getsockname()[1])
        run_ended, self._open = os.pipe()
        self._process = fork_aside()
        if self._process == 0:
            os.close(self._open)
            _be_bridge(listener, self._path, self._token, run_ended)
        os.close(run_ended)
        listener.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._open)
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        with suppress(ChildProcessError):  # the end of a run ends all of its children
            os.waitpid(self._process, 0)


def _be_bridge(listener: socket.socket, path: Path, token: str, run_ended: int) -> NoReturn:
    try:
        die_with_parent()
        os.setsid()  # the terminal's signals are the program's
        drop_terminal_signals()
        hear_terminal_signals()
        asyncio.run(_serve(listener, path, token, run_ended))
    finally:
        os._exit(0)


async def _serve(listener: socket.socket, path: Path, token: str, run_ended: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(run_ended, ended.set)  # where the kernel doesn't end it: macOS

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await _lead(reader, writer, path, token)
        writer.close()

    await asyncio.start_server(lead, sock=listener, limit=_LONGEST_HEAD, backlog=_BACKLOG)
    await ended.wait()


async def _lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path, token: str) -> None:
    from hsm_keys.proxy.replies import refusal
    from hsm_keys.running.bridging import bridge

    try:
        async with asyncio.timeout(_HEAD_WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        return
    if not _brings(head, token):
        await _part(reader, writer, refusal(401, "token", "the proxy wants the program's token: it is KALSHI_KEY_ID"))
        return
    try:
        far_reader, far_writer = await asyncio.open_unix_connection(path)
    except OSError:
        await _part(reader, writer, refusal(502, "proxy_gone", "the proxy's socket is gone: nothing was sent"))
        return
    far_writer.write(head)
    await bridge(reader, writer, far_reader, far_writer)


async def _part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Reply) -> None:
    """Answer, and read what still comes for a moment: a socket that is closed with bytes unread is reset."""
    writer.write(reply.to_bytes(closes=True))
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while await reader.read(_LONGEST_HEAD):
                pass


def _brings(head: bytes, token: str) -> bool:
    """Tell whether a request's head has the token, as ``KALSHI-ACCESS-KEY`` or ``Authorization: Bearer``."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        scheme, _, credentials = value.strip().partition(b" ")
        given = {
            b"kalshi-access-key": value.strip(),
            b"authorization": credentials.strip() if scheme.lower() == b"bearer" else b"",
        }.get(name.lower(), b"")
        if hmac.compare_digest(given, token.encode("ascii")):
            return True
    return False
