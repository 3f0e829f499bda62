"""A virtual smart-card reader: pcscd with vsmartcard's driver, and a card in it that this process plays.

Debian: ``pcscd vsmartcard-vpcd``. pcscd has one socket on a machine, so tests take turns, as root.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from tests.support.ports import free_port

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.piv_card import PivCard

_DRIVER: Final = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
_SOCKET: Final = Path("/run/pcscd/pcscd.comm")
_STARTS_WITHIN_S: Final = 20.0
_SEEN_WITHIN_S: Final = 4.0  # it looks for a card every 0.4 s
_ATTEMPTS: Final = 5
_ENDS_WITHIN_S: Final = 5.0

# The first byte of a message of one byte, from the reader; anything longer is a command for the card.
_POWER_OFF, _POWER_ON, _RESET, _GET_ATR = 0, 1, 2, 4


def missing() -> str | None:
    """Return what is lacking on this machine."""
    if os.geteuid() != 0:
        return "pcscd needs root"
    if shutil.which("pcscd") is None:
        return "pcscd isn't installed"
    return None if _DRIVER.exists() else "vsmartcard-vpcd isn't installed"


class CardReader:
    """The reader with a card in it, as a context manager.

    Args:
        card: Answers the reader's commands.
        folder: For pcscd's configuration.
    """

    def __init__(self, card: PivCard, folder: Path) -> None:
        self._card = card
        self._folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._seen = threading.Event()

    def __enter__(self) -> Self:
        self._turn = (Path(tempfile.gettempdir()) / "hsm-keys-tests-pcscd.lock").open("w")
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX)
            for _ in range(_ATTEMPTS):
                self._start()
                if self._seen.wait(_SEEN_WITHIN_S):
                    return self
                self._stop()  # now and then the driver overlooks a card that comes while it starts
            raise RuntimeError("pcscd doesn't power the card up")
        except BaseException:
            self._stop()
            self._turn.close()
            raise

    def _start(self) -> None:
        if _SOCKET.exists():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(_SOCKET))
                raise RuntimeError("another pcscd runs on this machine")
            _SOCKET.unlink()
        port = free_port()
        self._folder.mkdir(parents=True, exist_ok=True)
        # ykcs11 looks at readers alone whose names say Yubico.
        (self._folder / "vpcd").write_text(
            f'FRIENDLYNAME "Yubico YubiKey Virtual"\nDEVICENAME /dev/null:{port:#x}\nLIBPATH {_DRIVER}\n'
            f"CHANNELID {port:#x}\n"
        )
        self._daemon = subprocess.Popen(
            ["pcscd", "--foreground", "--config", self._folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._link = self._connected(port)
        threading.Thread(target=self._play, args=(self._link,), name="card", daemon=True).start()

    def _stop(self) -> None:
        if self._link is not None:
            with suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)
            self._link = None
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
            self._daemon = None

    def _connected(self, port: int) -> socket.socket:
        assert self._daemon is not None
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port))
            except OSError:
                if self._daemon.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"pcscd didn't start (exit code {self._daemon.poll()})") from None
                time.sleep(0.05)

    def _play(self, link: socket.socket) -> None:
        with suppress(OSError), link, link.makefile("rb") as incoming:
            while head := _read_head(link, incoming):
                message = incoming.read(int.from_bytes(head))
                if len(message) > 1:
                    answer = self._card.transmit(message)
                elif message[0] == _GET_ATR:
                    answer = self._card.atr
                    self._seen.set()
                else:
                    self._card.power()
                    continue
                link.sendall(len(answer).to_bytes(2) + answer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        self._turn.close()


def _read_head(link: socket.socket, incoming: BinaryIO) -> bytes:
    """Return the two bytes before a message, which the driver sends by themselves.

    It sends the rest once they are acknowledged, which Linux does 40 ms later, unless it is told otherwise each time.
    """
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return incoming.read(2)
