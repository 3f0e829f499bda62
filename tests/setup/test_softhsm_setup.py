"""The setup script: makes everything once, shows no PIN, and mends what was cut off."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import ROOT
from tests.support.setup_script import checkout, everything, run

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

# A virtual environment that the script made: in it nothing has to be installed.
MADE_HERE = Path(sys.prefix, ".hsm-keys-stamp").is_file()
LISTENER = """#!/bin/bash
# Stands before the real softhsm2-util and writes down how it was called.
{ tr '\\0' ' ' < /proc/$$/cmdline; echo; tr '\\0' '\\n' < /proc/$$/environ; } >> "$LISTENER_LOG"
exec REAL "$@"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    if not MADE_HERE:
        # In CI the tests run through the script: anything else would prove nothing.
        pytest.skip("run the tests with ./softhsm-setup.sh pytest")
    return checkout(tmp_path / "my project")


@pytest.fixture
def venv(project: Path, tmp_path: Path) -> Path:
    """A stand-in for the virtual environment: this one's programs, and a stamp that says that it is ready."""
    folder = tmp_path / "venv"
    folder.mkdir()
    (folder / "bin").symlink_to(Path(sys.prefix, "bin"))
    stamp = Path(sys.prefix, ".hsm-keys-stamp").read_text().replace(str(ROOT), str(project))
    (folder / ".hsm-keys-stamp").write_text(stamp)
    return folder


def test_it_makes_a_token_that_signs_and_the_second_run_changes_nothing(project: Path, venv: Path) -> None:
    first = run(project, venv, "hsm-keys", "demo")
    assert first.returncode == 0, first.stderr
    assert "the token is as it was" in first.stdout
    before = everything(project)
    second = run(project, venv, "true")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert everything(project) == before


def test_without_a_command_it_prints_exports_for_the_shell_and_nothing_else(project: Path, venv: Path) -> None:
    done = run(project, venv)
    lines = done.stdout.splitlines()
    names = [line.removeprefix("export ").partition("=")[0] for line in lines]
    assert names == ["PATH", "SOFTHSM2_CONF", "HSM_KEYS_MODULE", "HSM_KEYS_STORE", "HSM_KEYS_PIN_FILE"]
    listing = subprocess.run(
        ["bash", "-c", f"{done.stdout}\nhsm-keys list --slot 0"], capture_output=True, text=True, check=False
    )
    assert listing.returncode == 0, listing.stderr
    values = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    assert values["HSM_KEYS_STORE"] == f"pkcs11:token=kalshi?module-path={values['HSM_KEYS_MODULE']}"


def test_the_exit_code_and_the_arguments_are_the_commands_own(project: Path, venv: Path) -> None:
    assert run(project, venv, "bash", "-c", "exit 42").returncode == 42
    assert run(project, venv, "printf", "%s|", "a b", "", "$x").stdout == "a b||$x|"


def test_the_pin_never_shows_in_a_process_list_and_its_file_is_private(
    project: Path, venv: Path, tmp_path: Path
) -> None:
    real = shutil.which("softhsm2-util")
    assert real is not None
    tools = tmp_path / "tools"
    tools.mkdir()
    listener = tools / "softhsm2-util"
    listener.write_text(LISTENER.replace("REAL", real))
    listener.chmod(0o755)
    log = tmp_path / "log"
    path = f"{tools}:{os.environ['PATH']}"
    assert run(project, venv, "true", PATH=path, LISTENER_LOG=str(log)).returncode == 0
    calls = log.read_text()
    assert "--init-token" in calls
    state = project / ".softhsm"
    for name in ("pin", "so-pin"):
        secret = (state / name).read_text().strip()
        assert len(secret) == 16
        assert secret not in calls
        assert (state / name).stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("cut_off", ["nothing but a folder", "no token", "no stamp", "no PIN", "an empty PIN"])
def test_a_token_that_is_not_whole_is_made_anew(project: Path, venv: Path, cut_off: str) -> None:
    state = project / ".softhsm"
    if cut_off == "nothing but a folder":
        state.mkdir()
    else:
        assert run(project, venv, "true").returncode == 0
        match cut_off:
            case "no token":
                shutil.rmtree(state / "tokens")
            case "no stamp":
                (state / "ready").unlink()
            case "no PIN":
                (state / "pin").unlink()
            case "an empty PIN":
                (state / "pin").write_text("")
    done = run(project, venv, "hsm-keys", "list")
    assert done.returncode == 0, done.stderr
    assert len(list((state / "tokens").iterdir())) == 1


def test_a_run_that_is_killed_while_it_makes_the_token_is_made_good(project: Path, venv: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    killer = tools / "softhsm2-util"
    # Its parent is the Python that plays the terminal, and that one's parent the script.
    killer.write_text('#!/bin/bash\nsoft=$PPID; kill -9 "$(ps -o ppid= -p "$soft" | tr -d " ")" "$soft"\n')
    killer.chmod(0o755)
    assert run(project, venv, "true", PATH=f"{tools}:{os.environ['PATH']}").returncode != 0
    assert (project / ".softhsm" / "pin").is_file()
    done = run(project, venv, "hsm-keys", "list")
    assert done.returncode == 0, done.stderr


def test_a_softhsm_that_fails_is_an_error_without_the_pin(project: Path, venv: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    broken = tools / "softhsm2-util"
    broken.write_text("#!/bin/bash\nprintf 'Please enter SO PIN: '; read -r pin; echo 'no space left'; exit 3\n")
    broken.chmod(0o755)
    done = run(project, venv, "true", PATH=f"{tools}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "softhsm2-util failed (3)" in done.stderr
    assert "no space left" in done.stderr
    state = project / ".softhsm"
    assert not (state / "ready").exists()
    for name in ("pin", "so-pin"):
        assert (state / name).read_text() not in done.stderr


def test_a_folder_that_was_moved_keeps_its_token(project: Path, venv: Path) -> None:
    run(project, venv, "hsm-keys", "enroll", "--name", "kept", "--offline")
    moved = project.with_name("moved")
    project.rename(moved)
    stamp = venv / ".hsm-keys-stamp"
    stamp.write_text(stamp.read_text().replace(str(project), str(moved)))
    done = run(moved, venv, "hsm-keys", "show", "kept")
    assert done.returncode == 0, done.stderr


def test_softhsm_is_installed_where_it_is_missing(project: Path, venv: Path, tmp_path: Path) -> None:
    """A machine without SoftHSM, whose apt-get brings it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    hidden = Path(str(shutil.which("softhsm2-util")))
    for name in (
        "bash",
        "dirname",
        "cksum",
        "cat",
        "grep",
        "rm",
        "mkdir",
        "od",
        "tr",
        "id",
        "env",
        "flock",
        "true",
        "sudo",
    ):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    apt = tools / "apt-get"
    link = f"{shutil.which('ln')} -sf {hidden} {tools}"
    apt.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/apt\ncase "$*" in *softhsm2*) {link};; esac\n')
    apt.chmod(0o755)
    done = run(project, venv, "true", PATH=str(tools))
    assert done.returncode == 0, done.stderr
    assert "installing SoftHSM" in done.stderr
    assert "install -qq -y --no-install-recommends softhsm2" in (tmp_path / "apt").read_text()


def test_a_python_that_is_none_is_refused(project: Path, tmp_path: Path) -> None:
    done = run(project, tmp_path / "new-venv", "true", HSM_KEYS_PYTHON="/bin/false")
    assert done.returncode == 1
    assert "HSM_KEYS_PYTHON=/bin/false is no Python" in done.stderr
