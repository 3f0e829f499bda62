"""Running the command line as its users do: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.support import fork_server
from tests.support.fork_server import ROOT

__all__ = ["ED25519", "ROOT", "failed_json", "run_cli", "run_json", "run_new_cli"]

ED25519 = ("--key-type", "ed25519")
"""For tests that don't ask about the key's type: a token takes a tenth of a second for an RSA key."""

_WITHIN_S = 60


def run_cli(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``hsm-keys`` with this process's environment and some more; stdin is a pipe that holds a text.

    It is forked off a process that has imported it, see ``fork_server``.
    """
    return fork_server.run(
        "tests.support.fork_server:hsm_keys",
        list(arguments),
        environment=_environment(environment),
        stdin=stdin,
        timeout=_WITHIN_S,
    )


def run_new_cli(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The same, as ``python -m hsm_keys`` in a new interpreter: for what that itself does at its start and its end."""
    return subprocess.run(
        [sys.executable, "-m", "hsm_keys", *arguments],
        env=_environment(environment),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=_WITHIN_S,
    )


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


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
