"""A process that has imported the program once, and forks for whatever a test runs in a process of its own.

A new interpreter takes 0.6 to 0.9 s to import what a command needs, a fork 0.03. The server loads no PKCS#11 module,
opens no connection and starts no thread: what it forks begins as a new process does, and ends with its threads and
exit functions. Where the question is the process itself (imports, the end of the interpreter, what Python reads from
the environment, closed pipes, arguments in a process list), start a real one.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

ROOT = Path(__file__).parents[2]
SETTLE_S = 0.1
"""What a workflow waits for Kalshi here, in seconds: the sandbox is quicker than Kalshi may be."""

_FILES = 5
"""What an order comes with: its text, then stdin, stdout and stderr, and a pipe that hears the id and the exit code."""


class Forked:
    """A function in a process of its own.

    Args:
        function: ``module:name``; the process ends when it returns or raises.
        arguments: What it is called with, as JSON.
        environment: The whole environment.
        files: Descriptors for its stdin, stdout and stderr.
        folder: Where it is; this process's.
    """

    def __init__(
        self,
        function: str,
        *arguments: Any,
        environment: Mapping[str, str],
        files: tuple[int, int, int],
        folder: str | None = None,
    ) -> None:
        order = {
            "function": function,
            "arguments": arguments,
            "environment": {**environment},
            "folder": folder or str(Path.cwd()),
        }
        hearing, telling = os.pipe()
        self._news = os.fdopen(hearing, "rb", buffering=0)
        with tempfile.TemporaryFile() as text, os.fdopen(telling, "wb") as pipe:
            text.write(json.dumps(order).encode())
            text.flush()
            socket.send_fds(_server(), [b"1"], [text.fileno(), *files, pipe.fileno()])
        self.pid = int(self._news.readline())
        self.returncode: int | None = None

    def fileno(self) -> int:
        """Return a descriptor that can be read from once it has ended."""
        return self._news.fileno()

    def poll(self) -> int | None:
        """Return the exit code if it has ended; negative: by that signal."""
        if self.returncode is None and select.select([self._news], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait so many seconds for its end, and return the exit code.

        Raises:
            subprocess.TimeoutExpired: If it goes on for longer.
        """
        if self.returncode is None:
            if not select.select([self._news], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked process", timeout or 0)
            self.returncode = int(self._news.readline())
            self._news.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends, and the news of it are on their way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    function: str, *arguments: Any, environment: Mapping[str, str], stdin: str = "", timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Call a function in a process of its own as ``subprocess.run`` would run a program; stdin is a pipe with a text.

    Raises:
        subprocess.TimeoutExpired: After so many seconds; the process is killed.
    """
    theirs, ours = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with os.fdopen(theirs, "rb") as read:
            files = (read.fileno(), out.fileno(), err.fileno())
            forked = Forked(function, *arguments, environment=environment, files=files)
        writer = threading.Thread(target=_write, args=(ours, stdin))
        writer.start()
        try:
            code = forked.wait(timeout)
        finally:
            forked.kill()
            forked.wait()
            writer.join()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess([function, *arguments], code, *texts)


def _write(pipe: int, text: str) -> None:
    with suppress(BrokenPipeError), os.fdopen(pipe, "w") as file:  # nobody has to read it
        file.write(text)


@functools.cache
def _server() -> socket.socket:
    """Start the server, once a process. It ends with that, or rather with the connection to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


class _Server:
    """Forks for each order, and tells how each fork has ended."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._pipes: dict[int, int] = {}

    def serve(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the tests, too, and they end this
        signal.signal(signal.SIGCHLD, self._reap)
        while files := socket.recv_fds(self._orders, 1, _FILES)[1]:
            text, *streams, pipe = files
            # Not while it isn't known yet whose end it is.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
            child = os.fork()
            if child == 0:
                self._leave(pipe)
                _become(text, streams)
            os.write(pipe, f"{child}\n".encode())
            self._pipes[child] = pipe
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            for file in (text, *streams):
                os.close(file)

    def _leave(self, pipe: int) -> None:
        """Let go, in a fork, of what is the server's."""
        self._orders.close()
        for each in (pipe, *self._pipes.values()):
            os.close(each)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])

    def _reap(self, _number: int, _frame: FrameType | None) -> None:
        while self._pipes:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            pipe = self._pipes.pop(child)
            with suppress(BrokenPipeError):  # nobody waits for it any more
                os.write(pipe, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(pipe)


def _become(text: int, streams: list[int]) -> NoReturn:
    """Be the process that was ordered."""
    with os.fdopen(text, "rb") as file:
        file.seek(0)
        order = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    code = 1
    try:
        module, _, name = order["function"].partition(":")
        getattr(import_module(module), name)(*order["arguments"])
        code = 0
    except SystemExit as end:
        code = _code_of(end)
    except BaseException:  # noqa: BLE001 - as an interpreter would
        sys.excepthook(*sys.exc_info())
    finally:
        _end(code)


def _code_of(end: SystemExit) -> int:
    """Return the exit code as an interpreter would; what is no number is a last word."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)  # noqa: T201
    return 1


def _end(code: int) -> NoReturn:
    """End as an interpreter does, but for taking itself apart, which takes a tenth of a second."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def hsm_keys(arguments: list[str]) -> None:
    """Be the command line."""
    from hsm_keys.cli import main

    sys.argv[1:] = arguments
    main()


def _warm_up() -> None:
    """Do once what costs each command most of its time: importing, and reading AWS's models."""
    import hsm_keys as package

    for module in pkgutil.walk_packages(package.__path__, "hsm_keys."):
        if not module.name.endswith(".__main__"):
            import_module(module.name)
    for name in ("pkcs11", "stamina", "boto3.session", "httpcore2"):
        import_module(name)
    sessions = import_module("botocore.session")
    sessions.create_loader = functools.cache(sessions.create_loader)  # type: ignore[attr-defined]
    sessions.Session().create_client(
        "kms", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
    )
    ending = import_module("hsm_keys.lifecycle.ending")
    ending.SETTLE_S = ending.LATE_S = SETTLE_S  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()  # what is here stays: no fork looks through it again
    gc.set_threshold(20_000, 20, 20)  # nor often through what a short command makes


if __name__ == "__main__":
    _warm_up()
    _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
