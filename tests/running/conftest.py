"""Programs behind a proxy, with a key in a token and the sandbox for Kalshi."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import published
from tests.support.cli import ED25519, run_json
from tests.support.runs import Runs

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

collect_ignore = [] if published.ARE_WANTED else ["test_published_clients.py"]


@pytest.fixture
def runs(token: TestToken, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Runs programs with the key `prod`, which is registered."""
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    run_json("enroll", "--name", "prod", *ED25519)
    return Runs(tmp_path, sandbox)
