"""Running the command line as its users do: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_cli(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m hsm_keys`` with this process's environment and some more; stdin is a pipe that holds a text."""
    return subprocess.run(
        [sys.executable, "-m", "hsm_keys", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def run_json(*arguments: str, **environment: str) -> Any:
    """Run a command that must succeed, and return its JSON object."""
    done = run_cli(*arguments, "--output", "json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def failed_json(exit_code: int, *arguments: str, **environment: str) -> Any:
    """Run a command that must fail with that exit code, and return the error object, alone on stderr."""
    done = run_cli(*arguments, "--output", "json", **environment)
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    error = json.loads(done.stderr)["error"]
    assert set(error) == {"code", "message", "hint"}
    return error
