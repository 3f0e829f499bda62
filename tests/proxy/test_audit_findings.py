"""What `audit verify` says, word for word, of a trail that somebody wrote: once for each thing that is wrong."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.proxy.audit import FORMAT, checkpoint_message
from hsm_keys.proxy.verifying import TrailFinding, verify
from tests.proxy.test_audit import Key, as_line
from tests.proxy.test_doubts import Chain

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.proxy.verifying import TrailReport

NO_SIGNATURE = "the checkpoint's signature isn't of this key over this trail"


@pytest.fixture
def key() -> Key:
    return Key()


@pytest.fixture
def chain(tmp_path: Path, key: Key) -> Chain:
    return Chain(tmp_path, key)


def verified(chain: Chain, *keys: Key, head: str | None = None) -> TrailReport:
    chain.save()
    return verify(chain.folder, [one.public_key() for one in keys or (chain.key,)], head=head)


def found(report: TrailReport) -> list[tuple[int, str]]:
    return [(finding.line, finding.what) for finding in report.findings]


def test_a_head_that_no_line_has(chain: Chain) -> None:
    chain.more(1).sign()
    what = "the trail's end is missing after this line: no line has the hash that was given as its head"
    assert found(verified(chain, head="1" * 64)) == [(3, what)]
    assert found(verified(chain, head=chain.digests[2])) == []


@pytest.mark.parametrize("member", ["prev", "note"])
def test_one_line_that_was_changed_is_one_finding(member: str, chain: Chain) -> None:
    chain.more(2).sign().more(3).sign()
    changed = {**json.loads(chain.lines[2]), member: "1" * 64}
    chain.lines[2] = as_line(changed)
    assert (3, "the line was changed") in found(verified(chain))
    assert [what for _, what in found(verified(chain)) if what != NO_SIGNATURE] == ["the line was changed"]


def test_a_line_that_was_changed_is_none_beyond_the_hundredth_finding(chain: Chain) -> None:
    chain.more(4).sign()
    chain.lines[2] = as_line({**json.loads(chain.lines[2]), "note": "x"})
    chain.lines[:0] = [b"no line\n"] * 100
    assert {what for _, what in found(verified(chain))} == {"the line isn't a JSON object of this format"}
    assert len(verified(chain).findings) == 100


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"format": "hsm-keys audit v2"}, "the file doesn't begin here, or has another format"),
        ({"format": None}, "the file doesn't begin here, or has another format"),
        ({"public_key": 7}, "the public key that is named here can't be read"),
        ({"public_key": None}, "the public key that is named here can't be read"),
        ({"public_key": "no PEM"}, "the public key that is named here can't be read"),
        (
            {"public_key": Key().public_pem()},
            "the file names another key than those that were given: its signatures don't count",
        ),
    ],
)
def test_how_a_file_begins(members: dict[str, Any], what: str, chain: Chain) -> None:
    first = {**json.loads(chain.lines[0]), **members}
    chain.lines[0] = as_line(first)
    assert [what for line, what in found(verified(chain)) if line == 1 and "no line is signed" not in what] == [what]


def test_a_file_that_begins_twice(chain: Chain) -> None:
    chain.more(1).add("open", format=FORMAT, public_key=chain.key.public_pem()).sign()
    assert found(verified(chain)) == [(3, "the file doesn't begin here, or has another format")]


@pytest.mark.parametrize("signature", [None, 7, "", "!!!", "AAAA", "with a line end", "with more behind it"])
def test_a_checkpoint_without_a_signature(signature: object, chain: Chain) -> None:
    """Base64 as RFC 4648 has it, with nothing in between: else one signature could be written in many ways."""
    chain.more(1)
    right = b64encode(chain.key.sign(checkpoint_message(2, chain.digests[2]))).decode()
    spelled = {"with a line end": f"{right[:10]}\n{right[10:]}", "with more behind it": f"{right}!"}
    given = spelled.get(signature, signature) if isinstance(signature, str) else signature
    chain.add("checkpoint", of=2, signature=given)
    report = verified(chain)
    assert report.findings[0] == TrailFinding("000001.jsonl", 3, NO_SIGNATURE)
    assert report.checkpoints == 0
    chain.add("checkpoint", of=2, signature=right)
    assert verified(chain).checkpoints == 1


@pytest.mark.parametrize("of", ["1", 1.0, True, [], None])
def test_a_checkpoint_of_no_line(of: object, chain: Chain) -> None:
    signature = b64encode(chain.key.sign(checkpoint_message(1, chain.digests[1]))).decode()
    chain.more(1).add("checkpoint", of=of, signature=signature)
    report = verified(chain)
    assert (report.checkpoints, report.findings[0].line) == (0, 3)


def test_a_checkpoint_that_stands_there_twice(chain: Chain) -> None:
    chain.more(1).sign()
    signed = json.loads(chain.lines[-1])
    chain.add("checkpoint", of=signed["of"], signature=signed["signature"])
    assert found(verified(chain)) == [(4, NO_SIGNATURE)]


def test_checkpoints_of_lines_some_way_back(chain: Chain) -> None:
    """A token that is slow signs lines after which others were written, and then those."""
    chain.more(3).sign(of=2).sign(of=4)
    report = verified(chain)
    assert (report.findings, report.checkpoints, report.unsigned) == ([], 2, 2)


def test_which_lines_are_missing(chain: Chain) -> None:
    chain.more(6).sign()
    del chain.lines[2:5]
    assert found(verified(chain)) == [(3, "lines 3 to 5 of the trail are missing before this one")]
