"""The sandbox as a program: export lines, the key's file, and a clean end on signals."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.sandbox import SandboxServer, run_forever
from tests.sandbox.client import API_KEYS, BALANCE, Caller, load, port_of, send

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ["KALSHI_API_BASE_URL", "KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY_PATH", "KALSHI_WS_URL"]


def _never(variables: dict[str, str]) -> None:
    pytest.fail(f"{variables} came")


@contextmanager
def program(folder: Path, **arguments: Any) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run it in a process of its own; give that and what it exported."""
    script = f"""
from hsm_keys.sandbox import export_lines, run_forever
run_forever(lambda variables: print(export_lines(variables), flush=True), **{arguments!r})
"""
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            exported = {}
            for _ in NAMES:
                word, assignment = shlex.split(process.stdout.readline())
                assert word == "export"
                name, _, value = assignment.partition("=")
                exported[name] = value
            yield process, exported
        finally:
            process.kill()


class Elsewhere(SandboxServer):
    """A stand-in for a server in another process: knows its URL alone."""

    def __init__(self, base_url: str) -> None:
        self._url = base_url

    @property
    def base_url(self) -> str:
        return self._url


def caller(exported: dict[str, str]) -> Caller:
    private = load(Path(exported["KALSHI_PRIVATE_KEY_PATH"]).read_text())
    return Caller(Elsewhere(exported["KALSHI_API_BASE_URL"]), exported["KALSHI_KEY_ID"], private)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_until_a_signal_and_takes_its_key_with_it(tmp_path: Path, number: signal.Signals) -> None:
    odd = tmp_path / "it's a folder"
    odd.mkdir()
    with program(odd, key_type="ed25519") as (process, exported):
        assert sorted(exported) == NAMES
        pem = Path(exported["KALSHI_PRIVATE_KEY_PATH"])
        assert pem.parent.parent == odd
        assert stat.S_IMODE(pem.stat().st_mode) == 0o600
        assert stat.S_IMODE(pem.parent.stat().st_mode) == 0o700
        assert list(pem.parent.iterdir()) == [pem]
        assert caller(exported).call("GET", BALANCE).status == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")
        assert list(odd.iterdir()) == []


def test_tier_key_type_and_faults_are_passed_on(tmp_path: Path) -> None:
    faults = ["GET /portfolio/balance:status=500:1"]
    with program(tmp_path, tier="basic", key_type="rsa", faults=faults) as (_, exported):
        assert Path(exported["KALSHI_PRIVATE_KEY_PATH"]).read_text().startswith("-----BEGIN RSA PRIVATE KEY-----")
        boss = caller(exported)
        assert [boss.call("GET", BALANCE).status for _ in range(2)] == [500, 200]
        assert boss.call("POST", API_KEYS, {"name": "n", "public_key": "x"}).status == 403


@pytest.mark.parametrize(
    "arguments", [{"tier": "gold"}, {"faults": ["nonsense"]}, {"key_type": "dsa"}, {"port": 70000}]
)
def test_bad_arguments_are_said_before_anything_is_written(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UsageError):
        run_forever(_never, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with SandboxServer(key_type="ed25519") as first:
        with pytest.raises(UsageError, match="can't be had"):
            run_forever(_never, key_type="ed25519", port=port_of(first))
        assert send(first, "GET", BALANCE, {}).status == 401
    assert list(tmp_path.iterdir()) == []
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_it_ends_well_when_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken_pipe(_: dict[str, str]) -> None:
        assert [entry.name for entry in next(tmp_path.iterdir()).iterdir()] == ["bootstrap.pem"]
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_forever(broken_pipe, key_type="ed25519")
    assert list(tmp_path.iterdir()) == []
