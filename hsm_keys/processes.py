"""The process at the other end of a socket, as the kernel names it, and protection of this process from others."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = [
    "adopt_orphans",
    "be_private",
    "children_of",
    "die_with_parent",
    "keep_to_itself",
    "peer_is_me",
    "peer_of",
]

_XUCRED: Final = struct.Struct("=II")  # the beginning of macOS's struct xucred: version, user id
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36


def keep_to_itself() -> None:
    """Leave no core dump, which would hold the PIN, and be no other process's to trace but root's."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    be_private()  # a limit of 0 doesn't bind a core_pattern that is a program: core(5), prctl(2)


def peer_of(connection: socket.socket) -> tuple[int, int | None]:
    """Return the user id and the process id at the other end of a Unix socket, by the kernel's word.

    macOS tells no process id.
    """
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return user, process
    credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 128)
    _, user = _XUCRED.unpack_from(credentials)
    return user, None


def peer_is_me(connection: socket.socket) -> bool:
    """Tell whether the process at the other end of a Unix socket is of this process's user."""
    return peer_of(connection)[0] == os.geteuid()


def be_private() -> None:
    """Be no other process's to trace or to look into but root's: not its memory, and not its environment (proc(5))."""
    _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Be the parent of descendants whose own parent has ended (Linux): none gets away."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Be killed when the parent process ends, however it does (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def children_of(parent: int) -> list[int]:
    """Return the processes whose parent that is, by /proc; none where there is no such folder."""
    children = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            # The name, in brackets, may hold anything: what follows the last bracket is the state and the parent.
            if int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]) == parent:
                children.append(int(folder.name))
    return children


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
