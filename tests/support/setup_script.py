"""Running ``softhsm-setup.sh`` in a checkout of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.cli import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def checkout(folder: Path) -> Path:
    """Make the folder a checkout, so that the token of whoever runs the tests is left alone."""
    folder.mkdir()
    for name in ("softhsm-setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, folder)
    return folder


def start(project: Path, venv: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [project / "softhsm-setup.sh", *command],
        env={**os.environ, "HSM_KEYS_VENV": str(venv), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(project: Path, venv: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with start(project, venv, *command, **environment) as running:
        out, err = running.communicate(timeout=120)
    return subprocess.CompletedProcess(command, running.returncode, out, err)


def everything(*folders: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells that a file was touched: for each its inode, time of change and mode."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_mode) for path in files}
