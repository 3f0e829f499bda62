"""The audit trail: what is done to it is found."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hsm_keys.errors import SigningError, UsageError
from hsm_keys.proxy.audit import AuditError, AuditTrail, canonical
from hsm_keys.proxy.verifying import Report, verify
from hsm_keys.signing.algorithms import public_key_pem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Key:
    """A key in memory."""

    def __init__(self, api_key_id: str = "11111111-1111-1111-1111-111111111111") -> None:
        self.api_key_id = api_key_id
        self._private = Ed25519PrivateKey.generate()
        self.fails = False

    def public_key(self) -> Ed25519PublicKey:
        return self._private.public_key()

    def public_pem(self) -> str:
        return public_key_pem(self.public_key())

    def sign(self, message: bytes) -> bytes:
        assert not message[:1].isdigit()  # as every message to Kalshi begins
        if self.fails:
            raise SigningError("the token is away")
        return self._private.sign(message)


@pytest.fixture
def key() -> Key:
    return Key()


@pytest.fixture
def folder(tmp_path: Path, key: Key) -> Path:
    """Three files with a trail that has three checkpoints and was closed."""
    folder = tmp_path / "audit"
    trail = AuditTrail(folder, key=lambda: key, largest=3000)
    for number in range(20):
        trail.append("decision", client="maker", path=f"/trade-api/v2/{number}", uid=None, status=403)
        if number in {5, 15}:
            trail.checkpoint()
    trail.close()
    assert len(list(folder.glob("*.jsonl"))) == 3
    return folder


def edited(folder: Path, edit: Callable[[list[bytes]], object], name: str = "000002.jsonl") -> Report:
    path = folder / name
    lines = path.read_bytes().splitlines(keepends=True)
    edit(lines)
    path.write_bytes(b"".join(lines))
    return verify(folder)


def test_a_whole_trail_verifies(folder: Path, key: Key) -> None:
    report = verify(folder, key.public_key())
    assert (report.findings, report.checkpoints, report.closed, report.unsigned) == ([], 3, True, 1)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_changed_line_is_found(folder: Path) -> None:
    def change(lines: list[bytes]) -> None:
        lines[3] = lines[3].replace(b'"maker"', b'"taker"')

    report = edited(folder, change)
    assert (report.findings[0].file, report.findings[0].line) == ("000002.jsonl", 4)
    assert "changed" in report.findings[0].what


def test_a_line_that_was_changed_with_its_hash_is_found(folder: Path) -> None:
    import hashlib

    def forge(lines: list[bytes]) -> None:
        record = json.loads(lines[3])
        record["client"] = "taker"
        del record["hash"]
        record["hash"] = hashlib.sha256(canonical(record)).hexdigest()
        lines[3] = canonical(record) + b"\n"

    report = edited(folder, forge)
    assert report.findings[0].line == 5


def test_a_forged_rest_of_the_trail_lacks_its_signature(folder: Path, tmp_path: Path, key: Key) -> None:
    """Whoever rewrites the whole chain has no token to sign it."""
    other = Key()
    forged = tmp_path / "forged"
    trail = AuditTrail(forged, key=lambda: other)
    trail.append("decision", client="nobody")
    trail.close()
    assert verify(forged).findings == []  # it names its own key
    assert "signature" in verify(forged, key.public_key()).findings[0].what


def test_a_missing_line_is_found(folder: Path) -> None:
    report = edited(folder, lambda lines: lines.pop(2))
    assert (report.findings[0].line, "missing" in report.findings[0].what) == (3, True)


def test_an_inserted_line_is_found(folder: Path) -> None:
    report = edited(folder, lambda lines: lines.insert(2, lines[1]))
    assert (report.findings[0].line, "put in" in report.findings[0].what) == (3, True)


def test_lines_that_changed_places_are_found(folder: Path) -> None:
    def swap(lines: list[bytes]) -> None:
        lines[2], lines[3] = lines[3], lines[2]

    assert edited(folder, swap).findings[0].line == 3


def test_a_cut_line_is_found(folder: Path) -> None:
    def cut(lines: list[bytes]) -> None:
        lines[-1] = lines[-1][:40]

    report = edited(folder, cut, "000003.jsonl")
    assert report.findings[-1].what == "the line is cut"


def test_a_cut_end_is_seen(folder: Path) -> None:
    report = edited(folder, lambda lines: lines.pop(), "000003.jsonl")
    assert report.unsigned > 1
    report = edited(folder, lambda lines: lines.pop(), "000003.jsonl")
    assert not report.closed


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "000002.jsonl").unlink()
    report = verify(folder)
    assert "missing" in report.findings[0].what
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="no audit trail"):
        verify(folder)


@pytest.mark.parametrize("line", [b"{}\n", b"x\n", b'{"seq": 1}\n', b"\n", b"\xff\n", b"[" * 5000 + b"\n"])
def test_what_is_no_line_is_found(folder: Path, line: bytes) -> None:
    report = edited(folder, lambda lines: lines.insert(1, line))
    assert (report.findings[0].file, report.findings[0].line) == ("000002.jsonl", 2)


def test_it_goes_on_where_it_stopped(folder: Path, key: Key) -> None:
    before = verify(folder)
    trail = AuditTrail(folder, key=lambda: key)
    with pytest.raises(UsageError, match="another proxy"):
        AuditTrail(folder, key=lambda: key)
    trail.append("decision", client="\udcff\n")
    assert not verify(folder).closed
    trail.close()
    report = verify(folder, key.public_key())
    assert report.findings == []
    assert report.lines == before.lines + 4


def test_a_key_that_was_rotated_signs_a_file_of_its_own(tmp_path: Path, key: Key) -> None:
    keys = [key]
    trail = AuditTrail(tmp_path, key=lambda: keys[-1])
    trail.append("decision")
    keys.append(Key("22222222-2222-2222-2222-222222222222"))
    trail.close()
    report = verify(tmp_path)
    assert (report.findings, report.checkpoints) == ([], 1)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_token_that_is_away_stops_no_lines(tmp_path: Path, key: Key) -> None:
    trail = AuditTrail(tmp_path, key=lambda: key)
    key.fails = True
    with pytest.raises(SigningError):
        trail.checkpoint()
    trail.append("decision")
    trail.close()
    assert verify(tmp_path).findings == []


def test_a_line_that_was_written_by_half_is_taken_back(tmp_path: Path, key: Key) -> None:
    """As on a full disk."""
    import resource
    import signal

    trail = AuditTrail(tmp_path, key=lambda: key)
    trail.append("decision")
    size = (tmp_path / "000001.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))
    try:
        with pytest.raises(AuditError, match="can't be written"):
            trail.append("decision")
        assert trail.failed
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    trail.append("decision")
    assert not trail.failed
    trail.close()
    assert verify(tmp_path).findings == []
