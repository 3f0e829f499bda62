"""The Python examples of the README and the docs, as mypy --strict and pyright see them."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.docs.test_readme import blocks_of
from tests.support.cli import ROOT
from tests.support.sdks import OPENING, RECIPES, none_runs_here, wanted

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.program

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SDKS = {
    "kalshi": "kalshi-sdk",
    "kalshi_python_sync": "kalshi-python-sync",
    "kalshi_python_async": "kalshi-python-async",
}


def examples() -> dict[str, str]:
    """Return each example by a name for its file; the recipes with what opens their store."""
    found = {re.sub(r"\W+", "_", name): f"{RECIPES[OPENING]}\n{code}" for name, code in RECIPES.items()}
    for page in PAGES:
        if page.name not in {"sdks.md", "fix.md"}:  # QuickFIX has no types
            codes = [block.code for block in blocks_of(page.read_text()) if block.language == "python"]
            found |= {f"{page.stem}_{number}": code for number, code in enumerate(codes)}
    return {name: as_module(code) for name, code in found.items() if imports_what_is_here(code)}


def as_module(code: str) -> str:
    """Put what awaits at the top, as in ``python -m asyncio``, into a coroutine."""
    module = compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if not module.co_flags & inspect.CO_COROUTINE:
        return code
    return f"async def example() -> None:\n{textwrap.indent(code, '    ')}"


def imports_what_is_here(code: str) -> bool:
    """Tell whether the SDKs that an example imports run on this Python."""
    imported = set(re.findall(r"^from (\w+)", code, re.MULTILINE))
    return all(SDKS[name] in wanted() for name in imported & SDKS.keys())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for name, code in examples().items():
        (folder / f"example_{name}.py").write_text(code)
    return folder


def checked(*command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    given = [str(part) for part in command]
    return subprocess.run(given, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_there_are_examples() -> None:
    assert len(examples()) >= (3 if none_runs_here() else 10)


@pytest.mark.timeout(300)
def test_mypy(folder: Path) -> None:
    """The project's own settings are as strict, and its cache knows the program and all that it imports."""
    command = [sys.executable, "-m", "mypy", "--strict", *folder.glob("*.py")]
    done = checked(*command, MYPYPATH=f"{folder}{os.pathsep}{ROOT}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_pyright(folder: Path) -> None:
    if shutil.which("node") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("pyright runs in Node.js")
    settings = {"include": [str(folder)], "typeCheckingMode": "standard", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--project", folder / "pyrightconfig.json"]
    done = checked(*command, "--pythonpath", sys.executable, "--outputjson")
    found = json.loads(done.stdout)["generalDiagnostics"]
    assert [f"{one['file']}:{one['range']['start']['line'] + 1}: {one['message']}" for one in found] == []
    assert done.returncode == 0
