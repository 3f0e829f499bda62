"""A command line that is killed at a chosen line of chosen modules: SIGKILL, as a power cut would have it.

One process imports everything and forks for each run, so that a run costs a fraction of a second::

    with Killer("hsm_keys.lifecycle.generate") as killer:
        killer.run(["generate", "ci"], at=17)   # before the 17th line of the modules; None lets it end
"""

from __future__ import annotations

import json
import linecache
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

ROOT = Path(__file__).parents[2]


class Killer:
    """The process that forks; its environment is that of the moment in which it is started."""

    def __init__(self, *modules: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killing", *modules],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, arguments: list[str], at: int | None = None) -> tuple[int, list[str]]:
        """Run the command line; return how it ended (negative: by that signal), and the lines that it went through."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([arguments, at]), file=self._process.stdin, flush=True)
        status, lines = json.loads(self._process.stdout.readline())
        return status, lines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def around(lines: list[str], *effects: str) -> list[int]:
    """Return where to kill: before and after each line that does one of these things, counted from 1."""
    places = {place for place, line in enumerate(lines, 1) if any(effect in line for effect in effects)}
    return sorted(places | {place + 1 for place in places if place < len(lines)})


class _Counter:
    """Counts the line events of some files, and ends the process at one of them."""

    def __init__(self, files: set[str], at: int | None) -> None:
        self.lines: list[str] = []
        self._files = files
        self._at = at

    def __call__(self, frame: FrameType, event: str, _: Any) -> _Counter | None:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            self.lines.append(linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip())
            if len(self.lines) == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def _run_in_child(arguments: list[str], at: int | None, files: set[str], told: int) -> None:
    from hsm_keys.cli import main

    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    counter = _Counter(files, at)
    status = 1
    sys.settrace(counter)
    try:
        main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.settrace(None)
        os.write(told, json.dumps(counter.lines).encode())
        os._exit(status)


def _serve(modules: list[str]) -> None:
    files = {str(import_module(module).__file__) for module in modules}
    for needed in ("pkcs11", "botocore.session", "hsm_keys.kalshi.client", "hsm_keys.cli.generate", "stamina"):
        import_module(needed)
    for line in sys.stdin:
        arguments, at = json.loads(line)
        told, telling = os.pipe()
        child = os.fork()
        if child == 0:
            _run_in_child(arguments, at, files, telling)
        os.close(telling)
        _, status = os.waitpid(child, 0)
        lines = json.loads(os.read(told, 65536) or b"[]")
        os.close(told)
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), lines]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(sys.argv[1:])
