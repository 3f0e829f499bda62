"""One workflow at a time on a name: a lock of this machine that dies with its holder.

It keeps two runs of one user from working on a name at once. Runs on two machines, or of two users, don't see each
other here; what they do is settled at Kalshi and in the store (``registering``, ``KeyStore.generate``).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_keys.errors import KeyBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.base import KeyStore

__all__ = ["exclusive", "runtime_folder"]


@contextmanager
def exclusive(store: KeyStore, name: str) -> Iterator[None]:
    """Hold the name in that store for one workflow; the kernel lets go of it when the process ends, however it does.

    Raises:
        KeyBusyError: If another run holds it.
    """
    descriptor = _opened(store, name)
    try:
        if descriptor is not None:
            _lock(descriptor, name)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise KeyBusyError(
            f"another hsm-keys is working on {name!r} at this moment; nothing was changed",
            hint="wait until it has ended, then look with `hsm-keys list`",
        ) from None


def _opened(store: KeyStore, name: str) -> int | None:
    """Return a descriptor of the lock's file; None where no file can be made: then the second defence must do."""
    digest = hashlib.sha256(f"{store.describe()}\0{name}".encode(errors="surrogatepass")).hexdigest()[:32]
    with suppress(OSError):
        folder = runtime_folder()
        return os.open(folder / f"{digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    return None


def runtime_folder() -> Path:
    """Return a folder that belongs to this user alone.

    Raises:
        OSError: If there is none.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "hsm-keys" if runtime else Path(tempfile.gettempdir()) / f"hsm-keys-{os.geteuid()}"
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)  # noqa: PTH102 - pathlib looks at what is there, through links
    # Opened once, and then looked at: in a folder like /tmp others can put a link in its place between two looks.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EACCES, "it isn't a folder of this user alone", str(folder))
    return folder  # one of ours can't be replaced by others: where they may write, /tmp is sticky
