"""What the command line prints of texts that others choose, and of what the operating system refuses."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.cli import proxy
from hsm_keys.cli.output import _encodable, _visible, fail
from hsm_keys.signing.algorithms import public_key_pem
from hsm_keys.values import encodable
from tests.support.canaries import commands
from tests.support.cli import run_cli, run_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

HOSTILE = "evil\x1b[1A\x1b[2K\nprod  registered\u202e"


@pytest.mark.softhsm
def test_a_name_at_kalshi_steers_no_terminal(token: TestToken, sandbox: SandboxServer) -> None:
    hostile = sandbox.add_key(HOSTILE, public_key_pem(Ed25519PrivateKey.generate().public_key()))
    environment = {"HSM_KEYS_STORE": token.uri_without_pin, "HSM_KEYS_PIN_FILE": str(token.pin_file)}
    for command in (["list"], ["custody"], ["reconcile"], ["revoke", hostile.api_key_id, "--yes"]):
        done = run_cli(*command, **environment)
        shown = done.stdout + done.stderr
        assert r"evil\x1b[1A\x1b[2K\nprod  registered\u202e" in shown
        assert not {"\x1b", "\u202e"} & set(shown)


ANY_TEXT = st.text() | st.text(st.characters(categories=["Cs", "Ll", "Cc"]))
"""Halves of surrogate pairs included: such are what isn't UTF-8, and what JSON may hold."""


@given(ANY_TEXT)
def test_whatever_a_name_holds_it_is_printed(text: str) -> None:
    encodable(text).encode()
    assert encodable(text) == text or any("\ud800" <= one <= "\udfff" for one in text)
    for shown in (_encodable({"keys": [{"name": text}], "of": (text,)}), _encodable({text + "!": None})):
        assert json.loads(json.dumps(shown))
        assert json.dumps(shown, ensure_ascii=False).encode()


def test_bytes_that_are_no_utf_8_can_be_told() -> None:
    assert encodable(b"Schl\xfcssel".decode(errors="surrogateescape")) == r"Schl\xfcssel"
    assert encodable("half a pair: \ud83d") == r"half a pair: \ud83d"


@given(ANY_TEXT)
def test_whatever_a_name_holds_a_line_stays_a_line(text: str) -> None:
    assert _visible(text).isprintable()
    assert _visible(text) == text or not text.isprintable()


def test_what_the_system_refuses_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        Path("/nowhere/at/all").read_bytes()
    assert fail(raised.value, as_json=True) == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["message"] == "the operating system refused something: No such file or directory (/nowhere/at/all)"
    assert "report" not in error["hint"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
@pytest.mark.parametrize("report", [proxy._report, proxy._report_json])
def test_a_log_that_cannot_be_written_stops_no_proxy(
    report: Callable[[str], None], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def full(line: str, *, err: bool) -> None:
        tried.append(line)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(click, "echo", full)
    report("warning: Kalshi cancelled all orders")
    assert len(tried) == 1


def test_every_command_can_answer_in_json() -> None:
    """A group has none of its own, and the help is for people."""
    for words, command in commands():
        if words != ("help",) and (not isinstance(command, click.Group) or command.invoke_without_command):
            options = {name for param in command.params for name in param.opts}
            assert "--output" in options, words


@pytest.mark.program
def test_the_sandbox_says_its_variables_in_json() -> None:
    command = [sys.executable, "-m", "hsm_keys", "--output", "json", "sandbox", "--port", "0", "--key-type", "ed25519"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        lines = [sandbox.stdout.readline() for _ in range(6)]
        sandbox.terminate()
        lines.append(sandbox.stdout.read())
    said = json.loads("".join(lines))
    assert set(said) == {"KALSHI_API_BASE_URL", "KALSHI_WS_URL", "KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY_PATH"}


def test_what_the_sandbox_serves_and_a_script_are_objects_too() -> None:
    served = run_json("sandbox", "--list")["operations"]
    assert {"method": "GET", "path": "/trade-api/v2/api_keys", "gone": False} in served
    assert {"method": "POST", "path": "/trade-api/v2/portfolio/orders", "gone": True} in served
    assert run_json("proxy", "install", "prod", "--systemd", "--print")["script"].startswith("# Sets a signing proxy")
