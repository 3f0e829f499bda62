"""docs/agents.md: its commands run an agent under its policy, and stop it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ED25519, ROOT, run_cli, run_json

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox.server import SandboxServer
    from tests.support.softhsm import TestToken

PAGE = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
AGENT = """
import os, urllib.error, urllib.request
base, key = os.environ["KALSHI_API_BASE_URL"], {"KALSHI-ACCESS-KEY": os.environ["KALSHI_KEY_ID"]}
for path in ("/portfolio/balance", "/api_keys"):
    try:
        print(urllib.request.urlopen(urllib.request.Request(base + path, headers=key), timeout=30).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
ORDER = {
    "ticker": "KXHIGHNY-26NOV28-B50",
    "client_order_id": "3d1fa8f6-64a4-4a4e-8a0b-2f0a3f0f6a11",
    "side": "bid",
    "count": "4.00",
    "price": "0.5000",
    "time_in_force": "good_till_canceled",
    "self_trade_prevention_type": "taker_at_cross",
}


def _block(language: str, containing: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    [found] = [block for block in blocks if containing in block]
    return str(found)


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's policy, in the folder where the commands run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "agent.toml"
    path.write_text(_block("toml", "[clients.agent]"))
    return path


@pytest.mark.parametrize(
    ("method", "path", "change", "allowed"),
    [
        ("POST", "/portfolio/events/orders", {}, True),
        ("POST", "/portfolio/events/orders", {"count": "11.00"}, False),  # 5.50 dollars
        ("POST", "/portfolio/events/orders", {"ticker": "KXBTC-26NOV28-B50"}, False),
        ("GET", "/portfolio/balance", None, True),
        ("DELETE", "/portfolio/events/orders/3d1fa8f6", None, True),
        ("GET", "/api_keys", None, False),
        ("POST", "/api_keys/generate", {}, False),
        ("POST", "/portfolio/subaccounts/transfer", {}, False),
    ],
)
def test_its_policy_allows_what_the_page_says(
    policy: Path, method: str, path: str, change: dict[str, str] | None, *, allowed: bool
) -> None:
    body = [] if change is None else ["--body", json.dumps({**ORDER, **change})]
    done = run_cli("proxy", "check", policy.name, method, path, "--client", "agent", *body)
    assert done.returncode == (0 if allowed else 1), done.stdout + done.stderr


@pytest.mark.program
@pytest.mark.softhsm
@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_its_commands_run_an_agent_and_stop_it(
    policy: Path, token: TestToken, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    run_json("enroll", "--name", "prod", *ED25519)
    words = shlex.split(_block("sh", "hsm-keys run"))
    assert words[-2:] == ["python", "agent.py"]
    command = [sys.executable, "-m", "hsm_keys", *words[1:-2], sys.executable, "-c", AGENT]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["200", "403"]), done.stderr
    assert sandbox.state.keys
    freeze = shlex.split(_block("sh", "proxy freeze"), comments=True)
    assert run_cli(*freeze[1:]).returncode == 3  # it has ended, so that there is no proxy
