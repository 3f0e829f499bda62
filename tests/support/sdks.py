"""Kalshi's SDKs in tests: those that must be there, and the recipes of docs/sdks.md, run as they stand."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.support.cli import ROOT

DOCS = (ROOT / "docs" / "sdks.md").read_text()

_RECIPE = re.compile(r"<!-- recipe: (?P<name>[^>]+?) -->\n```python\n(?P<code>.*?)```", re.DOTALL)
RECIPES = {match["name"]: match["code"] for match in _RECIPE.finditer(DOCS)}

OPENING = "open the store"


def wanted() -> dict[str, str]:
    """Return the SDKs that run on this Python, and the versions that the project's `sdks` group pins."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["sdks"]
    requirements = [Requirement(line) for line in group]
    return {
        requirement.name: str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


def none_runs_here() -> bool:
    return not wanted()


def need(distribution: str) -> str:
    """Return the SDK's version, which must be the one that is pinned; in CI a missing one is a failure."""
    pinned = wanted().get(distribution)
    if pinned is None:
        pytest.skip(f"{distribution} doesn't run on Python {sys.version_info.major}.{sys.version_info.minor}")
    try:
        found = version(distribution)
    except PackageNotFoundError:
        found = "missing"
    if found != pinned:
        pytest.skip(
            f"{distribution} {pinned} is needed, and it is {found} on Python {sys.version_info.major}."
            f"{sys.version_info.minor}: pip install --group sdks"
        )
    return found


def run_recipe(name: str, then: str = "", **names: Any) -> dict[str, Any]:
    """Run the store's opening, a recipe, and some lines of a test, and return their names; the store is closed.

    They run as in ``python -m asyncio``: ``await`` is allowed at the top.
    """
    space: dict[str, Any] = {"__name__": "__recipe__", **names}
    try:
        exec(RECIPES[OPENING], space)  # noqa: S102 - the documented text is what is tested
        source = f"{RECIPES[name]}\n{inspect.cleandoc(then)}"
        code = compile(source, f"docs/sdks.md: {name}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(_awaited(code, space))
        else:
            exec(code, space)  # noqa: S102
    finally:
        if "store" in space:
            space["store"].close()
    return space


async def _awaited(code: Any, space: dict[str, Any]) -> None:
    await eval(code, space)  # noqa: S307
