"""docs/sandbox.md: its examples run, and its table has the versions that the tests run."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from hsm_keys.sandbox.markets import MARKETS, PERPS
from tests.docs.test_readme import Block, blocks_of, run_block
from tests.support.cli import ROOT
from tests.support.forked_command import forked_command
from tests.support.sdks import wanted

__all__ = ["forked_command"]  # pytest finds the fixture here

PAGE = (ROOT / "docs" / "sandbox.md").read_text()


@pytest.mark.program
@pytest.mark.parametrize("block", blocks_of(PAGE), ids=lambda block: block.language)
def test_its_examples_run(block: Block, forked_command: Path) -> None:
    environment = {**os.environ, "PATH": f"{forked_command}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = run_block(block, environment)
    assert done.returncode == 0, done.stdout


def test_it_names_every_market() -> None:
    assert {ticker for ticker in [*MARKETS, *PERPS] if f"`{ticker}`" not in PAGE} == set()


def test_its_table_has_the_versions_that_are_tested() -> None:
    for name, version in wanted().items():
        row = name.replace("kalshi-python-async", "kalshi-python-sync, -async").replace("sync, -async, -async", "sync")
        assert re.search(rf"^\| {re.escape(row)}[^|]*\| {re.escape(version)} \|", PAGE, re.MULTILINE), name
