"""The standard streams of a contained program: the only descriptors that it gets from outside."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from hsm_keys.running.containing.kernel import ContainmentError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_streams"]

_NAMES: Final = ("input", "output", "error")


def check_streams(descriptors: Sequence[int]) -> None:
    """Refuse streams that lead out of namespaces: an open folder, and a socket that could be connected anew.

    Args:
        descriptors: Standard input, output and error.

    Raises:
        ContainmentError: If one is such.
    """
    for name, descriptor in zip(_NAMES, descriptors, strict=True):
        what = _way_out(descriptor)
        if what:
            raise ContainmentError(
                f"standard {name} is {what}, through which the program could get out; the program was not started",
                hint="put a pipe in between: cat | hsm-keys run ... | cat",
            )


def _way_out(descriptor: int) -> str:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:  # a closed descriptor is harmless
        return ""
    if stat.S_ISDIR(mode):
        return "a folder"
    if not stat.S_ISSOCK(mode):
        return ""
    with socket.socket(fileno=os.dup(descriptor)) as one:
        connected = one.family == socket.AF_UNIX and one.type != socket.SOCK_DGRAM
    return "" if connected else "a socket of a network, or of datagrams"
