"""How the setup script makes its virtual environment, told by a Python that writes down what it was asked.

The real thing takes long and needs a package index; whoever runs the tests has just done it.
"""

from __future__ import annotations

import os
import pty
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support import softhsm
from tests.support.setup_script import checkout, everything, run, start

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

# Makes folders that look like virtual environments, and plays pip; all else is for the real one.
PYTHON = """#!/bin/bash
case "$*" in
*_base_executable*) echo "$FAKE_PYTHON" ;;
*sys.version_info*) echo "${FAKE_VERSION:-3.12}" ;;
--version) echo "Python ${FAKE_VERSION:-3.12}.0" ;;
"-m venv "*)
    echo "venv" >>"$FAKE_LOG"
    mkdir -p "$3/bin" && cp "$FAKE_PYTHON" "$3/bin/python" && touch "$3/pyvenv.cfg" ;;
"-m pip "*)
    if [ -e "${0%/bin/python}/pip-is-broken" ]; then exit 1; fi
    echo "${*:2}" >>"$FAKE_LOG"
    if [ "${FAKE_PIP:-}" = killed ]; then kill -9 "$PPID"; fi
    if [ "${FAKE_PIP:-}" = broken ]; then echo "no such index" >&2; exit 1; fi ;;
*) exec REAL "$@" ;;
esac
"""


class Fake:
    """A checkout, and the Python that its setup script is given."""

    def __init__(self, folder: Path) -> None:
        self.project = checkout(folder / "a project")
        self.venv = self.project / ".venv"
        self.log = folder / "log"
        self.python = folder / "python"
        self.python.write_text(PYTHON.replace("REAL", sys.executable))
        self.python.chmod(0o755)
        self.environment = {
            "HSM_KEYS_PYTHON": str(self.python),
            "FAKE_PYTHON": str(self.python),
            "FAKE_LOG": str(self.log),
        }

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        done = run(self.project, self.venv, *(command or ("true",)), **(self.environment | environment))
        return done.returncode, done.stderr

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    lacking = softhsm.missing()
    if lacking is not None:
        pytest.skip(f"SoftHSM is needed: {lacking}")
    return Fake(tmp_path)


def test_it_is_made_once_with_a_pip_that_knows_groups(fake: Fake) -> None:
    assert fake.run()[0] == 0
    venv, pip, install = fake.calls
    assert venv == "venv"
    assert pip.endswith("--upgrade pip")
    versions, project = f"--constraint {fake.project}/constraints.txt", f"--editable {fake.project}[kms,proxy,sandbox]"
    assert install.endswith(f"{versions} {project} --group {fake.project}/pyproject.toml:dev")
    before = everything(fake.project)
    assert fake.run() == (0, "")
    assert len(fake.calls) == 3
    assert everything(fake.project) == before


def test_the_tools_of_a_developer_come_with_the_first_command_that_may_need_them(fake: Fake) -> None:
    (fake.project.parent / "hsm-keys").write_text("#!/bin/bash\n")
    (fake.project.parent / "hsm-keys").chmod(0o755)
    path = f"{fake.project.parent}:{os.environ['PATH']}"
    assert fake.run("hsm-keys", "demo", PATH=path)[0] == 0
    assert "[kms,proxy,sandbox]" in fake.calls[-1]
    assert "--group" not in fake.calls[-1]
    assert fake.run("hsm-keys", "list", PATH=path) == (0, "")
    assert fake.run()[0] == 0
    assert fake.calls[-1].endswith("--group " + str(fake.project / "pyproject.toml:dev"))
    before = fake.calls
    assert fake.run("hsm-keys", "list", PATH=path) == (0, ""), "what is there stays"
    assert (fake.calls, fake.calls.count("venv")) == (before, 1)


def test_a_run_that_is_killed_half_way_is_made_good_from_scratch(fake: Fake) -> None:
    assert fake.run(FAKE_PIP="killed")[0] != 0
    (fake.venv / "half-installed").touch()
    assert fake.run()[0] == 0
    assert not (fake.venv / "half-installed").exists()
    assert fake.calls.count("venv") == 2


def test_a_pip_that_fails_is_an_error_and_the_next_run_tries_again(fake: Fake) -> None:
    code, said = fake.run(FAKE_PIP="broken")
    assert code == 1
    assert "no such index" in said
    assert "pip failed" in said
    assert fake.run()[0] == 0


def test_on_a_terminal_it_shows_for_how_long_pip_is_at_work(fake: Fake) -> None:
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.chdir(fake.project)
        os.execve("./softhsm-setup.sh", ["./softhsm-setup.sh", "true"], os.environ | fake.environment)  # noqa: S606 - no shell is the point
    shown = b""
    with suppress(OSError):  # the terminal ends with its program
        while True:
            shown += os.read(terminal, 1024)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b"\rsofthsm-setup: pip installs: 0 s" in shown
    assert shown.endswith(b"\r\x1b[K") or shown.rpartition(b"\r\x1b[K")[2].startswith(b"softhsm-setup: making")
    assert "pip installs" not in fake.run()[1]


def test_other_dependencies_bring_it_up_to_date(fake: Fake) -> None:
    assert fake.run()[0] == 0
    (fake.venv / "kept").touch()
    with (fake.project / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert fake.run()[0] == 0
    assert fake.calls.count("venv") == 1
    assert sum("--editable" in call for call in fake.calls) == 2
    assert (fake.venv / "kept").exists()


def test_an_environment_made_by_hand_is_used_and_nothing_in_it_removed(fake: Fake) -> None:
    (fake.venv / "bin").mkdir(parents=True)
    (fake.venv / "bin" / "python").symlink_to(fake.python)
    (fake.venv / "pyvenv.cfg").touch()
    (fake.venv / "mine").touch()
    code, said = fake.run()
    assert (code, fake.calls.count("venv")) == (0, 0), said
    assert sum("--editable" in call for call in fake.calls) == 1
    assert (fake.venv / "mine").exists()
    assert fake.run() == (0, "")


def test_an_environment_without_a_pip_that_works_is_made_anew(fake: Fake) -> None:
    assert fake.run()[0] == 0
    (fake.venv / ".hsm-keys-stamp").write_text((fake.venv / ".hsm-keys-stamp").read_text().replace(" ", " 1", 1))
    (fake.venv / "pip-is-broken").touch()
    code, said = fake.run()
    assert (code, fake.calls.count("venv")) == (0, 2), said


def test_an_environment_that_moved_with_its_project_is_made_anew(fake: Fake) -> None:
    assert fake.run()[0] == 0
    fake.project = fake.project.rename(fake.project.with_name("moved"))
    fake.venv = fake.project / ".venv"
    assert fake.run()[0] == 0
    assert fake.calls.count("venv") == 2


def test_a_python_that_went_away_makes_it_anew(fake: Fake) -> None:
    assert fake.run()[0] == 0
    (fake.venv / "bin" / "python").unlink()
    (fake.venv / "bin" / "python").symlink_to("/nowhere/python")
    assert fake.run()[0] == 0
    assert fake.calls.count("venv") == 2


def test_another_version_in_hsm_keys_python_makes_it_anew(fake: Fake) -> None:
    assert fake.run()[0] == 0
    (fake.venv / "bin" / "python").write_text("#!/bin/bash\necho 3.11\n")
    stamp = fake.venv / ".hsm-keys-stamp"
    stamp.write_text(stamp.read_text().replace(" 3.12", " 3.11"))
    assert fake.run()[0] == 0
    assert fake.calls.count("venv") == 2


def test_a_folder_with_something_else_in_it_is_never_cleared(fake: Fake) -> None:
    fake.venv.mkdir()
    (fake.venv / "thesis.txt").write_text("mine")
    code, said = fake.run()
    assert code == 1
    assert "wasn't made by this script" in said
    assert (fake.venv / "thesis.txt").read_text() == "mine"
    assert fake.calls == []


def test_two_runs_at_once_make_one_of_everything(fake: Fake) -> None:
    running = [start(fake.project, fake.venv, "true", **fake.environment) for _ in range(3)]
    said = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert fake.calls.count("venv") == 1
    assert len(list((fake.project / ".softhsm" / "tokens").iterdir())) == 1


def test_a_shim_that_does_not_run_is_passed_over(fake: Fake, tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    shims.mkdir()
    for name, text in {
        "python3.13": "#!/bin/bash\necho 'pyenv: python3.13: command not found' >&2; exit 127\n",
        "python3.12": '#!/bin/bash\nexec "$FAKE_PYTHON" "$@"\n',
    }.items():
        (shims / name).write_text(text)
        (shims / name).chmod(0o755)
    code, said = fake.run(HSM_KEYS_PYTHON="", PATH=f"{shims}:{os.environ['PATH']}")
    assert code == 0, said
    assert "command not found" not in said
    assert fake.calls[0] == "venv"
