"""What the kernel says of the process at the other end of a socket, and what other processes may do to this one."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import struct
import sys
from typing import Final

__all__ = ["keep_to_itself", "peer_is_me", "peer_of"]

_XUCRED: Final = struct.Struct("=II")  # the beginning of macOS's struct xucred: version, user id
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_PR_SET_DUMPABLE: Final = 4


def keep_to_itself() -> None:
    """Leave no core dump, which would hold the PIN, and be no other process's to trace but root's."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # a limit of 0 doesn't bind a core_pattern that is a program: core(5), prctl(2)
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def peer_of(connection: socket.socket) -> tuple[int, int | None]:
    """Return the user id and the process id at the other end of a Unix socket, by the kernel's word.

    macOS tells no process id.
    """
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return user, process
    said = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 128)
    _, user = _XUCRED.unpack_from(said)
    return user, None


def peer_is_me(connection: socket.socket) -> bool:
    """Tell whether the process at the other end of a Unix socket is of this process's user."""
    return peer_of(connection)[0] == os.geteuid()
