"""The audit trail at its edges: what it refuses, what it says then, and what it does with strange folders."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from hsm_keys.errors import SigningError, UsageError
from hsm_keys.proxy import audit, verifying
from hsm_keys.proxy.audit import FIRST_PREV, AuditError, AuditTrail, files_in, parsed
from hsm_keys.proxy.verifying import TrailFinding, read_public_key, verify
from tests.proxy.test_audit import Key, as_line
from tests.proxy.test_doubts import Chain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.errors import HsmKeysError

LINE: dict[str, Any] = {"seq": 1, "time": "2026-11-24T12:00:00.000000Z", "kind": "decision", "prev": FIRST_PREV}


@pytest.fixture
def key() -> Key:
    return Key()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def write(folder: Path, key: Key, *, files: int = 1) -> Path:
    """Write a trail of that many files, with a line in each besides its own."""
    for _ in range(files):
        trail = AuditTrail(folder, key=lambda: key)
        trail.append("decision")
        trail.close()
    return folder


def said(error: HsmKeysError) -> tuple[str, str | None]:
    return error.message, error.hint


def test_a_folder_that_is_not_there_yet_is_made_for_its_user_alone(tmp_path: Path, key: Key) -> None:
    folder = write(tmp_path / "state" / "prod" / "audit", key)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "lock": 0o600,
        "000001.jsonl": 0o600,
    }


@pytest.mark.parametrize("mode", [0o701, 0o711, 0o750, 0o755])
def test_others_may_look_at_the_folder(mode: int, folder: Path, key: Key) -> None:
    folder.mkdir()
    folder.chmod(mode)
    assert verify(write(folder, key)).findings == []


@pytest.mark.parametrize("mode", [0o702, 0o720])
def test_a_folder_in_which_others_write(mode: int, folder: Path, key: Key) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UsageError) as raised:
        AuditTrail(folder, key=lambda: key)
    assert said(raised.value) == (
        f"others can write to {folder}",
        f"chmod 700 {folder}, or give another folder: --audit",
    )


def test_a_folder_that_is_none(folder: Path, key: Key) -> None:
    folder.write_bytes(b"")
    with pytest.raises(AuditError) as raised:
        AuditTrail(folder, key=lambda: key)
    assert said(raised.value) == (f"the folder {folder} can't be used: File exists", "give another folder: --audit")


def test_a_folder_in_which_another_proxy_writes(folder: Path, key: Key) -> None:
    trail = AuditTrail(folder, key=lambda: key)
    with pytest.raises(UsageError) as raised:
        AuditTrail(folder, key=lambda: key)
    assert said(raised.value) == (
        f"another proxy writes its trail to {folder}",
        "stop that proxy, or give another folder: --audit",
    )
    trail.close()


def test_a_folder_that_cannot_be_read(folder: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "files_in", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(AuditError) as raised:
        AuditTrail(folder, key=lambda: key)
    assert said(raised.value) == (f"{folder} can't be read: Permission denied", "mend it, or give --audit")


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_a_trail_that_cannot_begin_lets_go_of_everything(folder: Path, key: Key) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    with pytest.raises(SigningError):
        AuditTrail(folder, key=Mock(side_effect=SigningError("the token is away")))
    assert len(list(descriptors.iterdir())) == before
    write(folder, key)
    assert len(list(descriptors.iterdir())) == before


def test_a_line_is_of_the_time_in_utc(folder: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    audit._whole_second.cache_clear()
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_521_600_000_001_000)
    try:
        line = json.loads((write(folder, key) / "000001.jsonl").read_bytes().splitlines()[0])
    finally:
        monkeypatch.undo()
        time.tzset()
        audit._whole_second.cache_clear()
    assert line["time"] == "2026-11-24T12:00:00.000001Z"


def test_a_folder_of_files_without_a_line_is_gone_on_in_the_next_one(folder: Path, key: Key) -> None:
    folder.mkdir()
    for number, content in enumerate([b"", b"half", b"no line\n"], 1):
        (folder / f"{number:06}.jsonl").write_bytes(content)
    write(folder, key)
    first = json.loads((folder / "000004.jsonl").read_bytes().splitlines()[0])
    assert (first["seq"], first["prev"]) == (1, FIRST_PREV)


@pytest.mark.parametrize("block", [1, 100, 10_000])
def test_it_goes_on_behind_the_first_line_of_a_file(
    block: int, folder: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder, key) / "000001.jsonl"
    line = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(line + b"no line\n" * 40)
    monkeypatch.setattr(audit, "_BLOCK", block)
    write(folder, key)
    assert json.loads((folder / "000002.jsonl").read_bytes().splitlines()[0])["prev"] == audit.line_hash(line)


def test_the_millionth_file_comes_last(folder: Path) -> None:
    folder.mkdir()
    names = ["000002.jsonl", "999999.jsonl", "1000000.jsonl"]
    for name in [*names, "notes.jsonl", "1.txt"]:
        (folder / name).write_bytes(b"")
    assert [path.name for path in files_in(folder)] == names


def test_a_folder_that_cannot_be_looked_at_is_not_called_empty(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read: File name too long"):
        verify(tmp_path / ("x" * 300))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="there is no audit trail in"):
        verify(file)


@pytest.mark.parametrize(
    ("change", "is_one"),
    [
        ({}, True),
        ({"seq": 2**53 - 1}, True),
        ({"seq": 2**53}, False),
        ({"seq": 0}, False),
        ({"prev": "0" * 63}, False),
        ({"prev": "0" * 63 + "G"}, False),
    ],
)
def test_what_a_line_is(change: dict[str, Any], *, is_one: bool) -> None:
    assert (parsed(as_line({**LINE, **change})) is not None) == is_one


def test_a_key_that_is_none() -> None:
    for pem in ("", "no PEM", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(UsageError) as raised:
            read_public_key(pem)
        assert said(raised.value) == (
            "that isn't the PEM of a public key (RSA or Ed25519)",
            "`hsm-keys public-key NAME` prints one",
        )


def test_a_folder_without_a_trail(folder: Path) -> None:
    with pytest.raises(UsageError) as raised:
        verify(folder)
    assert said(raised.value) == (
        f"there is no audit trail in {folder}",
        "give the folder that the proxy's --audit names",
    )


def test_a_trail_that_cannot_be_read(folder: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, key)

    def lines(_path: Path) -> Iterator[bytes]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(verifying, "_lines", lines)
    with pytest.raises(UsageError) as raised:
        verify(folder)
    path = folder / "000001.jsonl"
    assert said(raised.value) == (f"{path} can't be read: Permission denied", "run it as the proxy's user")


def test_files_that_are_missing_are_found_once(folder: Path, key: Key) -> None:
    """One finding says it: the numbers of all later files differ as well."""
    write(folder, key, files=5)
    for number in (2, 4):
        (folder / f"{number:06}.jsonl").unlink()
    what = "a file before this one is missing"
    assert [finding for finding in verify(folder).findings if finding.what == what] == [
        TrailFinding("000003.jsonl", 0, what)
    ]


@pytest.mark.parametrize("more", [0, 1, 399, 400, 401, 1000])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_that_is_far_too_long_is_one_line(
    end: bytes, more: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read in pieces, and the lines after it keep their numbers."""
    monkeypatch.setattr(verifying, "_LONGEST", 400)
    folder.mkdir()
    (folder / "000001.jsonl").write_bytes(b"x" * (400 + more) + (end + b"no line\n" if end else b""))
    what = "the line is longer than any of a proxy"
    expected = [TrailFinding("000001.jsonl", 1, what)]
    if end:
        expected.append(TrailFinding("000001.jsonl", 2, "the line isn't a JSON object of this format"))
    assert verify(folder).findings[: len(expected)] == expected


def test_a_single_line_that_does_not_begin_a_trail(folder: Path) -> None:
    folder.mkdir()
    (folder / "000001.jsonl").write_bytes(as_line({**LINE, "prev": "1" * 64}))
    assert TrailFinding("000001.jsonl", 1, "the line was changed") in verify(folder).findings


def test_what_stops_a_trail_is_logged_when_it_begins(
    folder: Path, key: Key, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = AuditTrail(folder, key=lambda: key)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", Mock(side_effect=OSError(errno.ENOSPC, "100 % of the disk is full")))
        with pytest.raises(AuditError) as raised:
            trail.append("decision")
    assert [record.getMessage() for record in caplog.records if record.name == audit.__name__] == [str(raised.value)]
    trail.close()


def test_no_more_than_a_hundred_findings_are_told(folder: Path) -> None:
    folder.mkdir()
    (folder / "000001.jsonl").write_bytes(b"no line\n" * 150)
    report = verify(folder)
    assert (len(report.findings), report.lines, report.unsigned) == (100, 150, 150)


@pytest.mark.parametrize(("back", "counts"), [(1, True), (2, True), (3, False)])
def test_how_far_back_a_checkpoint_may_point(
    back: int, folder: Path, key: Key, monkeypatch: pytest.MonkeyPatch, *, counts: bool
) -> None:
    monkeypatch.setattr(verifying, "_REMEMBERED", 3)  # itself among them
    folder.mkdir()
    chain = Chain(folder, key).more(5)
    chain.sign(of=chain.seq + 1 - back).save()
    assert verify(folder, [key.public_key()]).checkpoints == counts


def test_which_of_two_lines_at_the_end_was_changed(folder: Path, key: Key) -> None:
    """Where the line before is signed, it is as it was; else it may be either."""
    path = write(folder, key) / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    *before, closing, checkpoint = lines
    broken = {**json.loads(checkpoint), "prev": "1" * 64}
    path.write_bytes(b"".join([*before, closing, as_line(broken)]))
    last = len(lines)
    assert verify(folder).findings == [TrailFinding("000001.jsonl", last, "the line was changed")]
    changed = closing.replace(b'"close"', b'"clone"')
    path.write_bytes(b"".join([*before, changed, checkpoint]))
    what = "the line was changed, or the next one"
    assert TrailFinding("000001.jsonl", last - 1, what) in verify(folder).findings
