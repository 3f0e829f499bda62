"""The examples of the README and of docs/speed.md, run in their order, on a real token and a strict server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT
from tests.support.ministack import account

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

__all__ = ["account"]  # pytest finds the fixture here

README = (ROOT / "README.md").read_text()
_BLOCK = re.compile(r"(?P<mark><!-- not run: [^>]+ -->\n)?```(?P<language>[a-z]*)\n(?P<code>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    runs: bool


def blocks_of(text: str) -> list[Block]:
    return [Block(match["language"], match["code"], match["mark"] is None) for match in _BLOCK.finditer(text)]


BLOCKS = blocks_of(README)
SPEED = blocks_of((ROOT / "docs" / "speed.md").read_text())


def run_block(block: Block, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[block.language]
    return subprocess.run(
        [*command, block.code], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.softhsm
@pytest.mark.kms
@pytest.mark.timeout(600)
def test_every_example_runs(token: TestToken, sandbox: SandboxServer, account: str) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HSM_KEYS_STORE": f"pkcs11:token=kalshi?module-path={token.module}",
        "HSM_KEYS_PIN_FILE": str(token.pin_file),
    }
    ran = 0
    for block in (*BLOCKS, *SPEED):
        if not block.runs:
            continue
        done = run_block(block, environment)
        assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 7
    assert {key.name for key in sandbox.state.keys.values()} == {"bootstrap", "ci-bot", "prod", "kms-prod"}


def test_every_block_has_a_language_that_is_run() -> None:
    assert {block.language for block in BLOCKS if block.runs} == {"sh", "python"}
    assert {block.language for block in BLOCKS} == {"sh", "python", "js"}  # tests/proxy/test_program.py runs that


def test_the_two_commands_come_first() -> None:
    shell = [block.code for block in BLOCKS if block.language == "sh"]
    assert shell[0].splitlines()[0].startswith("./softhsm-setup.sh hsm-keys demo")
    assert shell[0].splitlines()[1].startswith("./softhsm-setup.sh pytest")


def test_every_environment_variable_that_is_read_is_in_the_table() -> None:
    read = set()
    for path in (ROOT / "hsm_keys").rglob("*.py"):
        read |= set(re.findall(r"\"((?:HSM_KEYS|KALSHI)_[A-Z_]+)\"", path.read_text()))
    missing = {name for name in read if f"`{name}`" not in README}
    assert not missing
