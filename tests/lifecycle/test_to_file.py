"""Generating into a file: what others do with the path meanwhile."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import pytest

from hsm_keys import KalshiClient, KeyType, RequestSigner
from hsm_keys.errors import KeyBusyError, OutcomeUnknownError, UsageError
from hsm_keys.kalshi.account import Account
from hsm_keys.lifecycle.made_by_kalshi import GeneratedPair, KalshiGenerator
from hsm_keys.lifecycle.registering import ApiKeyRequest
from hsm_keys.lifecycle.to_file import generate_to_file
from hsm_keys.sandbox import SandboxServer, parse_fault
from hsm_keys.signing.pem import PemKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def maker(sandbox: SandboxServer) -> Iterator[KalshiGenerator]:
    def connect(signer: RequestSigner) -> KalshiClient:
        return KalshiClient(signer, base_url=sandbox.base_url)

    with connect(RequestSigner(PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem))) as management:
        yield KalshiGenerator(ApiKeyRequest("ci"), KeyType.ED25519, Account(management, connect), lambda _: None)


def names(sandbox: SandboxServer) -> list[str]:
    return [key.name for key in sandbox.state.keys.values()]


def test_a_file_that_appears_meanwhile_is_left_alone(
    maker: KalshiGenerator, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, make = tmp_path / "ci.pem", maker.make

    def slow(before: object) -> GeneratedPair:
        made = make(())
        path.write_text("somebody else's")
        return made

    monkeypatch.setattr(maker, "make", slow)
    with pytest.raises(UsageError, match="was deleted"):
        generate_to_file(str(path), maker)
    assert path.read_text() == "somebody else's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["ci.pem"]
    assert names(sandbox) == ["bootstrap"]


def test_a_file_that_another_run_is_writing_is_left_alone(
    maker: KalshiGenerator, sandbox: SandboxServer, tmp_path: Path
) -> None:
    with (tmp_path / f"ci.pem.generating-{maker.account.environment}").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(KeyBusyError):
            generate_to_file(str(tmp_path / "ci.pem"), maker)
    assert names(sandbox) == ["bootstrap"]


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(
    maker: KalshiGenerator, sandbox: SandboxServer, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / f"ci.pem.generating-{maker.account.environment}").symlink_to(tmp_path / "kept")
    with pytest.raises(UsageError):
        generate_to_file(str(tmp_path / "ci.pem"), maker)
    assert (tmp_path / "kept").read_text() == "kept"
    assert names(sandbox) == ["bootstrap"]


def test_an_answer_that_was_lost_leaves_a_mark_for_the_next_run(
    maker: KalshiGenerator, sandbox: SandboxServer, tmp_path: Path
) -> None:
    sandbox.faults.add(parse_fault("POST /api_keys/generate:drop-after:2"))
    with pytest.raises(OutcomeUnknownError):
        generate_to_file(str(tmp_path / "ci.pem"), maker)
    assert [entry.name for entry in tmp_path.iterdir()] == [f"ci.pem.generating-{maker.account.environment}"]
    done = generate_to_file(str(tmp_path / "ci.pem"), maker)
    assert names(sandbox) == ["bootstrap", "ci"]
    assert PemKey(str(done.api_key_id), (tmp_path / "ci.pem").read_bytes()).sign(b"m") == done.key.sign(b"m")
    assert [entry.name for entry in tmp_path.iterdir()] == ["ci.pem"]
