"""The private folder that the signer's socket is in, and the lock under which a signer is started or cleaned up."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import StoreUnavailableError
from hsm_keys.files import check_private_folder, try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PrivateFolder"]

_LONGEST: Final = 100  # bytes of a socket's path: 104 on macOS and 108 on Linux, with a NUL
_SOCKET: Final = "signer"
_PAUSE_S: Final = 0.01


class PrivateFolder:
    """A folder of mode 0700 for one socket.

    Args:
        path: Where it is, or was: the last signer to go removes it.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.socket: Final = path / _SOCKET

    @classmethod
    def new(cls) -> PrivateFolder:
        """Make one, in ``XDG_RUNTIME_DIR`` if there is one and a socket's path can be as long."""
        bases = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp")  # noqa: S108 - mkdtemp makes it private
        for base in bases:
            if (
                base
                and os.path.isdir(base)
                and len(os.fsencode(base)) + len("/hsm-keys-12345678/" + _SOCKET) <= _LONGEST
            ):
                with suppress(OSError):
                    return cls(Path(tempfile.mkdtemp(prefix="hsm-keys-", dir=base)))
        raise StoreUnavailableError(
            "no folder for the signer's socket was found",
            hint="set XDG_RUNTIME_DIR to a short path that you may write to",
        )

    @contextmanager
    def locked(self, *, patience: float) -> Iterator[bool]:
        """Hold the folder against every other process, made anew if it was removed.

        Args:
            patience: Seconds to wait for another holder.

        Yields:
            Whether it is held.

        Raises:
            OSError: If there is no such folder, and it can't be made.
        """
        until = time.monotonic() + patience
        descriptor = self._acquired(until)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may have the descriptor too
                os.close(descriptor)

    def _acquired(self, until: float) -> int | None:
        while True:
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if not try_lock(descriptor):
                    if time.monotonic() >= until:
                        os.close(descriptor)
                        return None
                    time.sleep(_PAUSE_S)
                elif self._is_still(descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _is_still(self, descriptor: int) -> bool:
        """Tell whether the path still names what was locked, and that it is private.

        Raises:
            PermissionError: If it isn't private: somebody else made it after it was removed.
        """
        check_private_folder(self.path, descriptor)
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), self.path.lstat())
        return False

    def remove(self, inode: int | None = None) -> None:
        """Remove socket and folder, unless others keep something in it; hold it.

        Args:
            inode: If given, nothing is removed unless it is the socket's: a later signer's stays.
        """
        with suppress(OSError):
            if inode is not None and self.socket.lstat().st_ino != inode:
                return
            self.socket.unlink(missing_ok=True)
            self.path.rmdir()
