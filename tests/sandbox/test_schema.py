"""schemathesis finds nothing in the key endpoints: no 5xx, no answer outside Kalshi's document, no wrong method."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsm_keys.sandbox import SandboxServer
from tests.support.cli import ROOT

pytestmark = pytest.mark.program

SCHEMA = Path(__file__).with_name("api-keys.openapi.yaml")
UNFIT = (
    "positive_data_acceptance",  # the document can't say that a name isn't empty, a PEM is one, and an id is known
    "ignored_auth",  # signatures are for test_auth.py; the document here has none
)


def test_the_key_endpoints(tmp_path: Path) -> None:
    with SandboxServer(key_type="ed25519") as server:
        command = [sys.executable, "-m", "schemathesis.cli", "run", str(SCHEMA), "--url", server.base_url, "--no-color"]
        how = ["--phases=coverage,fuzzing", "--max-examples=25", "--checks=all", f"--exclude-checks={','.join(UNFIT)}"]
        how += ["--generation-deterministic"]  # one time in many none of the random PEMs is one that is taken
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
            "PYTHONPATH": str(ROOT),
            "KALSHI_KEY_ID": server.bootstrap_key_id,
            "KALSHI_PRIVATE_KEY": server.bootstrap_pem,
        }
        done = subprocess.run(
            [*command, *how], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=100
        )
    assert done.returncode == 0, done.stdout
    assert "Tested: 4" in done.stdout
    assert {request.status for request in server.requests} >= {200, 201, 400, 404, 405}
