"""No page, example or benchmark teaches a write that Kalshi answers with 410."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from hsm_keys.kalshi.operations import OPERATIONS
from tests.support.cli import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TAUGHT = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted(path for path in (ROOT / "contrib").rglob("*") if path.is_file()),
    *sorted((ROOT / "hsm_keys" / "cli").glob("*.py")),
]
GONE = {operation.method for operation in OPERATIONS if operation.instead is not None}
WRITE = re.compile(rf"(?:{'|'.join(sorted(GONE))})\b[^\n]{{0,40}}?(?<!events)/orders\b", re.IGNORECASE)


@pytest.mark.parametrize("page", TAUGHT, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_write_of_v1_is_taught(page: Path) -> None:
    lines = page.read_text().splitlines()
    dead = [line for line in lines if WRITE.search(line) and "portfolio/orders" in line and "410" not in line]
    assert dead == []
