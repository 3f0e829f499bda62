"""``hsm-keys run`` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.cli import ROOT, run_cli

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox import SandboxServer

WITHIN_S = 60


def until(true: Callable[[], Any], within_s: float = 20.0) -> None:
    """Wait for what another process does: it tells nobody."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class Runs:
    """Runs programs with the key `prod`.

    Args:
        folder: Where the proxy's state is.
        sandbox: What is asked.
    """

    def __init__(self, folder: Path, sandbox: SandboxServer) -> None:
        self.folder = folder
        self.sandbox = sandbox

    def start(self, *words: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.Popen[str]:
        """Start a program, and return its run; what is given more goes to ``Popen``, but for ``through``: a command
        that starts the run.
        """
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("environment", {})}
        through = more.pop("through", ())
        command = [*through, sys.executable, "-m", "hsm_keys", "run", "--name", "prod", *options, "--", *words]
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.Popen(command, env=environment, text=True, **given)

    def run(self, *words: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end.

        The run is forked unless something is given that a fork can't have; ``processes`` doesn't see what is forked.
        """
        if set(more) <= {"input", "environment"}:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.get("environment", {})}
            return run_cli("run", "--name", "prod", *options, "--", *words, stdin=more.get("input", ""), **environment)
        stdin = more.pop("input", None)
        if stdin is not None:
            more["stdin"] = subprocess.PIPE
        with self.start(*words, options=options, **more) as process:
            try:
                out, err = process.communicate(stdin, timeout=WITHIN_S)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def python(self, code: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a program of Python."""
        return self.run(sys.executable, "-c", code, options=options, **more)

    def trail(self) -> list[dict[str, Any]]:
        """Return the lines of the audit trail."""
        folder = self.folder / "state" / "hsm-keys" / "prod" / "audit"
        return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]

    def processes(self) -> list[str]:
        """Return the command lines of processes that belong to this test's folder, by their environment."""
        mark = f"XDG_RUNTIME_DIR={self.folder}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if process.name != str(os.getpid()) and mark in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return [line for line in found if line and "fork_server" not in line and "pytest" not in line]
