"""The docs as a site: built strictly, so no link is dead, with no network, and with all that the program knows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

import hsm_keys
from hsm_keys.cli.explanations import KALSHI, OURS, PROXY
from tests.support.canaries import commands
from tests.support.cli import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.program

BUILD = ROOT / "docs" / "site" / "build.py"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "built"
    no_network = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE)
    done = subprocess.run(
        [sys.executable, BUILD, folder],
        env={**os.environ, **no_network, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.timeout(300)
def test_every_page_is_in_the_navigation_and_built(site: Path) -> None:
    def files(entries: object) -> set[str]:
        if isinstance(entries, str):
            return {entries}
        assert isinstance(entries, list | dict)
        return {file for entry in (entries.values() if isinstance(entries, dict) else entries) for file in files(entry)}

    nav = files(tomllib.loads((ROOT / "docs/site/zensical.toml").read_text())["project"]["nav"])
    assert nav == {page.name for page in (site / "pages").glob("*.md")}
    assert {page.name for page in (site / "html").glob("*.html")} >= {name.replace(".md", ".html") for name in nav}


@pytest.mark.timeout(300)
def test_the_reference_has_all_that_the_program_knows(site: Path) -> None:
    pages = {name: (site / "html" / f"{name}.html").read_text() for name in ("commands", "errors", "api")}
    for words, _ in commands():
        heading = " ".join(["hsm-keys", *words]) if words else "Commands"
        assert re.search(rf"<h\d[^>]*>{heading}<", pages["commands"]), words
    for code in (*OURS, *PROXY, *KALSHI):
        assert f">{code}</code>" in pages["errors"], code
    for name in set(hsm_keys.__all__) - {"__version__"}:
        assert re.search(rf'id="[\w.]+\.{name}"', pages["api"]), name


@pytest.mark.timeout(300)
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//|<link[^>]+href=\"?(?:https?:)?//")
    pages = list((site / "html").glob("*.html"))
    assert len(pages) > 20
    assert [page.name for page in pages if loaded.search(page.read_text())] == []


@pytest.mark.timeout(300)
def test_a_dead_link_stops_the_build(site: Path, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text("# Page\n\n[gone](gone.md)\n")
    settings = (ROOT / "docs/site/zensical.toml").read_text()
    (tmp_path / "zensical.toml").write_text(re.sub(r"nav = \[.*?^\]$", "", settings, flags=re.DOTALL | re.MULTILINE))
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "zensical.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert "page does not exist" in done.stdout + done.stderr
