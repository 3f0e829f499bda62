"""Packages from npm for tests; ``python -m tests.support.install_node`` installs them.

``HSM_KEYS_TEST_NODE`` names another folder where npm has put them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.install_node import FOLDER


def folder(package: str = "kalshi-typescript") -> Path:
    """Return where the package is installed; in CI a missing one is a failure."""
    named = Path(os.environ.get("HSM_KEYS_TEST_NODE") or FOLDER)
    if shutil.which("node") is None or not (named / "node_modules" / package).is_dir():
        pytest.skip(f"{package} is needed in {named}; run: python -m tests.support.install_node")
    return named
