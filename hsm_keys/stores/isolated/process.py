"""The signer's process: started, started again after a crash, never after a refused PIN, and ended with its owner.

The process that opens the store owns the signer, and its forked children use the same signer. The first process that
finds the signer gone starts the next one and owns it, so there is only one login.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import (
    HsmKeysError,
    PinError,
    PinIncorrectError,
    PinMissingError,
    StoreUnavailableError,
    UsageError,
)
from hsm_keys.stores.environment import without_secrets
from hsm_keys.stores.isolated.connection import NotSentError, SignerConnection, StuckError
from hsm_keys.stores.isolated.folder import PrivateFolder
from hsm_keys.stores.isolated.wire import (
    MAX_ANSWER,
    FrameKind,
    SignerWireError,
    error_in,
    frame_bytes,
    json_frame,
    receive,
)
from hsm_keys.stores.pins import PinWanted, what_to_check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.pins import Pin, PinGetter
    from hsm_keys.values import Secret

__all__ = ["SignerProcess"]

_START_S: Final = 60.0  # a network HSM may take its time to log in
_END_S: Final = 5.0
_APART_S: Final = 1.0
"""Between two starts, at least; twice as much after each that failed, up to the following."""

_AT_MOST_APART_S: Final = 32.0
_refused: set[bytes] = set()
_SALT: Final = os.urandom(16)


class _Starts:
    """What a process and its forked children know together: whether a start is allowed, and when."""

    _layout: Final = struct.Struct("?Id")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)  # anonymous and shared: forked children have it too

    def read(self) -> tuple[bool, int, float]:
        """Return whether the PIN was refused, how many starts in a row failed, and when the last one began."""
        refused, failed, began = self._layout.unpack_from(self._memory)
        return refused, failed, began

    def write(self, *, refused: bool, failed: int, began: float) -> None:
        """Set them; hold the folder."""
        self._layout.pack_into(self._memory, 0, refused, failed, began)


class SignerProcess:
    """A process that has the store open, for this one and its forked children.

    Args:
        uri: The store's URI, without a PIN or its source; hidden as long as nobody has opened it.
        force_pin: As for ``open_store``.
        get_pin: Gives the user PIN, or None where the token asks on its own pad. What it gives is kept.

    Raises:
        HsmKeysError: Whatever opening the store raises.
    """

    def __init__(self, uri: Secret, get_pin: PinGetter, *, force_pin: bool) -> None:
        self._uri = uri
        self._force_pin = force_pin
        self._get_pin = get_pin
        self._pin: Pin | None = None
        self._environment = _environment()
        self._starts = _Starts()
        self._folder = PrivateFolder.new()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()
        self._ended = False
        self.told: dict[str, Any] = {}
        _all.add(self)
        try:
            with self._held():
                self._start()
        except BaseException:
            self.end()
            raise

    def connect(self) -> SignerConnection:
        """Return a new connection, to a new signer if the last one has gone.

        Raises:
            StoreUnavailableError: If there is none and none can be started now.
            HsmKeysError: Whatever opening the store raises.
        """
        with suppress(NotSentError, StuckError):
            return SignerConnection(self._folder.socket)
        with self._lock:
            if self._ended:  # a thread that was about to sign when the store was closed
                raise StoreUnavailableError("the store is closed", hint="open it again")
            try:
                with self._held():
                    return self._revived()
            except (NotSentError, StuckError):
                raise StoreUnavailableError(
                    "the signer process ended as soon as it had started", hint="see what it wrote to stderr"
                ) from None

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the folder, so that nobody else starts a signer."""
        try:
            with self._folder.locked(patience=_START_S) as held:
                if not held:
                    raise StoreUnavailableError(
                        "another process of this program is starting the signer, and takes too long",
                        hint="check the token and its daemon, then sign again",
                    )
                yield
        except OSError as error:
            private = isinstance(error, PermissionError | NotADirectoryError)
            raise StoreUnavailableError(
                f"the signer can't be started: {error.strerror or 'its folder is not private'}",
                hint=f"{self._folder.path} must be a folder that only this user can enter (0700), and no link"
                if private
                else "check the machine's memory and its limits (ulimit -a)",
            ) from None

    def _revived(self) -> SignerConnection:
        """Connect, if another thread or process has just started one; else start one. Hold the folder."""
        try:
            return SignerConnection(self._folder.socket)
        except StuckError:
            if self._process is None:
                raise _silent() from None
        except NotSentError:
            pass
        self._check_allowed()
        self._start()
        return SignerConnection(self._folder.socket)

    def _check_allowed(self) -> None:
        refused, failed, began = self._starts.read()
        if refused:
            raise PinIncorrectError(
                "the token refused the signer's PIN at the last login; the PIN is not tried again",
                hint="check the PIN, then open the store again; another wrong try may lock the token",
            )

        pause_s = began + min(_APART_S * 2**failed, _AT_MOST_APART_S) - time.monotonic()
        if pause_s > 0:
            raise StoreUnavailableError(
                "the signer process ended right after its start",
                hint=f"sign again in {pause_s:.1f} s or later: that starts it again; see what it wrote to stderr",
            )

    def _start(self) -> None:
        """Start a signer; hold the folder."""
        _, failed, _ = self._starts.read()
        self._end_process(at_once=True)
        began = time.monotonic()
        self._starts.write(refused=False, failed=min(failed + 1, 16), began=began)
        self._folder.socket.unlink(missing_ok=True)
        try:
            self.told = self._opened()
        except BaseException as error:
            self._end_process(at_once=True)
            if isinstance(error, PinError) and not isinstance(error, PinMissingError):
                self._starts.write(refused=True, failed=0, began=began)
            raise
        self._starts.write(refused=False, failed=0, began=began)

    def _opened(self) -> dict[str, Any]:
        """Run the program, answer what it asks, and return what it tells about the store."""
        if not sys.executable:
            raise UsageError(
                "an isolated signer needs a Python to run, and sys.executable names none",
                hint="set sys.executable, or open the store without isolated=True",
            )
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hsm_keys.stores.isolated"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,  # a terminal's Ctrl-C is for the owner, who may still have orders to cancel
            )
        control = self._control
        control.settimeout(_START_S)
        try:
            wanted = {"force_pin": self._force_pin, "folder": str(self._folder.path)}
            control.sendall(json_frame(FrameKind.OPEN, {"uri": self._uri.reveal(), **wanted}))
            while frame := receive(control, MAX_ANSWER):
                if frame.kind is FrameKind.PIN_WANTED:
                    control.sendall(self._pin_frame(PinWanted(**frame.json())))
                elif frame.kind is FrameKind.READY:
                    facts: dict[str, Any] = frame.json()
                    return facts
                else:
                    raise self._noted(error_in(frame))
        except (OSError, SignerWireError) as error:
            raise StoreUnavailableError(
                f"the signer process failed to start: {type(error).__name__}", hint="see what it wrote to stderr"
            ) from None
        raise StoreUnavailableError(
            "the signer process ended while it started",
            hint="see what it wrote to stderr, or open the store without isolated=True",
        )

    def _pin_frame(self, wanted: PinWanted) -> bytes:
        if self._pin is None:
            self._pin = self._get_pin(wanted)
        if self._pin is None:
            return frame_bytes(FrameKind.NO_PIN)
        if self._fingerprint() in _refused:
            raise PinIncorrectError(
                "the token refused this PIN before; it was not tried again",
                hint=f"{what_to_check(self._pin)}; another wrong try may lock the token",
            )
        return frame_bytes(FrameKind.PIN, f"{self._pin.source}\0{self._pin.reveal()}".encode())

    def _fingerprint(self) -> bytes:
        pin = self._pin.reveal().encode() if self._pin else b""
        return hashlib.sha256(_SALT + self._uri.reveal().encode() + b"\0" + pin).digest()

    def _noted(self, error: HsmKeysError) -> HsmKeysError:
        if isinstance(error, PinIncorrectError) and self._pin is not None:
            _refused.add(self._fingerprint())
        return error

    def end(self) -> None:
        """End the signer, if this process owns it, and clean up if nobody else does. Safe to call twice."""
        with self._lock, suppress(OSError):
            self._ended = True
            self._pin = None
            self._end_process()
            if os.path.exists(self._folder.path):
                with self._folder.locked(patience=_END_S) as held:
                    if held and not self._is_served():
                        self._folder.remove()

    def _is_served(self) -> bool:
        try:
            SignerConnection(self._folder.socket).close()
        except NotSentError:
            return False
        except (StuckError, HsmKeysError):
            pass
        return True

    def _end_process(self, *, at_once: bool = False) -> None:
        if self._control is not None:
            self._control.close()  # it logs out and ends when it sees that
            self._control = None
        if self._process is not None:
            if at_once:
                self._process.kill()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Let go of what a forked child must not hold: or else the signer would outlive its owner."""
        self._lock = threading.Lock()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.returncode = 0  # not this process's child: there is nothing to wait for
            self._process = None


def _silent() -> StoreUnavailableError:
    return StoreUnavailableError(
        "the signer process doesn't answer",
        hint="sign in the process that opened the store: it replaces the signer",
    )


def _environment() -> dict[str, str]:
    """Return the signer's environment: this process's, without secrets, and with its search path for modules."""
    environment = without_secrets()
    package = str(Path(__file__).parents[3])
    environment["PYTHONPATH"] = os.pathsep.join([*(path for path in sys.path if path), package])
    return environment


_all: Final[weakref.WeakSet[SignerProcess]] = weakref.WeakSet()


def _forget_all() -> None:
    for signer in _all:
        signer.forget()


os.register_at_fork(after_in_child=_forget_all)
