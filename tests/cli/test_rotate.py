"""``hsm-keys rotate`` as its users run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ED25519, failed_json, run_cli, run_json

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]


@pytest.fixture(autouse=True)
def _store(token: TestToken, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", f"pkcs11:token=kalshi?module-path={token.module}")
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))


def test_twice_the_same_command_and_the_old_key_is_gone(sandbox: SandboxServer) -> None:
    old = run_json("enroll", "--name", "prod")
    first = run_json("rotate", "prod")
    assert first["rotation"] == {"stage": "grace", "retired_api_key_id": old["api_key_id"]}
    assert first["api_key_id"] != old["api_key_id"]
    assert {key["name"] for key in run_json("list")["keys"]} == {"prod", "prod+retired", "bootstrap"}
    second = run_json("rotate", "prod")
    assert second["rotation"] == {"stage": "done", "retired_api_key_id": None}
    assert second["api_key_id"] == first["api_key_id"]
    assert {name: second[name] for name in ("name", "state", "key_type")} == {
        "name": "prod",
        "state": "registered",
        "key_type": "rsa-2048",
    }
    assert second["custody"]["verdict"] == "in custody"
    assert set(sandbox.state.keys) == {sandbox.bootstrap_key_id, first["api_key_id"]}


def test_a_grace_of_nothing_does_all_at_once(sandbox: SandboxServer) -> None:
    old = run_json("enroll", "--name", "prod", *ED25519)
    done = run_json("rotate", "prod", "--grace", "0s")
    assert done["rotation"]["stage"] == "done"
    assert old["api_key_id"] not in sandbox.state.keys
    assert {key["name"] for key in run_json("list")["keys"]} == {"prod", "bootstrap"}


def test_the_key_itself_signs_where_there_is_no_bootstrap_key(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_json("enroll", "--name", "prod", *ED25519)
    run_json("enroll", "--name", "a-key-that-only-reads", *ED25519, "--scope", "read")
    monkeypatch.delenv("KALSHI_KEY_ID")
    monkeypatch.delenv("KALSHI_PRIVATE_KEY")
    done = run_cli("rotate", "prod", "--grace", "0s")
    assert done.returncode == 0, done.stderr
    assert "signed with the key 'prod'" in done.stderr
    assert len(sandbox.state.keys) == 3


def test_keep_old_is_said_to_be_forgotten(sandbox: SandboxServer) -> None:
    run_json("enroll", "--name", "prod", *ED25519)
    first = run_cli("rotate", "prod", "--keep-old")
    assert "rotate prod --finish --keep-old" in first.stderr
    assert "give --keep-old again" in first.stderr


def test_abort(sandbox: SandboxServer) -> None:
    old = run_json("enroll", "--name", "prod", *ED25519)
    run_json("rotate", "prod")
    back = run_json("rotate", "prod", "--abort")
    assert (back["api_key_id"], back["rotation"]["stage"]) == (old["api_key_id"], "aborted")
    assert len(sandbox.state.keys) == 2


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["prod", "--grace", "soon"], 2),
        (["prod", "--grace", "10"], 2),
        (["prod", "--grace", "0"], 2),
        (["prod", "--grace", "999999999d"], 2),
        (["prod", "--abort", "--finish"], 2),
        (["prod", "--finish", "--grace", "1m"], 2),
        (["a b"], 2),
        (["prod+next"], 2),
        (["nobody"], 5),
        (["prod", "--finish"], 5),
    ],
)
def test_what_cannot_be_changes_nothing(sandbox: SandboxServer, arguments: list[str], exit_code: int) -> None:
    run_json("enroll", "--name", "prod", *ED25519)
    before = set(sandbox.state.keys)
    failed_json(exit_code, "rotate", *arguments)
    assert set(sandbox.state.keys) == before


def test_asked_on_a_terminal_no_is_an_answer(sandbox: SandboxServer, tmp_path: Path) -> None:
    import os
    import pty
    import subprocess
    import sys

    run_json("enroll", "--name", "prod", *ED25519)
    run_json("rotate", "prod")
    ours, theirs = pty.openpty()
    try:
        asking = subprocess.Popen(
            [sys.executable, "-m", "hsm_keys", "rotate", "prod"], stdin=theirs, stderr=subprocess.PIPE, text=True
        )
        os.write(ours, b"n\n")
        _, said = asking.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert asking.returncode == 2
    assert "is deleted at Kalshi and its private half is destroyed" in said
    assert len(sandbox.state.keys) == 3
