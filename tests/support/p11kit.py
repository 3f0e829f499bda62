"""SoftHSM behind ``p11-kit server``: a module over a socket, whose far end can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.stopping import stop_group

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.softhsm import TestToken

_CLIENTS = (
    "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11/p11-kit-client.so",
    "/usr/lib64/pkcs11/p11-kit-client.so",
)


def client_path() -> str | None:
    return next((path for path in _CLIENTS if Path(path).is_file()), None)


def missing() -> str | None:
    """Return what of p11-kit this machine lacks; None if it is all there."""
    if shutil.which("p11-kit") is None:
        return "p11-kit is not on PATH"
    return None if client_path() else "p11-kit-client.so was not found (package p11-kit-modules)"


class P11KitServer:
    """Serves one token on a socket.

    Args:
        token: The token.
        socket: Where to listen; to be in P11_KIT_SERVER_ADDRESS before the client module is initialised.
    """

    def __init__(self, token: TestToken, socket: Path) -> None:
        self._token = token
        self._socket = socket
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _served(self) -> str:
        return f"pkcs11:token={self._token.label}"

    @property
    def uri(self) -> str:
        """The token as the client module shows it."""
        return f"{self._served}?module-path={client_path()}&pin-source=file:{self._token.pin_file}"

    @property
    def address(self) -> str:
        return f"unix:path={self._socket}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["p11-kit", "server", "-f", "-n", str(self._socket), "--provider", self._token.module, self._served],
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # it serves each connection in a process of its own: all of them are to die
        )
        deadline = time.monotonic() + 10
        while not self._socket.exists():  # there is no event to wait for
            assert time.monotonic() < deadline, "p11-kit server doesn't listen"
            time.sleep(0.002)

    def kill(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        self._socket.unlink(missing_ok=True)

    def hang(self) -> None:
        assert self._process is not None
        stop_group(self._process.pid)

    def go_on(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()
