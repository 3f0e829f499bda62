"""What tests look at of an isolated store: its signer's process, and where that listens."""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from hsm_keys.stores.isolated.store import IsolatedStore

API_KEY_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def signer_of(store: IsolatedStore) -> subprocess.Popen[bytes]:
    """Return the signer that this process owns."""
    process = store._process._process
    assert process is not None
    return process


def socket_of(store: IsolatedStore) -> Path:
    """Return where the signer listens."""
    return store._process._folder.socket


def served_by(store: IsolatedStore) -> set[int]:
    """Return the ids of the processes at the other end of this process's connections."""
    said = (each._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12) for each in store._every)
    return {struct.unpack("3i", credentials)[0] for credentials in said}


def wait_for_end(pid_descriptor: int, seconds: float = 20) -> bool:
    """Tell whether the process of that descriptor ends in time."""
    return bool(select.select([pid_descriptor], [], [], seconds)[0])


def in_child(work: Callable[[], str]) -> str:
    """Return what the work gives in a forked child; an exception's class and words, if it raises one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            told = work()
        except BaseException as error:  # noqa: BLE001 - the parent must hear of it
            told = f"{type(error).__name__}: {error}"
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told
