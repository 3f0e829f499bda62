"""Files and folders that only this user may use: make, lock, write in one step, flush to the disk, check before use."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from hsm_keys.errors import UsageError
from hsm_keys.values import describe, shown_path

__all__ = [
    "check_folder_to_be",
    "check_nobody_else_reads",
    "check_nobody_else_writes",
    "check_place_for",
    "check_private_folder",
    "open_private",
    "private_folder",
    "runtime_folder",
    "sync_folder",
    "temporary_folder",
    "try_lock",
    "warn_if_others_read",
    "write_whole",
]

_ROOT: Final = 0
_TMP: Final = "/tmp"  # noqa: S108 - what is made there is made for this user alone
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ: Final = stat.S_IRGRP | stat.S_IROTH | _OTHERS_WRITE
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def open_private(path: Path, flags: int = 0) -> int:
    """Open a file for reading and writing, made with mode 0600 if it isn't there; a link in its place isn't followed.

    Args:
        path: Where it is.
        flags: Further ones of ``os.open``.

    Returns:
        Its descriptor, which programs that this process runs don't get.

    Raises:
        OSError: If it can't be opened.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)


def private_folder(path: Path) -> None:
    """Make a folder that nobody else can enter, if it isn't there.

    Raises:
        UsageError: If it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(
            f"{shown_path(path)} can't be made: {error.strerror}", hint="set XDG_CONFIG_HOME to a folder of yours"
        ) from None


def check_place_for(path: Path, option: str) -> None:
    """Make sure, before anything is asked, that a file can be made at a path.

    Args:
        path: Where.
        option: What named it.

    Raises:
        UsageError: If it is a folder, or there is no folder for it, or nothing can be made there.
    """
    _check_no_secret(path, option)
    place = Path(os.path.realpath(path))
    if os.path.isdir(place):
        raise UsageError(f"{shown_path(path)} is a folder", hint=f"give the path of a file: {option}")
    if not os.path.isdir(place.parent):
        raise UsageError(
            f"there is no folder for {shown_path(path)}; nothing was done",
            hint=f"make it first, or choose another path: {option}",
        )
    _check_writable(place.parent, option)


def check_folder_to_be(path: Path, option: str) -> None:
    """Make sure, before anything is asked, that a folder is there or can be made, with those that it is in.

    Args:
        path: Where.
        option: What named it.

    Raises:
        UsageError: If what is there is no folder, or nothing can be made there.
    """
    _check_no_secret(path, option)
    place = Path(os.path.realpath(path))
    there = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
    if not os.path.isdir(there):
        raise UsageError(
            f"{shown_path(path)} can't be a folder: {shown_path(there)} isn't one", hint=f"choose another: {option}"
        )
    _check_writable(there, option)


def _check_no_secret(path: Path, option: str) -> None:
    """Refuse a private key given instead of a path: a file would be made with the key as its name."""
    text = os.fspath(path)
    if not text.isprintable() or "-----BEGIN" in text:
        raise UsageError(f"{describe(text)} isn't a path", hint=f"give the path of a file or folder: {option}")


def _check_writable(folder: Path, option: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"nothing can be written in {shown_path(folder)}", hint=f"choose another place: {option}")


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder against other processes, without waiting; the lock ends with its last descriptor.

    Returns:
        Whether it is locked now; another process holds it if not.

    Raises:
        OSError: If it can't be locked at all.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names of files that were made, renamed or linked in a folder.

    Raises:
        OSError: If the disk or its file system can't.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a text file (UTF-8, 0600) in one step: a reader finds the new file complete, or the old one.

    Raises:
        OSError: If it can't be written; nothing is left of it.
    """
    import tempfile

    descriptor, part = tempfile.mkstemp(prefix=path.name, dir=path.resolve().parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power failure may leave an empty file with this name
        Path(part).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(part).unlink()
        raise


def temporary_folder() -> Path:
    """Return the folder for what is gone when the machine starts again: ``TMPDIR``, or /tmp.

    Unlike tempfile's, nothing is written to find it: a kill switch is found on a full disk, too, and in less time.
    """
    named = os.environ.get("TMPDIR", "")
    return Path(named if Path(named).is_absolute() and os.path.isdir(named) else _TMP)


def runtime_folder() -> Path:
    """Return the folder for locks and sockets, made if it isn't there; it belongs to this user alone.

    Raises:
        OSError: If there is none.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "hsm-keys" if runtime else temporary_folder() / f"hsm-keys-{os.geteuid()}"
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)  # noqa: PTH102 - pathlib looks at what is there, through links
    # Opened first, and then checked: in a folder like /tmp others could replace it by a link between two checks.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        check_private_folder(folder, descriptor)
    finally:
        os.close(descriptor)
    return folder  # one of ours can't be replaced by others: where they may write, /tmp is sticky


def check_private_folder(folder: Path, descriptor: int) -> None:
    """Refuse an open folder that another user owns or can enter.

    Raises:
        PermissionError: If one does or can.
    """
    info = os.fstat(descriptor)
    if info.st_uid != os.geteuid() or info.st_mode & _OTHERS:
        raise PermissionError(errno.EACCES, "it isn't a folder of this user alone", str(folder))


def warn_if_others_read(kind: str, path: str, descriptor: int) -> None:
    """Log a warning about an open file with a secret that others can read; a pipe is nobody else's.

    Args:
        kind: What it is, for people.
        path: Where it is.
        descriptor: The file, open.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        import logging  # importing it takes longer than reading a profile

        logging.getLogger("hsm_keys").warning("the %s file %s can be read by others: chmod 600 it", kind, path)


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
        raise UsageError(
            f"others can write {shown_path(path)}", hint=f"chmod go-w {path}, and make it your own (chown)"
        )
    for folder in dict.fromkeys((path.absolute().parent, path.resolve().parent)):
        info = folder.stat()
        sticky = info.st_mode & stat.S_ISVTX  # in a sticky folder only a file's owner can replace it
        if (info.st_mode & _OTHERS_WRITE and not sticky) or not _is_ours(info):
            raise UsageError(
                f"others can replace {shown_path(path)}: they can write to its folder", hint=f"chmod go-w {folder}"
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
        raise UsageError(
            f"others can read {shown_path(path)}, or write it", hint=f"chmod go-rw {path}, and make it your own (chown)"
        )


def _is_ours(info: os.stat_result) -> bool:
    return info.st_uid in {_ROOT, os.geteuid()}
