"""Trails whose chain is whole, and that nothing vouches for: whoever can write to the folder can make such."""

from __future__ import annotations

import hashlib
import threading
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest

from hsm_keys.proxy.audit import FIRST_PREV, FORMAT, AuditTrail, checkpoint_message
from hsm_keys.proxy.verifying import verify
from tests.proxy.test_audit import Key, as_line
from tests.support.cli import run_cli, run_json

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Chain:
    """Lines with right numbers and hashes, as anybody can make them; checkpoints take the key."""

    def __init__(self, folder: Path, key: Key) -> None:
        self.folder = folder
        self.key = key
        self.seq, self.prev, self.files = 0, FIRST_PREV, 0
        self.digests = {0: FIRST_PREV}
        self.now = NOON
        self.lines: list[bytes] = []
        self.open()

    def add(self, kind: str, *, after: float = 0.001, **members: Any) -> Self:
        self.now += timedelta(seconds=after)
        self.seq += 1
        time = self.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record = {**members, "kind": kind, "seq": self.seq, "prev": self.prev, "time": time}
        self.lines.append(as_line(record))
        self.prev = self.digests[self.seq] = hashlib.sha256(self.lines[-1]).hexdigest()
        return self

    def more(self, count: int, *, after: float = 0.001) -> Self:
        for _ in range(count):
            self.add("decision", after=after)
        return self

    def open(self, *, after: float = 0.001) -> Self:
        """Begin the next file, as a proxy does that starts."""
        self.save()
        self.lines, self.files = [], self.files + 1
        return self.add("open", after=after, format=FORMAT, public_key=self.key.public_pem())

    def sign(self, *, after: float = 0.001, of: int | None = None) -> Self:
        of = self.seq if of is None else of
        message = checkpoint_message(of, self.digests[of])
        return self.add("checkpoint", after=after, of=of, signature=b64encode(self.key.sign(message)).decode())

    def save(self) -> None:
        if self.files:
            (self.folder / f"{self.files:06}.jsonl").write_bytes(b"".join(self.lines))

    def found(self, *, allow_unsigned_tail: bool = False) -> list[tuple[str, int, str]]:
        self.save()
        report = verify(self.folder, [self.key.public_key()], allow_unsigned_tail=allow_unsigned_tail)
        return [(finding.file, finding.line, finding.what) for finding in report.findings]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path, Key())


def test_a_long_trail_without_a_checkpoint(chain: Chain) -> None:
    chain.more(10_000).add("close")
    found = chain.found()
    assert [line for _, line, _ in found] == [10_002, 10_002]
    assert ["the close isn't signed" in found[0][2], "no line is signed" in found[1][2]] == [True, True]
    assert [line for _, line, _ in chain.found(allow_unsigned_tail=True)] == [10_002]  # a closed trail has no tail


def test_a_trail_that_has_just_begun(chain: Chain) -> None:
    """Whoever gives a key wants its signature; else only a trail that is too long for that is found."""
    chain.more(5)
    assert "no line is signed" in chain.found()[0][2]
    assert chain.found(allow_unsigned_tail=True) == []
    assert verify(chain.folder).findings == []
    chain.more(9994).save()
    assert verify(chain.folder).findings == []
    chain.more(1).save()
    assert ["no line is signed" in finding.what for finding in verify(chain.folder).findings] == [True]


def test_a_trail_that_began_too_long_ago(chain: Chain) -> None:
    chain.more(2, after=60).save()
    assert verify(chain.folder).findings == []
    chain.more(1).save()
    assert ["no line is signed" in finding.what for finding in verify(chain.folder).findings] == [True]


def test_a_trail_of_which_the_beginning_is_none(chain: Chain) -> None:
    """The first line counts as when it began, whatever it is."""
    chain.seq, chain.prev, chain.lines = 0, FIRST_PREV, []
    chain.more(3, after=61).save()
    assert ["no line is signed" in finding.what for finding in verify(chain.folder).findings] == [True]


def test_lines_that_came_while_the_token_signed_are_signed_soon(chain: Chain) -> None:
    chain.more(2).sign(of=2).add("decision", after=119).sign().more(1).sign(of=chain.seq - 1)
    assert chain.found() == []
    chain.more(1, after=121).sign()
    (found,) = chain.found()
    assert "lines 7 to 9 of the trail aren't signed" in found[2]


def test_what_a_proxy_makes(chain: Chain) -> None:
    """Busy, idle for a day, busy while the token signs, killed, started a day later, rotated: nothing is in doubt."""
    day = 24 * 3600
    chain.more(10_000).sign().add("decision", after=day).sign(after=60)
    chain.more(15_000).sign().more(3)
    chain.sign(after=61).add("decision", after=0.01).open(after=day).more(2).sign(after=61)
    chain.add("close", after=day).open().sign(of=chain.seq - 1)
    chain.more(9000).sign().add("close").sign()
    assert chain.found() == []


@pytest.mark.parametrize("end", ["signed", "unsigned"])
def test_more_unsigned_lines_than_a_proxy_makes(chain: Chain, end: str) -> None:
    chain.sign().more(19_999)
    assert chain.found() == []
    chain.more(3)
    where = ("000001.jsonl", 20_002)
    assert chain.found(allow_unsigned_tail=True) == []
    if end == "signed":  # a proxy that was started later vouches for what it found
        chain.sign()
        assert [found[:2] for found in chain.found(allow_unsigned_tail=True)] == [where]
    (found,) = chain.found()
    assert (found[:2], "lines 2 to 20002 of the trail aren't signed" in found[2]) == (where, True)


def test_forged_lines_of_a_proxy_that_did_not_run(chain: Chain) -> None:
    """They go on where it was stopped, and the next one signs them: there are too many for one minute."""
    chain.more(3).sign()
    chain.more(10, after=30)
    chain.open(after=1).more(2).sign(after=60)
    (found,) = chain.found()
    assert (found[0], found[1], "aren't signed" in found[2]) == ("000001.jsonl", 11, True)


def test_an_unsigned_tail_that_is_too_old(chain: Chain) -> None:
    chain.more(3).sign().more(2, after=59)
    assert chain.found() == []
    chain.more(2, after=59)
    assert [found[:2] for found in chain.found()] == [("000001.jsonl", 9)]
    assert chain.found(allow_unsigned_tail=True) == []


def test_a_close_that_is_not_signed(chain: Chain) -> None:
    chain.more(3).sign().add("close")
    closed = chain.seq
    assert [found[:2] for found in chain.found()] == [("000001.jsonl", closed)]
    chain.open(after=100).sign(after=60)  # the next run vouches for what it found, not for how the last one ended
    assert [found[:2] for found in chain.found()] == [("000001.jsonl", closed)]
    chain.add("close").sign().open(after=100).more(2).sign()
    assert [found[:2] for found in chain.found()] == [("000001.jsonl", closed)]


def test_a_close_of_which_the_signature_is_forged(tmp_path: Path) -> None:
    chain = Chain(tmp_path, Key())
    chain.more(3).sign().add("close").add("checkpoint", of=chain.seq, signature="AAAA")
    assert ["signature" in what or "close" in what for _, _, what in chain.found()] == [True, True]


def test_time_that_runs_backwards(chain: Chain) -> None:
    chain.more(2).add("decision", after=-0.000001).more(2).sign().add("close").sign()
    (found,) = chain.found()
    assert (found[1], "time runs backwards" in found[2]) == (4, True)


@pytest.mark.parametrize(
    "time", ["", "now", "2026-11-24T12:00:00Z", "2026-11-24 12:00:00.000000Z", "٢026-11-24T12:00:00.000000Z"]
)
def test_a_time_that_is_none(tmp_path: Path, time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsm_keys.proxy.audit._now", lambda: time)
    key = Key()
    AuditTrail(tmp_path, key=lambda: key).close()
    assert verify(tmp_path).findings[0].what == "the line's time isn't one"


def test_a_trail_that_is_written_is_verified_with_an_option(tmp_path: Path) -> None:
    key = Key()
    trail = AuditTrail(tmp_path, key=lambda: key)
    trail.append("decision")
    assert run_json("audit", "verify", str(tmp_path), "--allow-unsigned-tail")["findings"] == []
    (tmp_path / "pem").write_text(key.public_pem())
    done = run_cli("audit", "verify", str(tmp_path), "--public-key", str(tmp_path / "pem"))
    assert (done.returncode, "no line is signed" in done.stdout) == (1, True)
    trail.close()
    assert run_json("audit", "verify", str(tmp_path))["findings"] == []


def test_a_proxy_signs_after_so_many_lines_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It doesn't wait for the next second: what a proxy can make unsigned is bounded by how long a signature takes."""
    monkeypatch.setattr("hsm_keys.proxy.audit._SYNC_S", 3600.0)
    monkeypatch.setattr("hsm_keys.proxy.audit.CHECKPOINT_LINES", 10)
    signed = threading.Event()

    class Watched(Key):
        def sign(self, message: bytes) -> bytes:
            signed.set()
            return super().sign(message)

    key = Watched()
    trail = AuditTrail(tmp_path, key=lambda: key)
    for _ in range(8):
        trail.append("decision")
    assert not signed.is_set()
    trail.append("decision")
    assert signed.wait(30)
    trail.close()
    assert verify(tmp_path).findings == []
