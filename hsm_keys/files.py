"""Files that decide what is signed, or that hold a key: they are read only if nobody else could have a hand in them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_nobody_else_reads", "check_nobody_else_writes"]

_ROOT: Final = 0
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ: Final = stat.S_IRGRP | stat.S_IROTH | _OTHERS_WRITE


def check_nobody_else_writes(path: Path, file: int) -> None:
    """Refuse a file that another user than this one and root can change, or put another in the place of.

    Args:
        path: Where it is.
        file: The file itself, open.

    Raises:
        UsageError: If somebody can.
    """
    info = os.fstat(file)
    if info.st_mode & _OTHERS_WRITE or not _is_ours(info):
        raise UsageError(f"others can write {shown_path(path)}", hint=f"chmod go-w {path}, and own it")
    for folder in dict.fromkeys((path.absolute().parent, path.resolve().parent)):
        info = folder.stat()
        sticky = info.st_mode & stat.S_ISVTX  # there, a file is its owner's to replace
        if (info.st_mode & _OTHERS_WRITE and not sticky) or not _is_ours(info):
            raise UsageError(
                f"others can put another file in the place of {shown_path(path)}", hint=f"chmod go-w {folder}"
            )


def check_nobody_else_reads(path: Path) -> None:
    """Refuse a file with a private key that others can read; one of root's may be read by a group, as ssl-cert's are.

    Raises:
        UsageError: If they can, or there is none.
    """
    try:
        info = path.stat()
    except OSError as error:
        raise UsageError(f"{shown_path(path)} can't be read: {error.strerror}", hint="give a PEM file") from None
    allowed = stat.S_IRGRP if info.st_uid == _ROOT and os.geteuid() != _ROOT else 0
    if info.st_mode & _OTHERS_READ & ~allowed or not _is_ours(info):
        raise UsageError(f"others can read {shown_path(path)}, or write it", hint=f"chmod go-rw {path}, and own it")


def _is_ours(info: os.stat_result) -> bool:
    return info.st_uid in {_ROOT, os.geteuid()}
