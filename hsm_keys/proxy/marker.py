"""Keeps over restarts whether signing is frozen, in a file that exists from the start: a full disk can't thaw it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hsm_keys.files import open_private, sync_folder

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FreezeMarker"]

_FROZEN: Final = b"frozen\n"
_THAWED: Final = b"thawed\n"


class FreezeMarker:
    """A file that says ``thawed`` or, in as many bytes, ``frozen``: what it says is changed in place.

    To change it takes no room on the disk. Whatever else stands in it, such as half of a write, counts as frozen.

    Args:
        path: The file; it is made, and says ``thawed``, if there is none.

    Raises:
        OSError: If it can't be made or opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._opened()

    @property
    def frozen(self) -> bool:
        """Whether a proxy that starts now has to be frozen."""
        return os.pread(self._file, len(_THAWED) + 1, 0) != _THAWED

    def write(self, *, frozen: bool) -> None:
        """Have the disk keep it.

        Raises:
            OSError: If it isn't kept.
        """
        if not self._is_in_place():
            os.close(self._file)
            self._file = self._opened()
        _overwrite(self._file, _FROZEN if frozen else _THAWED)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _is_in_place(self) -> bool:
        """Tell whether a restart would find this very file."""
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(self._path))
        except OSError:
            return False

    def _opened(self) -> int:
        with suppress(FileNotFoundError):
            return os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        new = self._path.with_name(f"{self._path.name}.new")  # a file that is half made must not freeze
        file = open_private(new, os.O_TRUNC)
        try:
            _overwrite(file, _THAWED)
            new.replace(self._path)
            sync_folder(self._path.parent)
        except OSError:
            os.close(file)
            raise
        return file


def _overwrite(file: int, text: bytes) -> None:
    written = 0
    while written < len(text):  # a write that stops half way says why when it is asked for the rest
        written += os.pwrite(file, text[written:], written)
    os.ftruncate(file, len(text))
    os.fsync(file)
