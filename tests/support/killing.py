"""A command line that is killed before or after a chosen effect: SIGKILL, as a power cut would have it.

An effect is a line of some modules that holds one of some words. One process imports everything and forks for each
run, so that a run costs a fraction of a second::

    with Killer(["hsm_keys.lifecycle.generate"], ["delete("]) as killer:
        _, places = killer.run(["generate", "whole"])
        killer.run(["generate", "ci"], at=1)   # before the first deletion; at=2 is after it
"""

from __future__ import annotations

import json
import linecache
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

ROOT = Path(__file__).parents[2]


class Killer:
    """The process that forks; its environment is that of the moment in which it is started."""

    def __init__(self, modules: list[str], effects: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killing", json.dumps(modules), json.dumps(effects)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, arguments: list[str], at: int | None = None, after: float | None = None) -> tuple[int, int]:
        """Run the command line; return how it ended (negative: by that signal), and how many places it went through.

        It is killed at that place, or after so many seconds.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([arguments, at, after]), file=self._process.stdin, flush=True)
        status, places = json.loads(self._process.stdout.readline())
        return status, places

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


class _Counter:
    """Counts the lines that have an effect and those that come after one, and ends the process at one of them."""

    def __init__(self, files: set[str], effects: list[str], at: int | None) -> None:
        self.places = 0
        self._files = files
        self._effects = effects
        self._at = at
        self._after = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> _Counter | None:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            before = any(effect in line for effect in self._effects)
            self.places += before or self._after
            self._after = before
            if self.places == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def _run_in_child(arguments: list[str], counter: _Counter, told: int) -> None:
    from hsm_keys.cli import main

    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    status = 1
    sys.settrace(counter)
    try:
        main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.settrace(None)
        os.write(told, str(counter.places).encode())
        os._exit(status)


def _serve(modules: list[str], effects: list[str]) -> None:
    files = {str(import_module(module).__file__) for module in modules}
    for needed in (
        "pkcs11",
        "botocore.session",
        "hsm_keys.kalshi.client",
        "hsm_keys.cli.generate",
        *modules,
        "stamina",
    ):
        import_module(needed)
    for line in sys.stdin:
        arguments, at, after = json.loads(line)
        told, telling = os.pipe()
        child = os.fork()
        if child == 0:
            _run_in_child(arguments, _Counter(files, effects, at), telling)
        os.close(telling)
        if after is not None:
            time.sleep(after)  # a random moment is what is wanted
            os.kill(child, signal.SIGKILL)  # it is ours until it has been waited for
        _, status = os.waitpid(child, 0)
        places = int(os.read(told, 20) or b"0")
        os.close(told)
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), places]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
