"""The examples of the README and of docs/, run in the order of a reader, on a real token and a strict server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT
from tests.support.forked_command import forked_command
from tests.support.ministack import account

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

__all__ = ["account", "forked_command"]  # pytest finds the fixtures here

_BLOCK = re.compile(r"(?P<mark><!-- not run: [^>]+ -->\n)?```(?P<language>[a-z]*)\n(?P<code>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    runs: bool


def blocks_of(text: str) -> list[Block]:
    return [Block(match["language"], match["code"], match["mark"] is None) for match in _BLOCK.finditer(text)]


# Pages whose examples are one story: what one makes, the next one uses.
STORY = (
    "README",
    "docs/tutorial",
    "docs/keys",
    "docs/bots",
    "docs/kms",
    "docs/custody",
    "docs/proxy",
    "docs/clients",
    "docs/reference",
    "docs/speed",
)
ELSEWHERE = {
    "docs/agents": "tests/docs/test_agents_page.py",
    "docs/containers": "its examples run containers",
    "docs/disaster": "its examples wait, or need what is broken",
    "docs/fix": "tests/integrations/test_quickfix.py",
    "docs/modules": "its examples need a module of the reader's",
    "docs/release": "tests/project/test_release.py",
    "docs/sandbox": "tests/docs/test_sandbox_page.py",
    "docs/sdks": "tests/integrations",
    "docs/start": "tests/docs/test_start_page.py",
    "docs/systemd": "tests/proxy/test_installing.py runs the script that it prints",
    "docs/vault": "tests/vault",
}
PAGES = {
    str(page.relative_to(ROOT).with_suffix("")): blocks_of(page.read_text(encoding="utf-8"))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
BLOCKS = PAGES["README"]
RUN = {"sh", "python"}
VOLATILE = {  # what differs from run to run
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "ID",
    r"\b[0-9a-f]{16}\b": "SERIAL",
    r"\b[0-9a-f]{8}\b": "ENVIRONMENT",
    r'"updated_ts": \d+': "TIME",
    r"module-path=\S+": "MODULE",
    r" +": " ",
}


def steady(output: str) -> list[str]:
    for pattern, name in VOLATILE.items():
        output = re.sub(pattern, name, output)
    return [line.rstrip() for line in output.splitlines()]


def run_block(block: Block, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run an example; what it printed, on stderr too, is in ``stdout``, in its order."""
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[block.language]
    return subprocess.run(
        [*command, block.code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.softhsm
@pytest.mark.kms
@pytest.mark.timeout(600)
def test_every_example_runs_and_prints_what_the_page_says(
    token: TestToken, sandbox: SandboxServer, account: str, forked_command: Path
) -> None:
    environment = {
        **os.environ,
        "PATH": f"{forked_command}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HSM_KEYS_STORE": f"pkcs11:token=kalshi?module-path={token.module}",
        "HSM_KEYS_PIN_FILE": str(token.pin_file),
    }
    ran = compared = 0
    for page in STORY:
        for block, following in pairwise([*PAGES[page], Block("", "", runs=False)]):
            if not block.runs or block.language not in RUN:
                continue
            done = run_block(block, environment)
            assert done.returncode == 0, f"{page}: {block.code}\n{done.stdout}"
            ran += 1
            if following.language == "text":
                assert steady(done.stdout) == steady(following.code), page
                compared += 1
    assert (ran, compared) >= (18, 1)
    names = {key.name for key in sandbox.state.keys.values()}
    assert names == {"bootstrap", "ci-bot", "prod", "trader", "my-bot", "kms-prod"}


def test_every_page_with_examples_is_run_somewhere() -> None:
    with_examples = {page for page, blocks in PAGES.items() if {block.language for block in blocks} & RUN}
    assert with_examples == {*STORY, *ELSEWHERE}


def test_the_two_commands_come_first() -> None:
    shell = [block.code for block in BLOCKS if block.language == "sh"]
    assert shell[0].splitlines()[0].startswith("./softhsm-setup.sh hsm-keys demo")
    assert shell[0].splitlines()[1].startswith("./softhsm-setup.sh pytest")


def test_the_readme_is_short_enough_to_be_read_to_its_end() -> None:
    assert (ROOT / "README.md").stat().st_size <= 8 * 1024


def test_the_bot_has_ten_lines() -> None:
    [bot] = [block.code for block in BLOCKS if block.language == "python"]
    assert len([line for line in bot.splitlines() if line]) <= 10


def test_every_environment_variable_that_is_read_is_in_the_table() -> None:
    read = set()
    for path in (ROOT / "hsm_keys").rglob("*.py"):
        if path.parts[-2:] == ("running", "variables.py"):  # what `run` sets: docs/clients.md has it
            continue
        read |= set(re.findall(r"\"((?:HSM_KEYS|KALSHI)_[A-Z_]*[A-Z])\"", path.read_text()))
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert {name for name in read if f"`{name}`" not in reference} == set()
