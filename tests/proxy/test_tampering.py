"""Whatever is done to one place of a trail is found, and said where."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.proxy.audit import AuditTrail, checkpoint_message, parsed
from hsm_keys.proxy.verifying import verify
from hsm_keys.signing.fix import logon_message
from hsm_keys.signing.message import signing_message
from tests.proxy.test_audit import Key, as_line

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.proxy.verifying import TrailReport

Files = list[list[bytes]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trail")


@pytest.fixture(scope="module")
def key() -> Key:
    return Key()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, key: Key) -> Files:
    """The lines of four files."""
    folder = tmp_path_factory.mktemp("whole")
    trail = AuditTrail(folder, key=lambda: key, largest=4000)
    for number in range(30):
        seq = trail.append("decision", client="maker", path=f"/trade-api/v2/{number}", uid=None, verdict="allowed")
        trail.append("outcome", of=seq, status=200, latency_us=number)
        if number % 8 == 7:
            trail.checkpoint()
    trail.close()
    assert verify(folder, [key.public_key()]).findings == []
    assert len(list(folder.glob("*.jsonl"))) == 4
    return [path.read_bytes().splitlines(keepends=True) for path in sorted(folder.glob("*.jsonl"))]


def verified(folder: Path, key: Key, files: Files, head: str | None = None) -> TrailReport:
    for old in folder.glob("*.jsonl"):
        old.unlink()
    for number, lines in enumerate(files, 1):
        (folder / f"{number:06}.jsonl").write_bytes(b"".join(lines))
    return verify(folder, [key.public_key()], head=head)


def place(files: Files, index: int) -> tuple[int, int]:
    """Return the file and line, from 0, of the trail's line with that number, modulo all of them."""
    places = [(file, line) for file, lines in enumerate(files) for line in range(len(lines))]
    return places[index % len(places)]


numbers = st.integers(0, 10_000)


@given(st.tuples(numbers, numbers, st.integers(1, 255)))
def test_a_byte_that_was_changed(folder: Path, key: Key, files: Files, change: tuple[int, int, int]) -> None:
    at, byte, by = change
    file, line = place(files, at)
    changed = [list(lines) for lines in files]
    old = bytearray(files[file][line])
    old[byte % len(old)] ^= by
    changed[file][line] = bytes(old)
    found = verified(folder, key, changed, hashlib.sha256(files[-1][-1]).hexdigest()).findings[0]
    assert (found.file, found.line) == (f"{file + 1:06}.jsonl", line + 1)


@given(numbers, numbers)
def test_a_line_that_was_cut(folder: Path, key: Key, files: Files, at: int, keep: int) -> None:
    file, line = place(files, at)
    changed = [list(lines) for lines in files]
    changed[file][line] = files[file][line][: 1 + keep % (len(files[file][line]) - 1)]
    found = verified(folder, key, changed).findings[0]
    assert (found.file, found.line) == (f"{file + 1:06}.jsonl", line + 1)


@given(numbers, numbers)
def test_a_line_that_was_put_elsewhere(folder: Path, key: Key, files: Files, at: int, to: int) -> None:
    """Also a line doubled, since it stays where it was."""
    (file, line), (to_file, to_line) = place(files, at), place(files, to)
    changed = [list(lines) for lines in files]
    changed[to_file].insert(to_line, files[file][line])
    found = verified(folder, key, changed).findings[0]
    expected = (to_file, to_line + ((file, line) == (to_file, to_line)))  # doubled: the second one is too many
    assert (found.file, found.line - 1) == (f"{expected[0] + 1:06}.jsonl", expected[1])


@given(numbers, st.integers(1, 30))
def test_lines_that_were_left_out(folder: Path, key: Key, files: Files, at: int, count: int) -> None:
    file, line = place(files, at)
    changed = [list(lines) for lines in files]
    del changed[file][line : line + count]
    report = verified(folder, key, changed, hashlib.sha256(files[-1][-1]).hexdigest())
    ended = not any(changed[file + 1 :]) and line >= len(changed[file])
    if ended:  # the end: only what was noted elsewhere tells
        assert "end is missing" in report.findings[-1].what
    else:
        next_file, next_line = (file, line) if line < len(changed[file]) else (file + 1, 0)
        found = report.findings[0]
        assert (found.file, found.line) == (f"{next_file + 1:06}.jsonl", next_line + 1)
        assert "missing" in found.what


@given(st.permutations(range(4)))
def test_files_that_changed_places(folder: Path, key: Key, files: Files, order: list[int]) -> None:
    findings = verified(folder, key, [files[number] for number in order]).findings
    if order == sorted(order):
        assert findings == []
    else:
        first = next(number for number in range(4) if order[number] != number)
        assert (findings[0].file, findings[0].line) == (f"{first + 1:06}.jsonl", 1)


def test_windows_line_ends(folder: Path, key: Key, files: Files) -> None:
    changed = [[line.replace(b"\n", b"\r\n") for line in lines] for lines in files]
    assert verified(folder, key, changed).findings[0].line == 1


def test_a_signature_of_an_earlier_checkpoint(folder: Path, key: Key, files: Files) -> None:
    """Checkpoints can't be made from others: neither with another number nor with a signature that was seen."""
    lines = [line for file in files for line in file]
    signed = [(at, record) for at, record in enumerate(map(parsed, lines)) if record and "signature" in record]
    assert len(signed) > 2
    for at, record in signed[1:]:
        forged = list(lines)
        forged[at] = as_line({**record, "signature": signed[0][1]["signature"]})
        found = [finding for finding in verified(folder, key, [forged]).findings if "signature" in finding.what]
        assert found[0].line == at + 1


@given(st.integers(1, 2**53), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_is_no_message_to_kalshi(seq: int, digest: bytes) -> None:
    """Neither a request's (time, method, path) nor a FIX Logon's (SendingTime first): both begin with digits."""
    message = checkpoint_message(seq, digest.hex())
    assert signing_message(1763900000000, "GET", "/trade-api/v2/portfolio/balance")[:1].isdigit()
    assert logon_message("20261126-11:00:00.000", seq, "prod", "KalshiNR")[:1].isdigit()
    assert not message[:1].isdigit()
