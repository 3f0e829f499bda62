"""Verifying an audit trail: which line was changed, left out, put in or cut."""

from __future__ import annotations

from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hsm_keys.errors import UsageError
from hsm_keys.proxy.audit import FIRST_PREV, FORMAT, checkpoint_message, files_in, line_hash, parsed
from hsm_keys.proxy.doubts import Doubts
from hsm_keys.signing.algorithms import PublicKey, verifies
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hsm_keys.proxy.doubts import Place

__all__ = ["TrailFinding", "TrailReport", "read_public_key", "verify"]

_MOST_FINDINGS: Final = 100
_LONGEST: Final = 1 << 20
_REMEMBERED: Final = 100_000
"""How far back a checkpoint may point: far more than a proxy writes while a slow token signs."""


@dataclass(frozen=True, slots=True)
class TrailFinding:
    """Something wrong.

    Attributes:
        file: The file's name.
        line: The line, from 1.
        what: What is wrong with it.
    """

    file: str
    line: int
    what: str


@dataclass(slots=True)
class TrailReport:
    """What a trail is like.

    Attributes:
        lines: How many there are.
        checkpoints: How many signatures were verified.
        unsigned: Lines at the end that no checkpoint covers; the last checkpoint is always one of them.
        closed: Whether it ends as a proxy ends it that was told to stop.
        head: The hash of the last line.
        findings: What is wrong; the first hundred.
    """

    lines: int = 0
    checkpoints: int = 0
    unsigned: int = 0
    closed: bool = False
    head: str = FIRST_PREV
    findings: list[TrailFinding] = field(default_factory=list)


def read_public_key(pem: str) -> PublicKey:
    """Read a SubjectPublicKeyInfo PEM.

    Raises:
        UsageError: If it isn't one of an RSA or Ed25519 key.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, PublicKey):
        raise UsageError(
            "that isn't the PEM of a public key (RSA or Ed25519)", hint="`hsm-keys public-key NAME` prints one"
        )
    return key


def verify(
    folder: Path,
    public_keys: Sequence[PublicKey] = (),
    *,
    head: str | None = None,
    allow_unsigned_tail: bool = False,
) -> TrailReport:
    """Read a whole trail and check it, in memory that doesn't grow with it.

    Args:
        folder: Where its files are.
        public_keys: The keys that may have signed, all of them if the key was rotated; without them, the keys that
            the trail itself names.
        head: The hash of a line that the trail has to have, noted earlier and kept elsewhere: it shows that no end
            was cut off before it.
        allow_unsigned_tail: Find nothing in lines at the end that aren't signed: a proxy still writes the trail.

    Raises:
        UsageError: If there is no trail, or it can't be read.
    """
    files = _files_to_verify(folder)
    if not files:
        raise UsageError(
            f"there is no audit trail in {shown_path(folder)}", hint="give the folder that the proxy's --audit names"
        )
    reader = _Reader(public_keys, head, allow_unsigned_tail=allow_unsigned_tail)
    for number, path in enumerate(files, int(files[0].stem)):
        reader.begin(path.name)
        if int(path.stem) != number and not reader.found_missing_file:
            reader.found_missing_file = True
            reader.find("a file before this one is missing")
        try:
            for line in _lines(path):
                reader.read(line)
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}", hint="run it as the proxy's user") from None
    reader.end()
    return reader.report


def _files_to_verify(folder: Path) -> list[Path]:
    try:
        return files_in(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(
            f"{shown_path(folder)} can't be read: {error.strerror}", hint="run it as the proxy's user"
        ) from None


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file; of one that is far too long, its beginning."""
    with path.open("rb") as file:
        while line := file.readline(_LONGEST):
            yield line
            while len(line) == _LONGEST and not line.endswith(b"\n"):
                line = file.readline(_LONGEST)


class _Reader:
    """Reads line after line."""

    def __init__(self, public_keys: Sequence[PublicKey], head: str | None, *, allow_unsigned_tail: bool) -> None:
        self.report = TrailReport()
        self._doubts = Doubts(self._find_at, wants_signature=bool(public_keys), allow_unsigned_tail=allow_unsigned_tail)
        self.found_missing_file = False
        self._given = public_keys
        self._awaited = head
        self._key: PublicKey | None = None
        self._file = ""
        self._line = 0
        self._seq = 0
        # A line and the next one that don't fit: the lines after them tell which of the two was changed. Also the
        # number of findings at that time, because this finding comes before those of the second line.
        self._misfits: tuple[Place, Place, int] | None = None
        self._last: Place | None = None
        self._signed = 0
        # An OrderedDict, because finding the first entry of a dict skips over all that were deleted before it.
        self._unsigned: OrderedDict[int, str] = OrderedDict()

    def begin(self, name: str) -> None:
        """Come to the next file."""
        self._file, self._line = name, 0

    def find(self, what: str) -> None:
        """Note a finding about the current line."""
        self._find_at((self._file, self._line), what)

    def _find_at(self, place: Place, what: str) -> None:
        if len(self.report.findings) < _MOST_FINDINGS:
            self.report.findings.append(TrailFinding(*place, what))

    def read(self, line: bytes) -> None:
        """Check a line, and take it for what the next one follows."""
        self._line += 1
        self.report.lines += 1
        self.report.unsigned += 1
        record = parsed(line)
        if record is None:
            self._doubts.pass_over()
            self.find(_unreadable(line))
            return
        place, digest, seq = (self._file, self._line), line_hash(line), record["seq"]
        self._follow(record["prev"], seq, place)
        self.report.head, self._seq, self._last = digest, seq, place
        self._unsigned[seq] = digest
        if len(self._unsigned) > _REMEMBERED:
            self._unsigned.popitem(last=False)
        if digest == self._awaited:
            self._awaited = None
        self._doubts.read(record, place)
        self.report.closed = record["kind"] == "close" or (self.report.closed and record["kind"] == "checkpoint")
        if record["kind"] == "open":
            self._opened(record)
        if record["kind"] == "checkpoint":
            self._check_signature(record)

    def end(self) -> None:
        """Come to the end of the trail."""
        self._doubts.end((self._file, self._line))
        if self._signed == self._seq - 1:
            self._decide("the line was changed", second=True)
        else:
            self._decide("the line was changed, or the next one", second=False)
        if self._awaited is not None:
            self.find("the trail's end is missing after this line: no line has the hash that was given as its head")

    def _follow(self, prev: str, seq: int, place: Place) -> None:
        """Compare a line's number, and the hash that it holds, with the line before."""
        fits, comes_next = prev == self.report.head, seq == self._seq + 1
        decided = self._decide("the line was changed", second=comes_next and not fits)
        if not comes_next:
            self.find(_out_of_order(seq, self._seq))
        elif not fits and not decided:
            self._misfits = self._last or place, place, len(self.report.findings)

    def _decide(self, what: str, *, second: bool) -> bool:
        """Note which line of two that don't fit was changed; tell whether there were such."""
        if self._misfits is None:
            return False
        *places, at = self._misfits
        self._misfits = None
        if len(self.report.findings) < _MOST_FINDINGS:
            self.report.findings.insert(at, TrailFinding(*places[second], what))
        return True

    def _opened(self, record: dict[str, Any]) -> None:
        if self._line != 1 or record.get("format") != FORMAT:
            self.find("the file doesn't begin here, or has another format")
        named = record.get("public_key")
        try:
            self._key = read_public_key(named if isinstance(named, str) else "")
        except UsageError:
            self._key = None
            self.find("the public key that is named here can't be read")
        if self._key is not None and self._given and self._key not in self._given:
            self._key = None
            self.find("the file names another key than those that were given: its signatures don't count")

    def _check_signature(self, record: dict[str, Any]) -> None:
        try:
            signature = b64decode(record.get("signature") or "", validate=True)
        except (ValueError, TypeError):
            signature = b""
        of = record.get("of")
        of = of if type(of) is int else 0
        digest = self._unsigned.get(of)
        if self._key is None or digest is None or not verifies(self._key, checkpoint_message(of, digest), signature):
            self.find("the checkpoint's signature isn't of this key over this trail")
            return
        self.report.checkpoints += 1
        while self._unsigned and next(iter(self._unsigned)) <= of:
            self._unsigned.popitem(last=False)
        self.report.unsigned = max(self._seq - of, 1)
        self._signed = of
        self._doubts.signed(of)


def _out_of_order(seq: int, last: int) -> str:
    if seq > last:
        return f"lines {last + 1} to {seq - 1} of the trail are missing before this one"
    return f"the line was put in or moved: it is number {seq}, after number {last}"


def _unreadable(line: bytes) -> str:
    if line.endswith(b"\n"):
        return "the line isn't a JSON object of this format"
    return "the line is cut" if len(line) < _LONGEST else "the line is longer than any of a proxy"
