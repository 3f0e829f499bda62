"""Packages from npm for tests, unmodified, in a folder of their own. Make that once (Node.js and npm are needed)::

    python -m tests.support.node

``HSM_KEYS_TEST_NODE`` names another folder where npm has put it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_PACKAGES = {"kalshi-typescript": "3.30.0", "@cloud-copilot/iam-simulate": "0.1.173"}
_FOLDER = Path(__file__).parents[2] / ".node"


def folder(package: str = "kalshi-typescript") -> Path:
    """Return where the package is installed; in CI a missing one is a failure."""
    named = Path(os.environ.get("HSM_KEYS_TEST_NODE") or _FOLDER)
    if shutil.which("node") is None or not (named / "node_modules" / package).is_dir():
        pytest.skip(f"{package} is needed in {named}; run: python -m tests.support.node")
    return named


def _install() -> None:
    npm = shutil.which("npm") or sys.exit("npm is needed")
    _FOLDER.mkdir(exist_ok=True)
    wanted = [f"{package}@{version}" for package, version in _PACKAGES.items()]
    quiet = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run([npm, "install", *quiet, "--prefix", _FOLDER, *wanted], check=True)


if __name__ == "__main__":
    _install()
