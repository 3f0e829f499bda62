"""Where the proxy listens: at a Unix socket of its own user, at loopback, or at a socket from systemd."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.files import check_place_for
from hsm_keys.values import describe, shown_path

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "BACKLOG",
    "bind_tcp",
    "bind_unix",
    "check_loopback",
    "check_unix",
    "from_systemd",
    "parse_address",
    "started_by_a_socket",
]

_FIRST_FD: Final = 3
BACKLOG: Final = 2048
"""Connections that wait to be accepted."""

_LONGEST_PATH: Final = 103 if sys.platform == "darwin" else 107
"""Bytes that ``sun_path`` has for a path, without the zero behind it."""


def check_unix(path: Path) -> None:
    """Make sure, before a store is opened, that a socket can be made at a path.

    Raises:
        UsageError: If it is too long, has no folder, or something else is there.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise UsageError(
            f"{shown_path(path)} is too long for a socket, which takes {_LONGEST_PATH} bytes",
            hint="give a short path: --socket",
        )
    check_place_for(path, "--socket")
    with suppress(OSError):
        _check_kind(path)


def _check_kind(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise UsageError(f"{shown_path(path)} exists and isn't a socket", hint="give another path: --socket")


def bind_unix(path: Path, *, mode: int) -> socket.socket:
    """Return a socket that listens at the path, in place of one whose program is gone.

    Args:
        path: Where; its folder has to exist.
        mode: Its file mode from the first moment.

    Raises:
        UsageError: If a program listens there, or there is something else, or it can't be made.
    """
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"the socket {shown_path(path)} can't be made: {error.strerror or error}",
            hint="give a short path: --socket",
        ) from None
    finally:
        os.umask(before)
    return listener


def _clear(path: Path) -> None:
    try:
        _check_kind(path)
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno in {errno.ECONNREFUSED, errno.ENOENT}:
                with suppress(OSError):
                    path.unlink()
                return
    raise UsageError(
        f"a program listens at {shown_path(path)} already", hint="stop that program, or give another path: --socket"
    )


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, where the host is an address; ``localhost`` is 127.0.0.1.

    Raises:
        UsageError: If it isn't one.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:  # noqa: PLR2004 - TCP's ports
        raise UsageError(f"{describe(text)} isn't an address to listen at", hint="an address looks like 127.0.0.1:8090")
    return host, number


def check_loopback(host: str) -> None:
    """Refuse an address that other machines reach.

    Raises:
        UsageError: If it isn't loopback.
    """
    if not ipaddress.ip_address(host).is_loopback:
        raise UsageError(f"{host} isn't loopback", hint="--unsafe-listen with --tls-cert and --tls-key allows it")


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Args:
        host: The address.
        port: The port; 0 takes a free one.

    Raises:
        UsageError: If it can't be had.
    """
    address = ipaddress.ip_address(host)
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)  # noqa: PLR2004 - IPv6
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"{host}:{port} can't be listened at: {error.strerror}", hint="give another port: --listen"
        ) from None
    return listener


def started_by_a_socket() -> bool:
    """Tell whether systemd hands a socket over."""
    return os.environ.get("LISTEN_PID") == str(os.getpid())


def from_systemd() -> socket.socket | None:
    """Return the Unix socket that systemd hands over (sd_listen_fds(3)); None if it hands none over.

    Raises:
        UsageError: If it is another kind of socket, or there are several.
    """
    if not started_by_a_socket():
        return None
    count = os.environ.get("LISTEN_FDS", "")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if count != "1":
        raise UsageError(f"systemd hands {count} sockets over", hint="let the socket unit name one ListenStream")
    handed = socket.socket(fileno=_FIRST_FD)
    os.set_inheritable(_FIRST_FD, False)
    if handed.family != socket.AF_UNIX:
        raise UsageError("systemd hands over a socket that isn't a Unix socket", hint="use ListenStream=/path")
    return handed
