"""A program on a terminal, started by a shell with job control: Ctrl-C, Ctrl-Z and fg are as without the run."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT
from tests.support.runs import WITHIN_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.runs import Runs

pytestmark = [pytest.mark.program, pytest.mark.softhsm]

RUN = f"{shlex.quote(sys.executable)} -m hsm_keys run --name prod"
CTRL_C, CTRL_Z = "\x03", "\x1a"


def nothing_is_left(runs: Runs) -> bool:
    return [line for line in runs.processes() if not line.startswith("bash")] == []


class Shell:
    """An interactive bash on a terminal of its own; what is typed isn't shown."""

    def __init__(self) -> None:
        self.process, self._terminal = pty.fork()
        if self.process == 0:  # pragma: no cover - another process
            os.chdir(ROOT)
            environment = {**os.environ, "TERM": "dumb", "PS1": "", "PS2": "", "HISTFILE": "", "ENV": ""}
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)  # noqa: S606
        self.shown = ""
        self.type("stty -echo; echo be''gins\n")
        self.sees("begins")

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def sees(self, text: str) -> None:
        """Read until the text is shown; what came before it is forgotten."""
        while text not in self.shown:
            ready, _, _ = select.select([self._terminal], [], [], WITHIN_S)
            assert ready, f"{text!r} was never shown: {self.shown}"
            self.shown += os.read(self._terminal, 4096).decode()
        self.shown = self.shown.partition(text)[2]

    def close(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self._terminal)


@pytest.fixture
def shell() -> Iterator[Shell]:
    started = Shell()
    yield started
    started.close()


@pytest.mark.parametrize("options", ["", "--contain"])
def test_ctrl_z_stops_all_of_it_and_fg_goes_on(runs: Runs, shell: Shell, options: str) -> None:
    program = "echo ready; read line; echo got $line; read line"
    shell.type(f"{RUN} {options} -- sh -c '{program}'; echo co''de $?\n")
    shell.sees("ready")
    shell.type(CTRL_Z)
    shell.sees("Stopped")
    shell.sees("code 148")  # 128 and SIGTSTP, bash's own
    shell.type("fg; echo co''de $?\n")
    shell.sees("hsm_keys run")
    shell.type("word\n")
    shell.sees("got word")
    shell.type(CTRL_C)
    shell.sees("code 130")
    until(lambda: nothing_is_left(runs))


TIDIES = """
import os, signal
def tidy(*_):
    print("tidies", flush=True)
    print("tidied", os.read(0, 99).decode(), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
signal.signal(signal.SIGTSTP, tidy)
signal.signal(signal.SIGCONT, lambda *_: print("goes on", flush=True))
print("ready", flush=True)
print("got", os.read(0, 99).decode(), flush=True)
"""


@pytest.mark.parametrize("options", ["", "--contain"])
def test_the_shell_gets_the_terminal_once_the_program_has_restored_it(runs: Runs, shell: Shell, options: str) -> None:
    shell.type(f"{RUN} {options} -- {sys.executable} -c {shlex.quote(TIDIES)}; echo co''de $?\n")
    shell.sees("ready")
    shell.type(CTRL_Z)
    shell.sees("tidies")
    shell.type("word\n")  # the program's: a shell would look for a command
    shell.sees("tidied word")
    shell.sees("code 147")  # 128 and SIGSTOP: the program's own
    shell.type("fg; echo co''de $?\n")
    shell.sees("goes on")
    shell.type("more\n")
    shell.sees("got more")
    assert "goes on" not in shell.shown
    shell.sees("code 0")
    until(lambda: nothing_is_left(runs))


def test_a_run_that_is_continued_alone_continues_its_program(runs: Runs) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP); print('goes on')"
    run = runs.start(sys.executable, "-c", program)
    try:
        until(lambda: os.WIFSTOPPED(os.waitpid(run.pid, os.WNOHANG | os.WUNTRACED)[1]))
        os.kill(run.pid, signal.SIGCONT)
        out, _ = run.communicate(timeout=WITHIN_S)
    finally:
        run.kill()
    assert (run.returncode, out) == (0, "goes on\n")


def test_ctrl_c_ends_the_program_and_its_proxy(runs: Runs, shell: Shell) -> None:
    # The shell's own `read`: one that has forked and not yet become another program loses the signal.
    shell.type(f"{RUN} -- sh -c 'echo ready; read line'; echo co''de $?\n")
    shell.sees("ready")
    shell.type(CTRL_C)
    shell.sees("code 130")
    until(lambda: nothing_is_left(runs))


def test_a_program_that_handles_ctrl_c_hears_of_it_once(runs: Runs, shell: Shell) -> None:
    program = "trap 'echo heard' INT; echo ready; until read line; do :; done; echo got $line"
    shell.type(f"{RUN} -- sh -c {shlex.quote(program)}; echo co''de $?\n")
    shell.sees("ready")
    shell.type(CTRL_C)
    shell.sees("heard")
    shell.type("word\n")
    shell.sees("got word")
    assert "heard" not in shell.shown
    shell.sees("code 0")
    until(lambda: nothing_is_left(runs))
