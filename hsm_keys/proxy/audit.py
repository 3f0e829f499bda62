"""The audit trail: each request, its client, the decision and the outcome. Each line holds the hash of the one before.

A line is one JSON object. ``prev`` is the SHA-256 of the line before it as it is in the file, with its newline, also
across files: `sha256sum` gives the same. A checkpoint is a line with a signature by the proxy's key over the number and
hash of an earlier line (``of``). The signed text begins with words, and Kalshi's messages begin with the digits of a
time, so neither can be used as the other.

A decision is written before anything is signed, and its outcome afterwards in a line of its own (``of`` is the
decision's ``seq``): a proxy that is killed in between leaves the decision.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from base64 import b64encode
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Never

from hsm_keys.errors import HsmKeysError, UsageError
from hsm_keys.files import open_private, try_lock
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from hsm_keys.proxy.signing import ProxyKey

    Members = Mapping[str, str | int | None]

__all__ = [
    "CHECKPOINT_LINES",
    "CHECKPOINT_S",
    "FIRST_PREV",
    "FORMAT",
    "AuditError",
    "AuditTrail",
    "SpelledMembers",
    "checkpoint_message",
    "files_in",
    "line_hash",
    "parsed",
]

FORMAT: Final = "hsm-keys audit v1"
FIRST_PREV: Final = "0" * 64
_LARGEST: Final = 64 << 20
_BLOCK: Final = 64 << 10
"""Bytes of the last file that are read at a start: many times the longest line."""
CHECKPOINT_LINES: Final = 10_000
"""Lines after which a checkpoint is signed."""
CHECKPOINT_S: Final = 60.0
"""Seconds after which one is signed, if there is a line that isn't."""
_SYNC_S: Final = 1.0

_log: Final = logging.getLogger(__name__)
_LARGEST_NUMBER: Final = 2**53 - 1  # the largest that every JSON parser reads exactly (RFC 8259, section 6)
_HASH: Final = re.compile("[0-9a-f]{64}")


def _refuse(text: str) -> Never:
    raise ValueError(f"{text} is no whole number")


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)
_DECODER: Final = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse)


class AuditError(HsmKeysError):
    """The audit trail can't be written, so that nothing is signed."""

    code = "audit"


def line_hash(line: bytes) -> str:
    """Return the SHA-256 of a line with its newline, in hex: ``prev`` of the next one."""
    return hashlib.sha256(line).hexdigest()


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the object that a line with its newline holds; None if no trail has such a line."""
    try:
        text = line.decode()
        record, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if text[end:] != "\n" or not isinstance(record, dict):
        return None
    seq, texts = record.get("seq"), [record.get(name) for name in ("prev", "kind", "time")]
    if type(seq) is not int or not 0 < seq <= _LARGEST_NUMBER or not all(isinstance(text, str) for text in texts):
        return None
    return record if _HASH.fullmatch(record["prev"]) else None


def checkpoint_message(seq: int, digest: str) -> bytes:
    """Return what a checkpoint signs.

    Args:
        seq: The number of the last line that it covers.
        digest: The hash of that line.
    """
    return f"hsm-keys audit checkpoint v1\n{seq} {digest}\n".encode("ascii")


def files_in(folder: Path) -> list[Path]:
    """Return the trail's files in their order.

    Raises:
        OSError: If there is no folder, or it can't be read.
    """
    files = [path for path in folder.iterdir() if path.suffix == ".jsonl" and path.stem.isdecimal()]
    return sorted(files, key=lambda path: int(path.stem))


class AuditTrail:
    """Writes a trail in a folder, from several threads; close it when done.

    Every line is given to the system before its request is signed, and the disk is told to keep what it has once a
    second and with every checkpoint: a crash of the program loses nothing, a loss of power at most one second. A disk
    that says that it couldn't keep it stops the trail until it can.

    Args:
        folder: Where its files are (0700 and 0600); one trail at a time writes there.
        key: Gives the key that signs checkpoints; each file names it, and a key that took its place begins a new one.
        largest: Bytes of a file after which the next one is begun.

    Raises:
        UsageError: If another proxy writes there, or others can.
        AuditError: If it can't be written.
    """

    def __init__(self, folder: Path, *, key: Callable[[], ProxyKey], largest: int = _LARGEST) -> None:
        self._folder = folder
        self._key = key
        self._largest = largest
        self._writing = threading.Lock()
        self._syncing = threading.Lock()
        self._file = -1
        self._full: list[int] = []
        self._size = 0
        self._signed_seq = 0
        self._failed = ""
        self._unsynced = ""
        self._wake = threading.Event()
        with ExitStack() as undo:
            self._lock = _lock(folder)
            undo.callback(os.close, self._lock)
            try:
                self._directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                undo.callback(os.close, self._directory)
                self.seq, self.head, self._number = _end_of(folder)
            except OSError as error:
                raise AuditError(
                    f"{shown_path(folder)} can't be read: {error.strerror}", hint="mend it, or give --audit"
                ) from None
            self._named = key()
            self._open_next(self._named)
            undo.pop_all()
        self._closing = False
        self._thread = threading.Thread(target=self._look_after, name="hsm-keys-audit", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> str:
        """Why the last line couldn't be written or kept; empty if it could."""
        return self._failed or self._unsynced

    def append(self, kind: str, **members: str | int | None) -> int:
        """Write a line and return its number.

        Raises:
            AuditError: If it can't be written; the file is as it was before.
        """
        return self.append_lines([(kind, members)])

    def append_lines(self, lines: Iterable[tuple[str, Members]]) -> int:
        """Write lines in one go, and return the number of the last one.

        Args:
            lines: Their kinds and members.

        Raises:
            AuditError: If they can't be written; the file is as it was before.
        """
        with self._writing:
            if self._unsynced:
                raise self._stopped(self._unsynced)
            if self._size >= self._largest or not os.fstat(self._file).st_nlink:  # full, or somebody removed it
                self._open_next(self._named)
            return self._append([
                (kind, members.text if isinstance(members, SpelledMembers) else _spelled(members))
                for kind, members in lines
            ])  # fmt: skip

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
        if key.api_key_id != self._named.api_key_id:
            with self._writing:
                self._open_next(key)
        text = b64encode(signature).decode("ascii")
        at = self.append("checkpoint", of=seq, signature=text)
        self._signed_seq = at if at == seq + 1 else seq  # lines that came meanwhile aren't signed yet
        self._sync()

    def close(self) -> None:
        """Sign the end and let go; a store that can't sign leaves it unsigned."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        with suppress(HsmKeysError):
            self.append("close")
            self.checkpoint()
        self._sync()
        for descriptor in (self._file, self._directory, self._lock):
            os.close(descriptor)

    def _stopped(self, why: str) -> AuditError:
        """Note why no line can be written, once in the log too, and return the error that says so."""
        error = AuditError(
            f"the audit trail in {self._folder} can't be written: {why}",
            hint="make room; signing goes on by itself as soon as lines can be written",
        )
        if not self._failed:
            _log.error("%s", error)
        self._failed = why
        return error

    def _append(self, lines: Iterable[tuple[str, str]]) -> int:
        """Write lines: their kinds, and their members as they stand in a line, each behind a comma."""
        seq, head, now, written = self.seq, self.head, _now(), []
        for kind, members in lines:
            seq += 1
            line = f'{{"seq":{seq},"time":"{now}","kind":"{kind}","prev":"{head}"{members}}}\n'.encode()
            head = line_hash(line)
            written.append(line)
        rest = b"".join(written)
        size = len(rest)
        try:
            while rest:  # a write that stops half way says why when it is asked for the rest
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise self._stopped(error.strerror or str(error)) from None
        if self._failed:
            _log.warning("the audit trail can be written again")
        self._failed = ""
        self._size += size
        unsigned = self.seq - self._signed_seq
        self.seq, self.head = seq, head
        if unsigned < CHECKPOINT_LINES <= seq - self._signed_seq:
            self._wake.set()
        return seq

    def _open_next(self, key: ProxyKey) -> None:
        """Begin the next file; an old one stays open until the new one has its first line."""
        named = {"format": FORMAT, "api_key_id": key.api_key_id, "public_key": key.public_pem()}
        old, size = self._file, self._size
        path = self._folder / f"{self._number + 1:06}.jsonl"
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise self._stopped(f"{path} can't be made: {error.strerror}") from None
        self._size = 0
        try:
            self._append([("open", "".join(f",{_text(name, value)}" for name, value in named.items()))])
        except AuditError:
            os.close(self._file)
            path.unlink(missing_ok=True)
            self._file, self._size = old, size
            raise
        self._named = key
        self._number += 1
        if old >= 0:
            self._full.append(old)  # synced and closed by another thread: it takes a while

    def _sync(self) -> None:
        """Tell the disk to keep what was written, and the names of new files."""
        with self._syncing:
            with self._writing:
                full, self._full = self._full, []
                files = [*full, self._file]
            try:
                for descriptor in files:
                    os.fsync(descriptor)
                with suppress(OSError):  # not every file system can do that with a folder
                    os.fsync(self._directory)
            except OSError as error:
                self._unsynced = error.strerror or str(error)
                self._stopped(self._unsynced)
            else:
                self._unsynced = ""
            for descriptor in full:
                os.close(descriptor)

    def _look_after(self) -> None:
        """Sync each second, and sign now and then."""
        signed_at = time.monotonic()
        while True:
            self._wake.wait(_SYNC_S)
            self._wake.clear()
            if self._closing:
                return
            self._sync()
            if self._failed:  # nobody may ask for a signature until the proxy says that it is ready
                with suppress(AuditError):
                    self.append("resumed")
            due = time.monotonic() - signed_at >= CHECKPOINT_S or self.seq - self._signed_seq >= CHECKPOINT_LINES
            if due:
                signed_at = time.monotonic()
                with suppress(HsmKeysError):  # if the store can't be reached now, it signs the next checkpoint
                    self.checkpoint()


class SpelledMembers(dict[str, "str | int | None"]):
    """Members of a line that comes again and again: how they stand in it is kept."""

    __slots__ = ("text",)

    def __init__(self, members: Members) -> None:
        super().__init__(members)
        self.text = _spelled(members)


def _spelled(members: Members) -> str:
    """Return members as they stand in a line, each behind a comma, and as they can be shown."""
    return "".join([
        f',"{name}":{value:d}' if isinstance(value, int) else _text_member(name, value)
        for name, value in members.items()
    ])  # fmt: skip


@lru_cache(maxsize=1024)
def _text_member(name: str, value: str | None) -> str:
    return f",{_text(name, _clean(value))}"


def _text(name: str, value: str | None) -> str:
    return f'"{name}":{_ENCODER.encode(value)}'


def _now() -> str:
    """Return the time as RFC 3339 writes it, in UTC, with microseconds."""
    second, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{_whole_second(second)}.{rest // 1000:06}Z"


@lru_cache(maxsize=1)
def _whole_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _clean(value: str | None) -> str | None:
    """Return a text that can be shown: what came over the wire may have surrogates, and codes that steer a terminal."""
    if value is not None and not value.isprintable():
        return value.encode("unicode_escape").decode("ascii")
    return value


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o022:
            raise UsageError(
                f"others can write to {shown_path(folder)}", hint=f"chmod 700 {folder}, or give another folder: --audit"
            )
        descriptor = open_private(folder / "lock")
        locked = try_lock(descriptor)
    except OSError as error:
        raise AuditError(
            f"the folder {shown_path(folder)} can't be used: {error.strerror}", hint="give another folder: --audit"
        ) from None
    if not locked:
        os.close(descriptor)
        raise UsageError(
            f"another proxy writes its trail to {folder}", hint="stop that proxy, or give another folder: --audit"
        )
    return descriptor


def _end_of(folder: Path) -> tuple[int, str, int]:
    """Return the last line's number and hash, and the last file's number; what is wrong there is for ``verify``."""
    files = files_in(folder)
    for path in reversed(files):
        size = path.stat().st_size
        # The whole file is read only if its end holds no line.
        for begin in sorted({0, max(0, size - _BLOCK)}, reverse=True):
            for line in _lines_from(path, begin):
                if record := parsed(line):
                    return record["seq"], line_hash(line), int(files[-1].stem)
    return 0, FIRST_PREV, int(files[-1].stem) if files else 0


def _lines_from(path: Path, begin: int) -> list[bytes]:
    """Return the whole lines of a file behind that byte, the last one first."""
    with path.open("rb") as file:
        file.seek(begin)
        lines = file.read().split(b"\n")
    return [line + b"\n" for line in reversed(lines[1 if begin else 0 : -1])]
