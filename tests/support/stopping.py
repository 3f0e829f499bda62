"""Stops processes, and waits until they stand: a signal that is sent is carried out a moment later."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def stop(process: int) -> None:
    """Stop a child of this process. On return none of its threads runs."""
    os.kill(process, signal.SIGSTOP)
    os.waitid(os.P_PID, process, os.WSTOPPED | os.WNOWAIT)


def stop_group(group: int) -> None:
    """Stop a process group of Linux, whoever its processes are children of. On return none of them runs."""
    os.killpg(group, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while not all(state in "TZ" for state in _states(group)):  # of others' children there is no event to wait for
        assert time.monotonic() < deadline, f"process group {group} goes on"
        time.sleep(0.002)


def _states(group: int) -> list[str]:
    """The states of the group's threads (proc(5)): T is stopped, Z has ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):  # ended since it was listed
            continue
        if int(of_group) == group:
            found.append(state)
    return found
