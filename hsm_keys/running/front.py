"""A run: the process that a shell knows. It has a keeper for its program and, unless it joined one, a proxy."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

from hsm_keys.errors import HsmKeysError
from hsm_keys.processes import adopt_orphans
from hsm_keys.running.errors import ProxyEndedError
from hsm_keys.running.keeping import END, ENDED, HANDED_ON, STOPS, WORD_SIZE, end_children, keep, next_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hsm_keys.running.containing.container import Container
    from hsm_keys.running.proxy_process import ProxyProcess
    from hsm_keys.running.sharing import Share
    from hsm_keys.running.starting import Program

__all__ = ["Front", "OnProxyExit"]

OnProxyExit = Literal["kill", "restart"]

_LOOK_EVERY_S: Final = 0.2
_JOINED_WITHIN_S: Final = 60.0
_SIGNALLED: Final = 128
_KILLED: Final = _SIGNALLED + signal.SIGKILL


class Front:
    """Runs a program beside a proxy; made for one run.

    Args:
        share: The proxy's.
        proxy: The process that it is to be, unless the share has joined one.
        on_proxy_exit: What becomes of the program when its proxy ends: it is ended too, or the proxy is started again.
        note: Writes in the proxy's audit trail that the program runs, or with its exit code that it has ended.
        report: Hears what people should know.
        container: The surroundings of a contained program; None for one that isn't.
    """

    def __init__(
        self,
        share: Share,
        proxy: ProxyProcess,
        *,
        on_proxy_exit: OnProxyExit,
        note: Callable[[int | None], None],
        report: Callable[[str], None],
        container: Container | None = None,
    ) -> None:
        self._share = share
        self._proxy = proxy
        self._on_proxy_exit = on_proxy_exit
        self._note = note
        self._report = report
        self._container = container
        self._failure: HsmKeysError | int | None = None
        self._keeper: socket.socket | None = None
        self._waking = -1
        self._noted = False
        self._joined_at = time.monotonic()

    def run(self, program: Program, *, proxy_first: bool) -> int:
        """Run the program, and return its exit code: 128 and the number of the signal that ended it, as shells do.

        Args:
            program: The program.
            proxy_first: Whether it waits until the proxy serves: then the proxy may ask at the terminal for a PIN.

        Returns:
            Also the exit code of a proxy that couldn't start; it has said why.

        Raises:
            ProxyEndedError: If the proxy ended meanwhile.
            ContainmentError: If the program can't be contained; it wasn't started.
            HsmKeysError: If the audit trail can't say that the program runs.
        """
        self._hear_signals()
        if self._share.listener is not None:
            self._proxy.start(asks=proxy_first, closed=[self._waking])
        try:
            if proxy_first and (number := self._wait_for_proxy()):
                return _SIGNALLED + number
            code = self._beside(program) if self._failure is None else 1
        finally:
            if self._share.is_last():
                self._proxy.end()
        if isinstance(self._failure, HsmKeysError):
            raise self._failure
        return code if self._failure is None else self._failure

    def _hear_signals(self) -> None:
        adopt_orphans()
        self._waking, woken = os.pipe()
        for end in (self._waking, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        _hear(HANDED_ON)

    def _wait_for_proxy(self) -> int:
        """Wait until the proxy serves or has failed; return the number of a signal that came instead, else 0."""
        while not self._noted and self._failure is None:
            for number in self._look():
                if number in HANDED_ON:
                    return number
        return 0

    def _beside(self, program: Program) -> int:
        """Run the program until it has ended, or the proxy has; return its exit code."""
        _hear(STOPS)
        self._keeper, theirs = socket.socketpair()
        if os.fork() == 0:
            signal.set_wakeup_fd(-1)
            self._keeper.close()
            if self._container is None:
                keep(theirs, program.become)
            self._container.keep(theirs, program.become)
        theirs.close()
        if self._container is not None:
            try:
                self._container.open()
            except HsmKeysError as error:
                self._failure = error
        code = self._kept(self._keeper)
        self._wait_for_proxy()  # the audit trail says of every program that it ran
        self._share.revoke()
        while next_word(self._keeper):  # until the keeper has ended what the program left behind
            pass
        end_children(but={self._proxy.pid})  # processes that are left if the keeper was killed
        if self._failure is None and self._noted:
            self._note(code)
        return code

    def _kept(self, keeper: socket.socket) -> int:
        """Hand signals on, and stop when the program does, until it has ended; return its exit code.

        A killed keeper tells none.
        """
        failed = False
        while True:
            for number in self._look(keeper):
                if number in HANDED_ON:
                    _tell(keeper, number)
            if self._failure is not None and not failed:
                failed = True
                _tell(keeper, END)
            ready, _, _ = select.select([keeper], [], [], 0)
            if ready:
                word = next_word(keeper, WORD_SIZE)
                if not word:
                    return _KILLED
                kind, number = word
                if kind == ENDED:
                    return number
                _stop(number)
                _tell(keeper, signal.SIGCONT)

    def _look(self, *keeper: socket.socket) -> bytes:
        """Wait until something happens, and deal with it; return the numbers of signals that came."""
        waits = _LOOK_EVERY_S if self._share.listener is None else None
        ready, _, _ = select.select(
            [self._waking, *self._proxy.descriptors, *(one.fileno() for one in keeper)], [], [], waits
        )
        if self._proxy.hear(ready):
            self._begin()
        numbers = b""
        if self._waking in ready:
            with suppress(BlockingIOError):
                numbers = os.read(self._waking, 4096)
        self._look_after_proxy()
        return numbers

    def _begin(self) -> None:
        """Note that the program runs; a proxy that has ended meanwhile is looked after."""
        try:
            self._note(None)
            self._noted = True
        except HsmKeysError as error:
            self._proxy.wait_if_ending()
            self._look_after_proxy()
            if self._failure is None and self._proxy.serves:
                self._failure = error

    def _look_after_joined(self) -> None:
        """Notice that a proxy that was joined serves, and that it has ended."""
        if self._share.process and not _lives(self._share.process):
            self._failure = ProxyEndedError(
                "the proxy that the program used has ended, so the program was ended too",
                hint="run the same command again: it starts a proxy of its own",
            )
        elif not self._proxy.serves and self._share.find_process():
            self._proxy.serves = True
            self._begin()
        elif not self._proxy.serves and time.monotonic() > self._joined_at + _JOINED_WITHIN_S:
            self._failure = ProxyEndedError(
                "the proxy that another run was starting didn't start, so the program was ended",
                hint="see the other run's error, then run the same command again",
            )

    def _look_after_proxy(self) -> None:
        """Notice a proxy that has ended."""
        if self._failure is not None:
            self._proxy.ended()
            return
        if self._share.listener is None:
            self._look_after_joined()
            return
        code = self._proxy.ended()
        if code is None:
            return
        if not self._proxy.serves and code < _SIGNALLED:
            self._failure = code or 1  # it has said why
        elif self._noted and self._on_proxy_exit == "restart":
            self._report(f"warning: the proxy ended (exit code {code}), and is started again")
            closed = [self._waking] + ([self._keeper.fileno()] if self._keeper is not None else [])
            self._proxy.start(asks=False, closed=closed)
        else:
            self._failure = ProxyEndedError(
                f"the proxy ended while the program ran (exit code {code}), so the program was ended too",
                hint="look whether the last requests were sent; --on-proxy-exit restart would start the proxy again",
            )


def _hear(numbers: Iterable[signal.Signals]) -> None:
    """Let signals wake this process and do nothing else, but for those that are ignored, as nohup(1) leaves them."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def _stop(number: int) -> None:
    """Stop this process by a signal, as its program was; return once it goes on."""
    handled = number in STOPS
    before = signal.signal(number, signal.SIG_DFL) if handled else None
    os.kill(os.getpid(), number)
    if handled:
        signal.signal(number, before)


def _tell(keeper: socket.socket, number: int) -> None:
    with suppress(OSError):
        keeper.send(bytes([number]))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
