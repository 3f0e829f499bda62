"""Clients that others have published, unmodified, each in an environment of its own; made once, and kept.

``HSM_KEYS_TEST_CLIENTS=1`` has them installed and run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

VARIABLE: Final = "HSM_KEYS_TEST_CLIENTS"
ARE_WANTED: Final = bool(os.environ.get(VARIABLE))

PACKAGES: Final = {
    "kalshi-python-async": "3.34.0",
    "pykalshi": "2.0.0",
    "pykalshi-client": "1.3.0",
    "kyro": "0.1.2",
    "kalshi-mcp": "0.1.1",
    "mcp-server-kalshi": "0.2.4",
    "kalshi-mcp-server": "0.3.4",
    "kalshi-degen-mcp": "0.1.2",
}
"""What is installed, each with what it depends on at the time."""

_UNDECLARED: Final = {"kalshi-mcp": ["mcp<2"], "kalshi-degen-mcp": ["pyyaml"]}
"""What some need and don't say."""

_FOLDER: Final = Path(__file__).parents[2] / ".clients"


def environment(package: str) -> Path:
    """Return the folder of programs of the package's environment; it is made where there is none."""
    folder = _FOLDER / f"{package}-{PACKAGES[package]}-python{sys.version_info.major}.{sys.version_info.minor}"
    done = folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wanted = [f"{package}=={PACKAGES[package]}", *_UNDECLARED.get(package, [])]
        subprocess.run([*pip, *wanted], check=True)
        done.touch()
    return folder / "bin"
