"""A software TPM with an empty user PIN (Debian: swtpm libtpm2-pkcs11-1 libtpm2-pkcs11-tools tpm2-tools).

It has no resource manager: one process at a time can use it, and it runs out of memory after some openings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE: Final = Path("/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so")
LABEL: Final = "tpm"

_TOOLS: Final = ("createprimary", "create", "load", "import", "sign")
_STARTS_WITHIN_S: Final = 10.0


@dataclass(frozen=True)
class Tpm:
    """A TPM that runs.

    Args:
        uri: Names the token, without a source of the PIN.
        environment: What the module reads.
        commands: A folder that goes before others in PATH.
    """

    uri: str
    environment: dict[str, str]
    commands: Path

    def run(self, *command: str) -> str:
        """Run a tool that uses the TPM, and return what it prints."""
        environment = {**os.environ, **self.environment, "PATH": f"{self.commands}:{os.environ['PATH']}"}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        subprocess.run(["tpm2_flushcontext", "-t"], env=environment, check=True, capture_output=True)
        return done.stdout

    def add_key(self, label: str) -> None:
        """Make an RSA key with tpm2_ptool."""
        named = (f"--label={LABEL}", f"--key-label={label}", "--userpin=")
        self.run("tpm2_ptool", "addkey", "--algorithm=rsa2048", *named)


def missing() -> str | None:
    """Return what is lacking on this machine."""
    if not MODULE.exists():
        return "libtpm2-pkcs11-1 isn't installed"
    lacking = [tool for tool in ("swtpm", "tpm2_ptool", "tpm2_create", "p11tool") if shutil.which(tool) is None]
    return f"{lacking[0]} isn't installed" if lacking else None


@contextmanager
def running(folder: Path) -> Iterator[Tpm]:
    """Start a TPM with a token in it, and end it.

    Args:
        folder: For its state.
    """
    commands, state, store = (folder / name for name in ("commands", "state", "store"))
    for made in (commands, state, store):
        made.mkdir(parents=True)
    for tool in _TOOLS:  # nobody tidies up after them, as a resource manager does: so each begins with an empty TPM
        wrapper = commands / f"tpm2_{tool}"
        wrapper.write_text(f'#!/bin/sh\n/usr/bin/tpm2_flushcontext -t\nexec /usr/bin/tpm2_{tool} "$@"\n')
        wrapper.chmod(0o700)
    socket = folder / "socket"
    server = ["--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={socket}.ctrl"]
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", *server]
    with subprocess.Popen([*command, "--flags", "not-need-init,startup-clear"], stderr=subprocess.DEVNULL) as daemon:
        try:
            _wait_for(socket)
            yield _with_token(f"swtpm:path={socket}", store, commands)
        finally:
            daemon.terminate()


def _with_token(tcti: str, store: Path, commands: Path) -> Tpm:
    variables = {"TPM2_PKCS11_STORE": str(store), "TPM2_PKCS11_TCTI": tcti, "TPM2TOOLS_TCTI": tcti}
    made = Tpm(f"pkcs11:token={LABEL}?module-path={MODULE}", variables, commands)
    made.run("tpm2_ptool", "init")
    made.run("tpm2_ptool", "addtoken", "--pid=1", f"--label={LABEL}", "--sopin=so", "--userpin=")
    return made


def _wait_for(socket: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while not socket.exists():
        assert time.monotonic() < deadline, "swtpm doesn't start"
        time.sleep(0.01)
