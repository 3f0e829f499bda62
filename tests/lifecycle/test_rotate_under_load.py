"""A program that trades while its key is rotated away under it, and loses no request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT, run_json
from tests.support.ministack import REGION, account

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = pytest.mark.program

TRADER = Path(__file__).with_name("trade_on.py")


def rotate_under(store: str, sandbox: SandboxServer, *options: str) -> None:
    old = run_json("enroll", "--name", "prod", *options)["api_key_id"]
    trader = subprocess.Popen(
        [sys.executable, str(TRADER), store, "prod", "100", "4"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert trader.stdout is not None
        assert trader.stdout.readline() == "ready\n"
        new = run_json("rotate", "prod", "--grace", "0s", *options)["api_key_id"]
        signed_with(sandbox, new)  # a program that misses a rotation altogether has to be started again on KMS
        newer = run_json("rotate", "prod", "--grace", "0s", *options)["api_key_id"]
        told, _ = trader.communicate("", timeout=30)
    finally:
        trader.kill()
        trader.wait()
    result = json.loads(told)
    assert set(result["outcomes"]) == {"taken"}, result
    assert result["outcomes"]["taken"] > 50
    assert result["signed_by"] == [old, new, newer]
    assert set(sandbox.state.keys) == {sandbox.bootstrap_key_id, newer}


def signed_with(sandbox: SandboxServer, api_key_id: str) -> None:
    """Wait until the trader has followed to a key."""
    deadline = time.monotonic() + 30
    while not any(seen.api_key_id == api_key_id and seen.path.endswith("/orders") for seen in sandbox.requests):
        assert time.monotonic() < deadline, "the trader doesn't follow"
        time.sleep(0.01)


@pytest.mark.softhsm
def test_on_a_token(token: TestToken, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri)
    rotate_under(token.uri, sandbox)


@pytest.mark.kms
def test_on_kms(account: str, sandbox: SandboxServer) -> None:
    rotate_under(f"awskms:///?region={REGION}", sandbox, "--kms", "--region", REGION)
