"""The audit trail: what was asked, by whom, and what became of it; each line holds the hash of the one before.

A line is one JSON object in the canonical form of RFC 8785 with its own SHA-256 in ``hash``, computed without that
member. ``prev`` is the hash of the line before, also across files. A checkpoint is a line with a signature, made by
the key that the proxy signs with, over the number and hash of an earlier line (``of``). That text begins with words,
and Kalshi's messages begin with a time's digits: neither can be taken for the other.

A decision is written before anything is signed, its outcome afterwards in a line of its own (``of`` is the
decision's ``seq``): a proxy that is killed in between leaves the decision.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import HsmKeysError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsm_keys.proxy.signing import ProxyKey

__all__ = [
    "FIRST_PREV",
    "FORMAT",
    "AuditError",
    "AuditTrail",
    "canonical",
    "checkpoint_message",
    "files_in",
    "hash_member",
]

FORMAT: Final = "hsm-keys audit v1"
FIRST_PREV: Final = "0" * 64
_LARGEST: Final = 64 << 20
_CHECKPOINT_LINES: Final = 10_000
_CHECKPOINT_S: Final = 60.0
_SYNC_S: Final = 1.0

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class AuditError(HsmKeysError):
    """The audit trail can't be written, so that nothing is signed."""

    code = "audit"


def canonical(record: dict[str, Any]) -> bytes:
    """Return the canonical form (RFC 8785) of an object of ASCII names with texts, whole numbers, and null."""
    return _ENCODER.encode(record).encode()


def hash_member(digest: str) -> bytes:
    """Return the member that holds a line's hash, as it stands in the line; the hash is computed without it."""
    return f'"hash":"{digest}",'.encode()


def checkpoint_message(seq: int, digest: str) -> bytes:
    """Return what a checkpoint signs.

    Args:
        seq: The number of the last line that it vouches for.
        digest: The hash of that line.
    """
    return f"hsm-keys audit checkpoint v1\n{seq} {digest}\n".encode("ascii")


def files_in(folder: Path) -> list[Path]:
    """Return the trail's files in their order."""
    return sorted(path for path in folder.glob("*.jsonl") if path.stem.isdecimal())


class AuditTrail:
    """Writes a trail in a folder, from several threads; close it when done.

    Every line is given to the system before its request is signed, and the disk is told to keep what it has once a
    second and with every checkpoint: a crash of the program loses nothing, a loss of power at most one second.

    Args:
        folder: Where its files are (0700 and 0600); one trail at a time writes there.
        key: Gives the key that signs checkpoints; each file names it, and a key that took its place begins a new one.
        largest: Bytes of a file after which the next one is begun.

    Raises:
        UsageError: If another proxy writes there.
        AuditError: If it can't be written.
    """

    def __init__(self, folder: Path, *, key: Callable[[], ProxyKey], largest: int = _LARGEST) -> None:
        self._folder = folder
        self._key = key
        self._named: str | None = None
        self._largest = largest
        self._writing = threading.Lock()
        self._file = -1
        self._size = 0
        self._signed_seq = 0
        self._failed = ""
        self._lock = _lock(folder)
        self.seq, self.head, self._number = _end_of(folder)
        try:
            self._open_next()
        except BaseException:
            os.close(self._lock)
            raise
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="hsm-keys-audit", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> str:
        """Why the last line couldn't be written; empty if it could."""
        return self._failed

    def append(self, kind: str, **members: str | int | None) -> int:
        """Write a line and return its number.

        Raises:
            AuditError: If it can't be written; the file is as it was before.
        """
        with self._writing:
            seq = self._append(kind, members)
            if self._size >= self._largest:
                self._open_next()
            return seq

    def checkpoint(self) -> None:
        """Sign what there is, if there is anything new.

        Raises:
            HsmKeysError: Whatever the store raises when it can't sign.
        """
        with self._writing:
            seq, head = self.seq, self.head
        if seq == self._signed_seq:
            return
        key = self._key()
        signature = key.sign(checkpoint_message(seq, head))  # without the lock: a slow token delays no line
        if key.api_key_id != self._named:
            with self._writing:
                self._open_next()
        text = b64encode(signature).decode("ascii")
        self._signed_seq = self.append("checkpoint", of=seq, signature=text)
        with suppress(OSError):
            os.fsync(self._file)

    def close(self) -> None:
        """Sign the end and let go; a store that can't sign leaves it unsigned."""
        self._closing.set()
        self._thread.join()
        with suppress(HsmKeysError):
            self.append("close")
            self.checkpoint()
        with suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)
        os.close(self._lock)

    def _append(self, kind: str, members: dict[str, str | int | None]) -> int:
        record: dict[str, Any] = {name: _clean(value) for name, value in members.items()}
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        record.update(kind=kind, seq=self.seq + 1, prev=self.head, time=now)
        unhashed = canonical(record)
        digest = hashlib.sha256(unhashed).hexdigest()
        # "hash" comes right before "kind" in the order of names, and no text can hold an unescaped quote.
        line = unhashed.replace(b'"kind":', hash_member(digest) + b'"kind":', 1) + b"\n"
        try:
            written = os.write(self._file, line)
            if written < len(line):
                written += os.write(self._file, line[written:])  # says why it couldn't before
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            self._failed = error.strerror or str(error)
            raise AuditError(
                f"the audit trail in {self._folder} can't be written: {self._failed}",
                hint="make room; signing goes on by itself as soon as lines can be written",
            ) from None
        self._failed = ""
        self._size += len(line)
        self.seq, self.head = self.seq + 1, digest
        return self.seq

    def _open_next(self) -> None:
        """Begin the next file; an old one stays open until the new one has its first line."""
        old, size = self._file, self._size
        path = self._folder / f"{self._number + 1:06}.jsonl"
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise AuditError(f"{path} can't be made: {error.strerror}", hint="make room, or mend the folder") from None
        self._size = 0
        try:
            key = self._key()
            self._append("open", {"format": FORMAT, "api_key_id": key.api_key_id, "public_key": key.public_pem()})
            self._named = key.api_key_id
        except AuditError:
            os.close(self._file)
            path.unlink()
            self._file, self._size = old, size
            raise
        self._number += 1
        if old >= 0:
            os.fsync(old)
            os.close(old)

    def _look_after(self) -> None:
        """Sync each second, and sign now and then."""
        signed_at = time.monotonic()
        while not self._closing.wait(_SYNC_S):
            with suppress(OSError):
                os.fsync(self._file)
            due = time.monotonic() - signed_at >= _CHECKPOINT_S or self.seq - self._signed_seq >= _CHECKPOINT_LINES
            if due:
                signed_at = time.monotonic()
                with suppress(HsmKeysError):  # a store that is away signs the next one
                    self.checkpoint()


def _clean(value: str | int | None) -> str | int | None:
    """Return a text that JSON can hold: what came over the wire may have lone surrogates."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise AuditError(
            f"the folder {folder} can't be used: {error.strerror}", hint="choose another: --audit"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UsageError(f"another proxy writes its trail in {folder}", hint="stop it, or give --audit") from None
    return descriptor


def _end_of(folder: Path) -> tuple[int, str, int]:
    """Return the last line's number and hash, and the last file's number; what is wrong there is for ``verify``."""
    files = files_in(folder)
    for path in reversed(files):
        for line in reversed(path.read_bytes().splitlines()):
            with suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                return int(record["seq"]), str(record["hash"]), int(files[-1].stem)
    return 0, FIRST_PREV, int(files[-1].stem) if files else 0
