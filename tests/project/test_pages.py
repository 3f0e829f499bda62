"""SECURITY.md, CONTRIBUTING.md and docs/release.md name what there is."""

from __future__ import annotations

import re
import runpy

import pytest

from tests.support.cli import ROOT

PAGES = ("SECURITY.md", "CONTRIBUTING.md", "docs/release.md")
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
PROMISES = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TEXTS["SECURITY.md"])


def test_every_promise_has_a_test() -> None:
    table = [line for line in TEXTS["SECURITY.md"].splitlines() if line.startswith("| ")]
    assert len(PROMISES) == len(table) - 1
    assert len(PROMISES) > 15


@pytest.mark.parametrize(("path", "name"), PROMISES)
def test_the_test_of_a_promise_exists(path: str, name: str) -> None:
    assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[page])
    files = re.findall(r"`((?:tests|hsm_keys|docs|\.ci)/[\w./-]+)`", TEXTS[page])
    for path in (*((ROOT / page).parent / link for link in links), *(ROOT / file for file in files)):
        assert path.exists(), path


def test_the_version_in_the_release_page_is_this_one() -> None:
    version = runpy.run_path(str(ROOT / "hsm_keys/_version.py"))["__version__"]
    assert set(re.findall(r"(?:hsm_keys-|\bv)(\d+\.\d+\.\d+)", TEXTS["docs/release.md"])) == {version}
