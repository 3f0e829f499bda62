"""Ports for servers that are started after their port is chosen, or stopped and started again on it."""

from __future__ import annotations

import os
import random
import socket
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_WORKERS = 16
_chosen: dict[int, Iterator[int]] = {}


def _ports() -> Iterator[int]:
    """Give the ports of this test process: none twice before all were given, and none of another worker of xdist."""
    worker = int("0" + "".join(filter(str.isdecimal, os.environ.get("PYTEST_XDIST_WORKER", "")))) % _WORKERS
    highest = int(_RANGE.read_text(encoding="ascii").split()[0])
    ports = list(range(_LOWEST + worker, highest, _WORKERS))
    random.SystemRandom().shuffle(ports)
    return cycle(ports)


def free_port() -> int:
    """Return a port that nobody listens at, from below those that the kernel gives to connections by itself (ip(7)).

    A port of the kernel's own choice may be given to a test that runs beside this one before it is used.
    """
    if os.getpid() not in _chosen:  # a child makes a choice of its own
        _chosen[os.getpid()] = _ports()
    ports = _chosen[os.getpid()]
    while True:
        port = next(ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
