"""``--verbose`` says what is asked of the store and of Kalshi, and no secret with it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ED25519, run_cli, run_json

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

CANARY = "body-canary-4711"
SIGNATURE = re.compile(r"[A-Za-z0-9+/=]{64}")


def test_it_says_what_is_asked_and_no_secret(pin: str, token: TestToken, sandbox: SandboxServer) -> None:
    said = run_cli("enroll", "prod", *ED25519, "-v").stderr
    for line in ("token: log in", "token: make the key 'prod'", "token: sign with the key 'prod'"):
        assert f"\n  {line}\n" in f"\n{said}"
    assert "\n  Kalshi: POST /trade-api/v2/api_keys\n  Kalshi: answered 201 after " in said
    body = json.dumps({"client_order_id": CANARY})
    commands = [
        ("sign", "GET", "/portfolio/balance", "--name", "prod"),
        ("request", "GET", f"/portfolio/orders?ticker={CANARY}", "--name", "prod"),
        ("request", "POST", "/portfolio/events/orders", "--json", body, "--name", "prod"),
        ("generate", "ci-bot", "--scope", "read"),
        ("rotate", "ci-bot"),
        ("custody",),
        ("revoke", "ci-bot", "--yes"),
    ]
    said += "".join(run_cli(*words, "-v").stderr for words in commands)
    assert said.count("Kalshi: answered") > len(commands)
    asked = [line for line in said.splitlines() if line.startswith("  ")]
    assert [line for line in asked for secret in (pin, CANARY, "PRIVATE KEY") if secret in line] == []
    assert [line for line in asked if SIGNATURE.search(line)] == []


def test_without_it_nothing_is_said_and_json_gets_it_after_the_object(pin: str, sandbox: SandboxServer) -> None:
    assert "token:" not in run_cli("enroll", "prod", *ED25519).stderr
    done = run_cli("show", "prod", "--output", "json", "--verbose")
    assert json.loads(done.stdout)["name"] == "prod"
    assert "token: log in" in done.stderr
    failed = run_cli("show", "nope", "--output", "json", "--verbose")
    assert set(json.loads(failed.stderr)) == {"error"}
    assert run_json("show", "prod")["name"] == "prod"
