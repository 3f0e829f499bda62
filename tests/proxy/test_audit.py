"""The audit trail: what is done to it is found."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hsm_keys.errors import SigningError, UsageError
from hsm_keys.proxy import audit
from hsm_keys.proxy.audit import FIRST_PREV, AuditError, AuditTrail
from hsm_keys.proxy.verifying import TrailReport, verify
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


def as_line(record: dict[str, Any]) -> bytes:
    """Return a line that holds what it is given: not as the product writes it, but as anybody may."""
    return json.dumps(record).encode() + b"\n"


@pytest.fixture
def key() -> Key:
    return Key()


@pytest.fixture
def folder(tmp_path: Path, key: Key) -> Path:
    """Three files with a trail that has three checkpoints and was closed."""
    folder = tmp_path / "audit"
    trail = AuditTrail(folder, key=lambda: key, largest=2200)
    for number in range(20):
        trail.append("decision", client="maker", path=f"/trade-api/v2/{number}", uid=None, status=403)
        if number in {5, 15}:
            trail.checkpoint()
    trail.close()
    assert len(list(folder.glob("*.jsonl"))) == 3
    return folder


def edited(folder: Path, edit: Callable[[list[bytes]], object], name: str = "000002.jsonl") -> TrailReport:
    path = folder / name
    lines = path.read_bytes().splitlines(keepends=True)
    edit(lines)
    path.write_bytes(b"".join(lines))
    return verify(folder)


def test_lines_of_one_go_are_one_write_and_a_chain(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, write = tmp_path / "audit", os.write
    written: list[bytes] = []
    trail = AuditTrail(folder, key=lambda: key)

    def noting(file: int, data: bytes) -> int:
        written.append(data)
        return write(file, data)

    monkeypatch.setattr(os, "write", noting)
    assert trail.append_lines([("outcome", {"of": 1, "status": 200}), ("decision", {"client": "maker"})]) == 3
    assert [len(data.splitlines()) for data in written] == [2]
    monkeypatch.undo()
    trail.close()
    assert verify(folder).findings == []


def test_of_lines_that_cannot_all_be_written_none_is(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, write = tmp_path / "audit", os.write
    trail = AuditTrail(folder, key=lambda: key)
    whole = (folder / "000001.jsonl").read_bytes()

    def full(file: int, data: bytes) -> int:
        if not data.startswith(b'{"seq":2'):  # the rest of the first write
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: len(data) // 2 + 40])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AuditError):
        trail.append_lines([("outcome", {"of": 1}), ("decision", {"client": "maker"})])
    monkeypatch.undo()
    assert (folder / "000001.jsonl").read_bytes() == whole
    assert trail.append("decision") == 2
    trail.close()
    assert verify(folder).findings == []


def test_a_whole_trail_verifies(folder: Path, key: Key) -> None:
    report = verify(folder, [key.public_key()])
    assert (report.findings, report.checkpoints, report.closed, report.unsigned) == ([], 3, True, 1)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_members_of_any_name_stand_in_their_order(tmp_path: Path, key: Key) -> None:
    trail = AuditTrail(tmp_path / "audit", key=lambda: key)
    for name in ("a", "hasg", "hashes", "hundredths_of_cents", "kinc", "kinds", "z"):
        trail.append("decision", **{name: 7})
    trail.close()
    report = verify(tmp_path / "audit", [key.public_key()])
    assert (report.findings, report.closed) == ([], True)


def test_a_changed_line_is_found(folder: Path) -> None:
    def change(lines: list[bytes]) -> None:
        lines[3] = lines[3].replace(b'"maker"', b'"taker"')

    report = edited(folder, change)
    assert (report.findings[0].file, report.findings[0].line) == ("000002.jsonl", 4)
    assert "changed" in report.findings[0].what


def test_a_line_that_was_changed_with_the_hash_of_it_is_found(folder: Path) -> None:
    def forge(lines: list[bytes]) -> None:
        lines[3] = as_line({**json.loads(lines[3]), "client": "taker"})
        lines[4] = as_line({**json.loads(lines[4]), "prev": hashlib.sha256(lines[3]).hexdigest()})

    report = edited(folder, forge)
    assert report.findings[0].line == 5


def test_two_lines_that_were_changed_are_found(folder: Path) -> None:
    def change(lines: list[bytes]) -> None:
        for index in (3, 6):
            lines[index] = lines[index].replace(b'"maker"', b'"taker"')

    assert [finding.line for finding in edited(folder, change).findings] == [4, 7]


@pytest.mark.parametrize(("member", "found"), [("prev", [("000003.jsonl", -1)]), ("note", [])])
def test_a_change_of_the_last_line(folder: Path, key: Key, member: str, found: list[tuple[str, int]]) -> None:
    """No line follows that would hold its hash: its own signature tells, or else the head that was noted elsewhere."""
    head = verify(folder, [key.public_key()]).head

    def change(lines: list[bytes]) -> None:
        lines.append(as_line(json.loads(lines.pop()) | {member: "1" * 64}))

    report = edited(folder, change, "000003.jsonl")
    lines = len((folder / "000003.jsonl").read_bytes().splitlines())
    assert [(each.file, each.line) for each in report.findings] == [(file, lines + 1 + at) for file, at in found]
    assert "end is missing" in verify(folder, head=head).findings[-1].what


def test_the_chain_can_be_checked_by_hand(folder: Path) -> None:
    """As docs/proxy.md tells: with `sha256sum`, over each line as it stands there."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines(keepends=True)]
    hashes = [
        subprocess.run(["sha256sum"], input=line, capture_output=True, check=True).stdout.split()[0].decode()
        for line in lines
    ]
    assert [json.loads(line)["prev"] for line in lines] == [FIRST_PREV, *hashes[:-1]]
    assert verify(folder).head == hashes[-1]


def test_a_forged_rest_of_the_trail_lacks_its_signature(folder: Path, tmp_path: Path, key: Key) -> None:
    """Whoever rewrites the whole chain has no token to sign it."""
    other = Key()
    forged = tmp_path / "forged"
    trail = AuditTrail(forged, key=lambda: other)
    trail.append("decision", client="nobody")
    trail.close()
    assert verify(forged).findings == []  # it names its own key
    report = verify(forged, [key.public_key()])
    assert ["another key" in report.findings[0].what, "signature" in report.findings[1].what] == [True, True]
    assert report.checkpoints == 0


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


def test_an_end_that_was_cut_off_is_found_by_its_head(folder: Path) -> None:
    """A whole file at the end, up to a checkpoint, leaves no gap: what was noted elsewhere does."""
    report = verify(folder)
    assert verify(folder, head=report.head).findings == []
    (folder / "000003.jsonl").unlink()
    assert verify(folder).findings == []
    cut = verify(folder, head=report.head)
    assert (cut.findings[0].file, "end is missing" in cut.findings[0].what) == ("000002.jsonl", True)
    assert not cut.closed


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


NO_LINES = [
    b"{}\n",
    b"x\n",
    b'{"seq": 1}\n',
    b"\n",
    b"\xff\n",
    b"[" * 5000 + b"\n",
    b'{"x":"\\ud800"}\n',
    b'{"prev":"0","seq":Infinity}\n',
    b'{"kind":"close","prev":"' + b"0" * 64 + b'","seq":1e3,"time":""}\n',
    b'{"kind":"close","prev":"' + b"0" * 64 + b'","seq":1,"time":""} \n',
    b"x" * (2 << 20) + b"\n",
]


@pytest.mark.parametrize("line", NO_LINES, ids=range(len(NO_LINES)))
def test_what_is_no_line_is_found(folder: Path, key: Key, line: bytes) -> None:
    report = edited(folder, lambda lines: lines.insert(1, line))
    assert (report.findings[0].file, report.findings[0].line) == ("000002.jsonl", 2)
    assert "\x1b" not in "".join(finding.what for finding in report.findings) + report.head
    with (folder / "000003.jsonl").open("ab") as file:
        file.write(line)
    trail = AuditTrail(folder, key=lambda: key)  # a proxy goes on after the last good line
    trail.close()
    report = verify(folder)
    assert [finding.file for finding in report.findings[-1:]] == ["000003.jsonl"]


def test_it_goes_on_where_it_stopped(folder: Path, key: Key) -> None:
    before = verify(folder)
    trail = AuditTrail(folder, key=lambda: key)
    with pytest.raises(UsageError, match="another proxy"):
        AuditTrail(folder, key=lambda: key)
    trail.append("decision", client="\udcff\n")
    assert not verify(folder).closed
    trail.close()
    report = verify(folder, [key.public_key()])
    assert report.findings == []
    assert report.lines == before.lines + 4


def test_a_folder_that_others_can_write_in_is_refused(tmp_path: Path, key: Key) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match="others can write"):
        AuditTrail(tmp_path, key=lambda: key)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_was_rotated_signs_a_file_of_its_own(tmp_path: Path, key: Key) -> None:
    keys = [key]
    trail = AuditTrail(tmp_path, key=lambda: keys[-1])
    trail.append("decision")
    trail.checkpoint()
    keys.append(Key("22222222-2222-2222-2222-222222222222"))
    trail.close()
    both = [key.public_key() for key in keys]
    for report in (verify(tmp_path), verify(tmp_path, both)):
        assert (report.findings, report.checkpoints) == ([], 2)
    findings = verify(tmp_path, both[1:]).findings
    assert {(finding.file, finding.line) for finding in findings} == {("000001.jsonl", 1), ("000001.jsonl", 3)}
    assert "another key" in findings[0].what
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_token_that_is_away_stops_no_lines(tmp_path: Path, key: Key) -> None:
    trail = AuditTrail(tmp_path, key=lambda: key)
    key.fails = True
    with pytest.raises(SigningError):
        trail.checkpoint()
    trail.append("decision")
    trail.close()
    findings = [(finding.line, finding.what[:15]) for finding in verify(tmp_path, [key.public_key()]).findings]
    assert findings == [(3, "the close isn't"), (3, "no line is sign")]


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


def test_what_came_over_the_wire_steers_no_terminal(tmp_path: Path, key: Key) -> None:
    trail = AuditTrail(tmp_path, key=lambda: key)
    steering = [*range(0x20), *range(0x7F, 0xA1), 0x200B, 0x202E, 0x2028, 0x2029, 0xDC80, 0xFEFF]
    for code in steering:
        trail.append("decision", path=f"/trade-api/v2/{chr(code)}[31m", client="müller")
    trail.close()
    lines = [json.loads(line) for line in (tmp_path / "000001.jsonl").read_bytes().splitlines()]
    said = [line for line in lines if line["kind"] == "decision"]
    assert all(line["path"].isprintable() for line in said)
    assert len({line["path"] for line in said}) == len(steering)
    assert {line["client"] for line in said} == {"müller"}
    assert verify(tmp_path).findings == []


def test_a_file_that_was_removed_is_followed_by_the_next(tmp_path: Path, key: Key) -> None:
    """No line goes where nobody can read it; without the folder, none goes anywhere."""
    folder = tmp_path / "audit"
    trail = AuditTrail(folder, key=lambda: key)
    trail.append("decision")
    (folder / "000001.jsonl").unlink()
    trail.append("decision")
    assert [path.name for path in folder.glob("*.jsonl")] == ["000002.jsonl"]
    shutil.rmtree(folder)
    with pytest.raises(AuditError, match="can't be made: No such file"):
        trail.append("decision")
    assert trail.failed
    trail.close()


def test_a_disk_that_does_not_keep_lines_stops_the_trail(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a full disk behind a network says it: not when it is written to, but when it is told to keep it."""
    import errno
    import os

    trail = AuditTrail(tmp_path, key=lambda: key)
    synced, works = os.fsync, threading.Event()
    tried = threading.Condition()

    def fsync(descriptor: int) -> None:
        with tried:
            tried.notify_all()
        if not works.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with suppress(AuditError):
        trail.checkpoint()
    assert trail.failed == "No space left on device"
    with pytest.raises(AuditError, match="No space left"):
        trail.append("decision")
    works.set()
    deadline = time.monotonic() + 10
    while trail.failed and time.monotonic() < deadline:
        with tried:
            tried.wait(0.1)
    assert not trail.failed  # by itself
    trail.append("decision")
    trail.close()
    assert verify(tmp_path).findings == []


def test_a_next_file_that_cannot_be_begun_stops_the_trail(tmp_path: Path, key: Key) -> None:
    trail = AuditTrail(tmp_path, key=lambda: key, largest=1)
    (tmp_path / "000002.jsonl").write_bytes(b"")
    with pytest.raises(AuditError, match=r"000002.jsonl can't be made: File exists"):
        trail.append("decision")
    assert trail.failed
    (tmp_path / "000002.jsonl").unlink()
    trail.append("decision")
    assert not trail.failed
    trail.close()
    assert verify(tmp_path).findings == []


def test_a_line_that_a_power_failure_cut(folder: Path, key: Key) -> None:
    """The next proxy goes on after the last whole line; the cut one is named from then on, and nothing else."""
    path = folder / "000003.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    lines = len(path.read_bytes().splitlines())
    AuditTrail(folder, key=lambda: key).close()
    report = verify(folder, [key.public_key()])
    assert [(finding.file, finding.line, finding.what) for finding in report.findings] == [
        ("000003.jsonl", lines, "the line is cut")
    ]


@pytest.mark.parametrize("block", [1, 150, 151, 200, 250, 300, 10_000])
@pytest.mark.parametrize("junk", [b"", b"half a line", b"no line\n", b"x" * 500 + b"\n", b"{}\n" * 99])
def test_it_goes_on_behind_the_last_line_that_is_one(
    junk: bytes, block: int, folder: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_BLOCK", block)
    line = (folder / "000003.jsonl").read_bytes().splitlines(keepends=True)[-1]
    with (folder / "000003.jsonl").open("ab") as file:
        file.write(junk)
    AuditTrail(folder, key=lambda: key).close()
    after = json.loads((folder / "000004.jsonl").read_bytes().splitlines()[0])
    assert (after["prev"], after["seq"]) == (hashlib.sha256(line).hexdigest(), json.loads(line)["seq"] + 1)


@pytest.mark.parametrize("content", [b"", b"no line\n", b"half"])
def test_it_goes_on_behind_an_earlier_file_if_the_last_one_has_no_line(content: bytes, folder: Path, key: Key) -> None:
    line = (folder / "000003.jsonl").read_bytes().splitlines(keepends=True)[-1]
    (folder / "000004.jsonl").write_bytes(content)
    AuditTrail(folder, key=lambda: key).close()
    assert json.loads((folder / "000005.jsonl").read_bytes().splitlines()[0])["prev"] == audit.line_hash(line)


def test_a_start_reads_the_end_of_the_last_file_alone(folder: Path, key: Key) -> None:
    last = folder / "000003.jsonl"
    line = last.read_bytes().splitlines(keepends=True)[-1]
    with last.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 40)
        file.write(b"\n" + line)
    trail = AuditTrail(folder, key=lambda: key)
    trail.close()
    after = json.loads((folder / "000004.jsonl").read_bytes().splitlines()[0])
    assert after["prev"] == hashlib.sha256(line).hexdigest()
    assert after["seq"] == json.loads(line)["seq"] + 1


def test_what_stops_the_trail_is_said_once_and_how_it_goes_on(
    tmp_path: Path, key: Key, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = AuditTrail(tmp_path, key=lambda: key)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        for _ in range(2):
            with pytest.raises(AuditError) as raised:
                trail.append("decision")
            assert raised.value.message == f"the audit trail in {tmp_path} can't be written: No space left on device"
            assert raised.value.hint == "make room; signing goes on by itself as soon as lines can be written"
            assert trail.failed == "No space left on device"
    assert os.write is write
    trail.append("decision")
    assert trail.failed == ""
    trail.close()
    assert [record.getMessage() for record in caplog.records if record.name == audit.__name__] == [
        str(raised.value),
        "the audit trail can be written again",
    ]


def test_it_goes_on_behind_the_only_line_of_a_file(tmp_path: Path, key: Key) -> None:
    trail = AuditTrail(tmp_path, key=lambda: key)
    trail.close()
    first = (tmp_path / "000001.jsonl").read_bytes().splitlines(keepends=True)[0]
    (tmp_path / "000001.jsonl").write_bytes(first)
    AuditTrail(tmp_path, key=lambda: key).close()
    assert json.loads((tmp_path / "000002.jsonl").read_bytes().splitlines()[0])["prev"] == audit.line_hash(first)


@pytest.mark.parametrize("meanwhile", [0, 1, 2])
def test_what_came_while_a_checkpoint_was_signed_is_signed_by_the_next_one(
    meanwhile: int, tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = AuditTrail(tmp_path, key=lambda: key)
    trail.append("decision")
    with monkeypatch.context() as patch:
        sign = key.sign

        def slowly(message: bytes) -> bytes:
            for _ in range(meanwhile):
                trail.append("decision")
            return sign(message)

        patch.setattr(key, "sign", slowly)
        trail.checkpoint()
    before = trail.seq
    trail.checkpoint()
    assert trail.seq - before == (1 if meanwhile else 0)
    trail.close()
