"""What the environment is made from: versions that are written down, on every Python that is supported."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from tests.support.cli import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def _name(requirement: str) -> str:
    return re.split(r"[ =<>!~;\[]", requirement, maxsplit=1)[0].lower()


def test_every_dependency_has_a_version() -> None:
    wanted = list(PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    for name in ("dev", "docs", "sdks"):
        wanted += [entry for entry in PROJECT["dependency-groups"][name] if isinstance(entry, str)]
    pinned = {_name(line) for line in CONSTRAINTS}
    assert [one for one in wanted if _name(one) not in pinned] == []


def test_constraints_are_versions_and_no_addresses() -> None:
    line = re.compile(r"[a-z0-9.-]+==[\w.+!-]+(?: ; [\w\s'.<>=()!*]+)?")
    assert [one for one in CONSTRAINTS if not line.fullmatch(one)] == []


def test_the_same_pythons_are_named_everywhere() -> None:
    named = [one.rpartition(" ")[2] for one in PROJECT["project"]["classifiers"] if "Python :: 3." in one]
    assert named == PYTHONS
    first, last = PYTHONS[0], PYTHONS[-1]
    assert PROJECT["project"]["requires-python"] == f">={first}"
    for page in ("README.md", "CONTRIBUTING.md", "softhsm-setup.sh", ".ci/run", ".github/workflows/test.yml"):
        assert f"{first} to {last}" in (ROOT / page).read_text(encoding="utf-8"), page
    for name in ("test.yml", "release.yml"):
        listed = (ROOT / ".github/workflows" / name).read_text(encoding="utf-8")
        assert "".join(f"            {python}\n" for python in PYTHONS) in listed, name


def test_hooks_run_what_ci_runs() -> None:
    hooks = re.findall(
        r"entry: \./softhsm-setup\.sh (.+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    )
    assert {hook.split()[0] for hook in hooks} == {"ruff", "mypy", "lint-imports", "zizmor"}
    assert "http" not in (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
