"""The examples of docs/start.md, answered with yes, and the one of docs/profiles.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_keys.profiles.file import parse_profiles
from tests.support.cli import ROOT, run_cli

if TYPE_CHECKING:
    from hsm_keys.sandbox.server import SandboxServer
    from tests.support.softhsm import SoftHsm

START = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
PROFILES = (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")


def _commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", START, re.DOTALL | re.MULTILINE)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(("hsm-keys init", "hsm-keys migrate"))]


@pytest.mark.softhsm
def test_the_page_leads_to_a_key_that_signs_and_ends_the_pems(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    commands = _commands()
    assert [command[0] for command in commands] == ["init", "migrate", "migrate"]
    for command in commands:
        done = run_cli(*command, "--yes")
        assert done.returncode == 0, done.stderr
    assert sandbox.bootstrap_key_id not in sandbox.state.keys


def test_the_example_of_a_file_is_one() -> None:
    text = re.findall(r"^```toml\n(.*?)^```", PROFILES, re.DOTALL | re.MULTILINE)[0]
    assert set(parse_profiles(Path("/config.toml"), text.encode()).profiles) == {"prod", "test"}
