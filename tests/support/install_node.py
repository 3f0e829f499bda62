"""Installs packages from npm for tests, unmodified, in a folder of their own; any Python runs this, once::

    python -m tests.support.install_node

Node.js and npm are needed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".node"
_PACKAGES = {"kalshi-typescript": "3.30.0", "@cloud-copilot/iam-simulate": "0.1.173"}


def main() -> None:
    npm = shutil.which("npm") or sys.exit("npm is needed")
    FOLDER.mkdir(exist_ok=True)
    wanted = [f"{package}@{version}" for package, version in _PACKAGES.items()]
    quiet = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run([npm, "install", *quiet, "--prefix", FOLDER, *wanted], check=True)


if __name__ == "__main__":
    main()
