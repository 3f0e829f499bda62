"""What sets the proxy up on a machine: the script, run but for systemctl, and alerts on metrics that there are."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.canaries import run
from tests.support.cli import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PIN = "pin-canary-4711"
PRINT = ("proxy", "install", "prod", "--systemd", "--print")


def installed(tmp_path: Path, script: str) -> Path:
    """Run the script below a folder of its own; the user is there."""
    programs, root = tmp_path / "bin", tmp_path / "root"
    programs.mkdir(exist_ok=True)
    (programs / "id").write_text("#!/bin/sh\nexit 0\n")
    (programs / "id").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "DESTDIR": str(root)}
    subprocess.run(["sh", "-c", script], env=environment, input=f"{PIN}\n", text=True, check=True, capture_output=True)
    return root / "etc"


@pytest.mark.program
def test_the_script_writes_everything_once(tmp_path: Path) -> None:
    printed = run(*PRINT, "--store", "pkcs11:token=kalshi?module-path=/m.so")
    assert printed.code == 0
    assert "@NAME@" not in printed.text
    etc = installed(tmp_path, printed.text)
    pin = etc / "hsm-keys" / "prod.pin"
    assert (pin.read_text(), stat.S_IMODE(pin.stat().st_mode)) == (PIN, 0o600)
    assert (etc / "hsm-keys" / "prod.env").read_text() == "HSM_KEYS_STORE=pkcs11:token=kalshi?module-path=/m.so\n"
    for unit in ("hsm-keys-proxy@.socket", "hsm-keys-proxy@.service"):
        assert "\n[Install]\n" in (etc / "systemd/system" / unit).read_text()
    policy = etc / "hsm-keys" / "prod.toml"
    verdict = run("proxy", "check", str(policy), "GET", "/trade-api/v2/portfolio/balance")
    assert (verdict.code, verdict.text.startswith("allowed")) == (0, True), verdict.text
    policy.write_text("mine")
    installed(tmp_path, printed.text)
    assert policy.read_text() == "mine"


@pytest.mark.parametrize("words", [("a b",), ("$(id)",), ("prod", "--store", "pkcs11:token=x?pin-value=1234")])
def test_what_cannot_stand_in_a_file_is_refused(words: tuple[str, ...]) -> None:
    refused = run("proxy", "install", *words, "--systemd", "--print")
    assert refused.code == 2
    assert "1234" not in refused.text


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    source = (ROOT / "hsm_keys/proxy/metrics.py").read_text()
    known = set(re.findall(r'"(hsm_keys_proxy_\w+)"', source)) or set(re.findall(r"hsm_keys_proxy_\w+", source))
    dashboard = json.dumps(json.loads((ROOT / "contrib/grafana/hsm-keys-proxy.json").read_text()))
    for text in ((ROOT / "contrib/prometheus/hsm-keys-proxy.rules.yml").read_text(), dashboard):
        asked = {re.sub(r"_(bucket|count|total)$", "", name) for name in re.findall(r"hsm_keys_proxy_\w+", text)}
        assert {name for name in asked if name not in {re.sub(r"_total$", "", one) for one in known}} == set()
