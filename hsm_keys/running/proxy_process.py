"""The proxy that a run starts: a process in a session of its own, which the terminal's signals don't reach."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hsm_keys.running.keeping import HANDED_ON, STOPS, exit_code_of
from hsm_keys.running.leaving import drop_terminal_signals, fork_aside, hear_terminal_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hsm_keys.running.sharing import Share

__all__ = ["ProxyProcess"]

_STOPPED_WITHIN_S: Final = 12.0
_ENDS_WITHIN_S: Final = 1.0
_ROUND_S: Final = 0.02


class ProxyProcess:
    """A proxy in a process of its own.

    Args:
        share: The run's.
        serve: Is the proxy until SIGTERM; calls what it is given when it serves. Returns the exit code of a proxy that
            couldn't start, after saying why.

    Attributes:
        pid: Its process; 0 while there is none.
        serves: Whether it has begun to serve.
    """

    def __init__(self, share: Share, serve: Callable[[Callable[[], None]], int]) -> None:
        self._share = share
        self._serve = serve
        self._ready = -1
        self._words = -1
        self.pid = 0
        self.serves = False

    def start(self, *, asks: bool, closed: Iterable[int]) -> None:
        """Fork it.

        Args:
            asks: Whether it keeps the terminal until it serves: it may ask there for a PIN.
            closed: Descriptors that are this process's alone.
        """
        self.serves = False
        self._ready, ready = os.pipe()
        self._words, words = os.pipe()
        self.pid = fork_aside()
        if self.pid:
            os.close(ready)
            os.close(words)
            return
        code = 1
        try:
            for descriptor in closed:
                os.close(descriptor)
            code = self._be(ready, words, asks=asks)
        finally:
            os._exit(code)

    def _be(self, ready: int, words: int, *, asks: bool) -> int:
        """Be the proxy."""
        nowhere = os.open(os.devnull, os.O_RDWR)

        def leave_terminal() -> None:
            os.dup2(nowhere, 0)
            os.setsid()

        signal.set_wakeup_fd(-1)
        if not asks:
            leave_terminal()
            drop_terminal_signals()
        for number in (*HANDED_ON, *STOPS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        hear_terminal_signals()
        for stream in (1, sys.stdout.fileno()):  # the program's alone
            os.dup2(nowhere, stream)
        for stream in (2, sys.stderr.fileno()):
            os.dup2(words, stream)
        self._share.serve()

        def began() -> None:
            if asks:
                leave_terminal()
            os.write(ready, b"1")
            os.close(ready)

        return self._serve(began)

    @property
    def descriptors(self) -> list[int]:
        """What is to be read when there is something: ``hear`` does it."""
        return [one for one in (self._ready, self._words) if one >= 0]

    def hear(self, ready: Collection[int]) -> bool:
        """Pass on what it says, and tell whether it has just begun to serve.

        Args:
            ready: Descriptors that there is something to be read from.
        """
        if self._words in ready:
            self._pass_on()
        if self._ready not in ready:
            return False
        began = bool(os.read(self._ready, 1))
        os.close(self._ready)
        self._ready = -1
        self.serves = began
        return began

    def _pass_on(self) -> None:
        words = os.read(self._words, 65536)
        if not words:
            os.close(self._words)
            self._words = -1
            return
        with suppress(OSError):
            os.write(sys.stderr.fileno(), words)

    def ended(self) -> int | None:
        """Return its exit code, as shells give it, if it has just ended."""
        if not self.pid:
            return None
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.pid = 0
        while self._words >= 0:
            self._pass_on()
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1
        return exit_code_of(status)

    def wait_if_ending(self) -> None:
        """Wait until it has ended, for a second at most: a process that is killed loses its connections before that."""
        until = time.monotonic() + _ENDS_WITHIN_S
        while self.pid and time.monotonic() < until:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            time.sleep(_ROUND_S)

    def end(self) -> None:
        """End it: it finishes what is under way; after 12 seconds it is killed."""
        until = time.monotonic() + _STOPPED_WITHIN_S
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
        while self.pid and self.ended() is None:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
            ready, _, _ = select.select(self.descriptors, [], [], _ROUND_S)
            self.hear(ready)
