"""openCryptoki with a software token of its own, for the tests: ``python -m tests.support.opencryptoki`` sets it up.

It needs root (or sudo) and Debian's packages, which it installs. The token is in a slot of its own with data of its
own, made anew each time, so that no other token of the machine is touched. It prints the variable that the tests want.
"""

from __future__ import annotations

import grp
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

MODULE: Final = "/usr/lib/x86_64-linux-gnu/pkcs11/libopencryptoki.so"
LABEL: Final = "hsmkeystest"
PIN: Final = "pin-4711"  # 4 to 8 characters
SO_PIN: Final = "so-87654"
SLOT: Final = 7
_DEFAULT_SO_PIN: Final = "87654321"
_DEFAULT_PIN: Final = "12345678"  # what the security officer sets first
_CONFIGURATION: Final = Path("/etc/opencryptoki/opencryptoki.conf")
_DATA: Final = Path("/var/lib/opencryptoki") / LABEL
_PID_FILE: Final = Path("/run/opencryptoki/pkcsslotd.pid")
_LOCKS: Final = Path("/var/lock/opencryptoki")
_PIN_FILE: Final = Path("/run/opencryptoki/hsm-keys-test-pin")


def uri() -> str:
    """Return the token's URI."""
    return f"pkcs11:token={LABEL}?module-path={MODULE}&pin-source=file:{_PIN_FILE}"


def start_daemon() -> None:
    """Start ``pkcsslotd``, and wait until it answers."""
    subprocess.run(["pkcsslotd"], check=True, capture_output=True)
    deadline = time.monotonic() + 10
    while subprocess.run(["pkcsconf", "-t", "-c", str(SLOT)], check=False, capture_output=True).returncode != 0:
        assert time.monotonic() < deadline, "pkcsslotd doesn't answer"
        time.sleep(0.02)


def stop_daemon() -> None:
    """Kill ``pkcsslotd``, if it runs."""
    deadline = time.monotonic() + 10
    while running := _daemons():
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < deadline, "pkcsslotd doesn't end"
        time.sleep(0.01)
    _PID_FILE.unlink(missing_ok=True)


def _daemons() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text() == "pkcsslotd\n" and "\nState:\tZ" not in (
                process / "status"
            ).read_text():
                found.append(int(process.name))
    return found


def reset_pin() -> None:
    """Let the security officer set the user PIN again, whatever became of it."""
    _configure("-u", "-S", SO_PIN, "-n", _DEFAULT_PIN)
    _configure("-p", "-U", _DEFAULT_PIN, "-n", PIN)


def _configure(*arguments: str, answer: str = "") -> None:
    done = subprocess.run(
        ["pkcsconf", *arguments, "-c", str(SLOT)], input=answer, text=True, check=False, capture_output=True
    )
    assert done.returncode == 0, f"pkcsconf {arguments[0]}: {done.stdout} {done.stderr}"


def _install() -> None:
    if shutil.which("pkcsslotd") and Path(MODULE).exists():
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "opencryptoki"], check=True, env=quiet
    )


def set_up() -> None:
    """Make the token anew. Programs that use openCryptoki at this moment lose their sessions."""
    _install()
    stop_daemon()
    for leftover in (_DATA, _LOCKS / LABEL):
        shutil.rmtree(leftover, ignore_errors=True)
    for shared in Path("/dev/shm").glob(f"*{LABEL}*"):  # noqa: S108 - openCryptoki's own
        shared.unlink()
    group = grp.getgrnam("pkcs11").gr_gid
    for folder in (_DATA / "TOK_OBJ", _LOCKS / LABEL, _PIN_FILE.parent):
        folder.mkdir(parents=True, exist_ok=True)
        for one in (folder, folder.parent) if folder.name == "TOK_OBJ" else (folder,):
            os.chown(one, 0, group)
            one.chmod(0o770)
    text = _CONFIGURATION.read_text()
    if f"tokname = {LABEL}" not in text:
        _CONFIGURATION.write_text(
            f"{text.rstrip()}\n\nslot {SLOT}\n{{\nstdll = libpkcs11_sw.so\ntokname = {LABEL}\n}}\n"
        )
    start_daemon()
    _configure("-I", "-S", _DEFAULT_SO_PIN, answer=f"{LABEL}\n")
    _configure("-P", "-S", _DEFAULT_SO_PIN, "-n", SO_PIN)
    reset_pin()
    _PIN_FILE.touch(mode=0o600)
    _PIN_FILE.write_text(f"{PIN}\n")


def main() -> None:
    """Set it up as root."""
    if os.geteuid() != 0:
        os.execvp("sudo", ["sudo", sys.executable, "-m", "tests.support.opencryptoki"])  # noqa: S606
    set_up()
    sys.stdout.write(f"HSM_KEYS_TEST_STORE='{uri()}'\n")


if __name__ == "__main__":
    main()
