"""What sets the proxy up on a machine: the script, run but for systemctl, and alerts on metrics that there are."""

from __future__ import annotations

import json
import os
import pty
import re
import stat
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest

from tests.support.canaries import run
from tests.support.cli import ROOT, run_cli

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
    printed = run_cli(*PRINT, "--store", "pkcs11:token=kalshi?module-path=/m.so")
    assert printed.returncode == 0
    assert "@NAME@" not in printed.stdout
    etc = installed(tmp_path, printed.stdout)
    pin = etc / "hsm-keys" / "prod.pin"
    assert (pin.read_text(), stat.S_IMODE(pin.stat().st_mode)) == (PIN, 0o600)
    assert (etc / "hsm-keys" / "prod.env").read_text() == "HSM_KEYS_STORE=pkcs11:token=kalshi?module-path=/m.so\n"
    for unit in ("hsm-keys-proxy@.socket", "hsm-keys-proxy@.service"):
        assert "\n[Install]\n" in (etc / "systemd/system" / unit).read_text()
    policy = etc / "hsm-keys" / "prod.toml"
    verdict = run("proxy", "check", str(policy), "GET", "/trade-api/v2/portfolio/balance")
    assert (verdict.code, verdict.text.startswith("allowed")) == (0, True), verdict.text
    policy.write_text("mine")
    installed(tmp_path, printed.stdout)
    assert policy.read_text() == "mine"


@pytest.mark.program
def test_a_store_without_a_pin_is_not_asked_for_one(tmp_path: Path) -> None:
    printed = run_cli(*PRINT, "--store", "awskms:///?region=us-east-1")
    assert "PIN of the token" not in printed.stdout
    etc = installed(tmp_path, printed.stdout)
    assert not (etc / "hsm-keys" / "prod.pin").exists()
    drop_in = (etc / "systemd/system/hsm-keys-proxy@prod.service.d/no-pin.conf").read_text()
    assert "\nLoadCredential=\n" in drop_in


@pytest.mark.program
def test_a_wrong_pin_stops_the_socket_too_whose_next_connection_would_try_it_again(tmp_path: Path) -> None:
    unit = (ROOT / "hsm_keys/proxy/systemd/hsm-keys-proxy@.service").read_text()
    programs = set(re.findall(r"^Exec\w+=\+?(\S+)", unit, re.MULTILINE))
    assert programs == {"/opt/hsm-keys/bin/hsm-keys", "/bin/sh"}, "a small Debian has not even /bin/kill"
    statuses = re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)[0].split()
    command = re.findall(r"^ExecStopPost=\+/bin/sh -c '(.*)'$", unit, re.MULTILINE)[0]
    systemctl = tmp_path / "systemctl"
    systemctl.write_text('#!/bin/sh\necho "$*"\n')
    systemctl.chmod(0o755)
    stopped = {}
    for status in ("0", "1", "2", "3", "4", "7", "TERM"):
        words = ["/bin/sh", "-c", command.replace("$$", "$").replace("%i", "prod")]
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "EXIT_STATUS": status}
        stopped[status] = subprocess.run(words, env=environment, text=True, check=True, capture_output=True).stdout
    assert {status for status, said in stopped.items() if said} == set(statuses) == {"2", "4"}
    assert stopped["4"] == "--no-block stop hsm-keys-proxy@prod.socket\n"


@pytest.mark.program
def test_a_run_that_is_interrupted_gives_the_terminal_its_echo_back(tmp_path: Path) -> None:
    (script := tmp_path / "install.sh").write_text(run_cli(*PRINT).stdout)
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.execve("/bin/sh", ["sh", str(script)], {"PATH": os.environ["PATH"], "DESTDIR": str(tmp_path / "root")})  # noqa: S606 - no shell is the point
    shown = b""
    while not shown.endswith(b"PIN of the token: "):
        shown += os.read(terminal, 1024)
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        os.sched_yield()
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert termios.tcgetattr(terminal)[3] & termios.ECHO
    os.close(terminal)


@pytest.mark.parametrize(
    "words",
    [
        ("a b",),
        ("$(id)",),
        ("prod", "--store", "pkcs11:token=x?pin-value=1234"),
        ("prod", "--store", "pkcs11:token='x"),
        ("prod", "--store", "file:///x"),
    ],
)
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
