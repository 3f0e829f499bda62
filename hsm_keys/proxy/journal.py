"""The journal of what the caps hold: one JSON array a line, written to the system before anything is signed.

``write`` gives a line to the system, which keeps it whatever becomes of this process; ``sync`` has the disk keep it,
too. A line that was cut off at the end was never acted on, and is dropped; but not one that stands for all lines before
it, which takes their place when the disk has it. One proxy at a time writes a journal.
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticSerializationError, to_json

from hsm_keys.errors import HsmKeysError, UsageError
from hsm_keys.files import open_private, try_lock

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Journal", "JournalError", "read_journal"]

_LOOK_EVERY_S: Final = 0.1
"""Seconds after which it is looked again whether the file is still there: that takes as long as to write a line."""

_RESERVES: Final = b'["+"'
"""How a line begins that may be cut off though it is the first one."""

_log: Final = logging.getLogger(__name__)


class JournalError(HsmKeysError):
    """The journal of the caps can't be written, so that nothing that is capped is signed."""

    code = "caps"


class Journal:
    """A journal in a folder.

    Args:
        folder: Where it is (0700); it is made if it isn't there.

    Attributes:
        size: Bytes that it has.

    Raises:
        UsageError: If the folder can't be used, or another proxy uses it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal"
        self._new = folder / "journal.new"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = open_private(folder / "lock")
        except OSError as error:
            raise UsageError(f"{folder} can't be used: {error.strerror}", hint="set XDG_STATE_HOME") from None
        try:
            if not try_lock(self._lock):
                raise BlockingIOError(None, "another proxy uses it")
            self._file = open_private(self._path, os.O_APPEND)
        except OSError as error:
            os.close(self._lock)
            raise UsageError(
                f"{folder} can't be used: {error.strerror}", hint="one proxy at a time signs with a key"
            ) from None
        self.size = os.fstat(self._file).st_size
        self._looked_at = -inf

    def read(self) -> list[list[Any]]:
        """Return what its lines say, and cut off the end of one that was never whole.

        Raises:
            JournalError: If a line before the last one can't be read.
        """
        content = self._path.read_bytes()
        entries, torn = _lines_of(self._path, content)
        if torn:
            os.ftruncate(self._file, len(content) - torn)
            _log.warning("the last line of %s was cut off, and is dropped: nothing was signed for it", self._path)
        self.size = len(content) - torn
        return entries

    def write(self, line: list[Any]) -> None:
        """Write a line.

        Raises:
            JournalError: If it can't be written; the journal is as it was before.
        """
        content = _bytes_of(line)
        try:
            if time.monotonic() - self._looked_at > _LOOK_EVERY_S:
                self._look()
            if os.write(self._file, content) != len(content):  # a full disk, or a limit of the file's size
                raise self._failed("it takes no whole line")
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from None
        self.size += len(content)

    def _look(self) -> None:
        """Look whether the file is still there, and as it was left."""
        info = os.fstat(self._file)
        if not info.st_nlink:
            raise self._failed("it was removed; a restart begins anew with full caps")
        if info.st_size != self.size:  # what a failed write left there, and couldn't be cut off then
            os.ftruncate(self._file, self.size)
        self._looked_at = time.monotonic()

    def _failed(self, why: str) -> JournalError:
        self._looked_at = -inf
        with suppress(OSError):
            os.ftruncate(self._file, self.size)
        return JournalError(
            f"the journal of the caps, {self._path}, can't be written: {why}",
            hint="make room; signing goes on by itself as soon as it can be written",
        )

    def replace(self, line: list[Any]) -> None:
        """Put one line in the place of all that there are.

        Raises:
            JournalError: If it can't be written; the journal is as it was before.
        """
        content = _bytes_of(line)
        try:
            new = open_private(self._new, os.O_TRUNC | os.O_APPEND)
            try:
                if os.write(new, content) != len(content):
                    raise OSError(None, "it takes no whole line")
                os.fsync(new)
                self._new.replace(self._path)
            except OSError:
                os.close(new)
                raise
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from None
        os.close(self._file)
        self._file, self.size = new, len(content)

    def sync(self) -> None:
        """Have the disk keep what was written; blocks."""
        with suppress(OSError):
            os.fdatasync(self._file) if hasattr(os, "fdatasync") else os.fsync(self._file)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)
        os.close(self._lock)


def _bytes_of(line: list[Any]) -> bytes:
    """Return a line as it is written."""
    try:
        return to_json(line) + b"\n"
    except PydanticSerializationError:  # half of a surrogate pair in a text of Kalshi's, which JSON can escape
        return json.dumps(line).encode() + b"\n"


def read_journal(path: Path) -> list[list[Any]]:
    """Return what the lines of a journal say, and leave it as it is; another program may be writing it.

    Raises:
        OSError: If it can't be opened.
        JournalError: If a line before the last one can't be read.
    """
    return _lines_of(path, path.read_bytes())[0]


def _lines_of(path: Path, content: bytes) -> tuple[list[list[Any]], int]:
    """Return what lines say, and the length of one at the end that was never whole."""
    lines = content.split(b"\n")
    torn = len(lines.pop())
    entries: list[list[Any]] = []
    for number, line in enumerate(lines, 1):
        parsed = _parsed(line)
        if parsed is None and number == len(lines):  # a power failure may keep a line's end and not its beginning
            torn += len(line) + 1
        elif parsed is None:
            raise _unreadable(path, number)
        else:
            entries.append(parsed)
    if torn and not entries and not content.startswith(_RESERVES):
        raise _unreadable(path, 1)
    return entries, torn


def _unreadable(path: Path, number: int) -> JournalError:
    return JournalError(
        f"line {number} of {path} can't be read",
        hint="what is left of the caps isn't known: move the file away to begin anew with full caps",
    )


def _parsed(line: bytes) -> list[Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, list) and entry else None
