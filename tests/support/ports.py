"""Ports for servers that are started after their port is chosen, or stopped and started again on it."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000


def free_port() -> int:
    """Return a port that nobody listens at, from below those that the kernel gives to connections by itself (ip(7)).

    A port of the kernel's own choice may be given to a test that runs beside this one before it is used.
    """
    highest = int(_RANGE.read_text(encoding="ascii").split()[0])
    while True:
        port = random.SystemRandom().randrange(_LOWEST, highest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
