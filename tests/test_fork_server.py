"""A command that is forked does what it does in a new interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import fork_server
from tests.support.cli import run_cli, run_new_cli
from tests.support.forked_command import forked_command

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["forked_command"]  # pytest finds the fixture here

HERE = "tests.test_fork_server"


def end(code: str | int | None) -> None:
    sys.exit(code)


def fail() -> None:
    raise ValueError("nobody foresaw this")


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def report() -> None:
    print(sys.stdin.read(), os.environ.get("SAID"), os.environ.get("UNSAID"), os.getcwd())  # noqa: T201, PTH109


def wait() -> None:
    signal.pause()


@pytest.mark.program
@pytest.mark.parametrize("arguments", [["--version"], ["enrol"], ["show", "--help"], ["list", "--token", "\udcff"]])
def test_its_exit_code_and_its_words_are_those_of_a_new_interpreter(arguments: list[str]) -> None:
    forked, new = run_cli(*arguments), run_new_cli(*arguments)
    assert (forked.returncode, forked.stdout, forked.stderr) == (new.returncode, new.stdout, new.stderr)


@pytest.mark.parametrize(
    ("function", "arguments", "code", "said"),
    [
        ("end", [None], 0, ""),
        ("end", [3], 3, ""),
        ("end", ["why"], 1, "why\n"),
        ("interrupt", [], -signal.SIGTERM, ""),
    ],
)
def test_every_kind_of_end_is_told(function: str, arguments: list[object], code: int, said: str) -> None:
    done = fork_server.run(f"{HERE}:{function}", *arguments, environment={})
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_an_exception_is_a_traceback() -> None:
    done = fork_server.run(f"{HERE}:fail", environment={})
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ValueError: nobody foresaw this\n")


def test_it_has_the_environment_that_it_is_given_and_the_folder_of_the_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("UNSAID", "canary")
    monkeypatch.chdir(str(tmp_path))
    done = fork_server.run(f"{HERE}:report", environment={"SAID": "so"}, stdin="é" * 100_000)
    assert done.stdout == f"{'é' * 100_000} so None {tmp_path}\n"


def test_what_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        fork_server.run(f"{HERE}:wait", environment={}, timeout=0.2)
    done = fork_server.run(f"{HERE}:end", 0, environment={})
    assert done.returncode == 0


def run_in_shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_shell_gets_its_words_and_its_exit_code(forked_command: Path) -> None:
    done = run_in_shell(
        forked_command, "hsm-keys --version | tr h H; hsm-keys show 2>/dev/null; echo $?; exec hsm-keys x"
    )
    words = run_cli("--version").stdout.replace("h", "H")
    assert (done.returncode, done.stdout) == (2, f"{words}2\n")
    assert "There is no command 'x'" in done.stderr


def test_a_shell_s_signal_reaches_it(forked_command: Path, tmp_path: Path) -> None:
    script = f"""
        cd {tmp_path}; export XDG_STATE_HOME=$PWD
        hsm-keys sandbox --port 0 > said & until [ -s said ] || ! kill -0 $!; do sleep 0.01; done
        kill $! && wait $!; echo $?
    """
    assert run_in_shell(forked_command, script).stdout == "0\n"
