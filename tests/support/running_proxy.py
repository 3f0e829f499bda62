"""A proxy as a process of its own, with a key in memory: what is tested is the proxy, not the store."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.fork_server import Forked

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    Process = subprocess.Popen[bytes] | Forked
    Start = Callable[[dict[str, str], int], Process]


_OWN = ("/exchange/status", "/account/endpoint_costs", "/account/limits")


def asks_for_itself(head: bytes) -> bool:
    """Tell whether a request is one of the proxy's own: to keep a connection warm, or for Kalshi's costs and limits."""
    return any(f" /trade-api/v2{path} ".encode() in head for path in _OWN)


class RunningProxy:
    """A running proxy.

    Args:
        folder: Where its state is.
        start: Starts it, given its environment and a descriptor for its stderr.
        name: Its key's name.
        environment: What its environment has besides.
    """

    def __init__(self, folder: Path, start: Start, *, name: str = "prod", **environment: str) -> None:
        self.folder = folder
        self.state = folder / "state" / "hsm-keys" / name
        self.audit = self.state / "audit"
        self.socket = folder / "hsm-keys" / f"{name}.sock"
        self._environment = {
            **os.environ,
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_RUNTIME_DIR": str(folder),
            **environment,
        }
        reading, writing = os.pipe()
        self._stderr = os.fdopen(reading)
        with os.fdopen(writing) as stderr:
            self.process = start(self._environment, stderr.fileno())
        self.said: list[str] = []
        self._spoke = threading.Condition()
        self._serves = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._serves.wait(30)
        if self.process.poll() is not None or not any("serving" in line for line in self.said):
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            self._stderr.close()
            raise AssertionError("".join(self.said))

    def _read(self) -> None:
        for line in self._stderr:
            with self._spoke:
                self.said.append(line)
                self._spoke.notify_all()
            if "serving" in line:
                self._serves.set()
        self._serves.set()

    @property
    def environment(self) -> dict[str, str]:
        """For commands about it."""
        return {name: self._environment[name] for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR")}

    @property
    def port(self) -> int:
        """Where it listens."""
        line = next(line for line in self.said if "serving" in line)
        return int(line.partition("127.0.0.1:")[2].partition("/")[0])

    def request(
        self, method: str, target: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request over the Unix socket; return the status and what the answer says."""
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = self.connect()
        try:
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """Return a connection to the Unix socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        try:
            connection.connect(str(self.socket))
        except OSError:
            connection.close()
            raise
        return connection

    def raw(self, text: bytes) -> bytes:
        """Send bytes, and return all that comes back until the end or the first whole answer."""
        with self.connect() as connection:
            connection.sendall(text)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return str(answer.status).encode() + b" " + answer.read()

    def trail(self) -> str:
        """Return the audit trail as it stands in its files."""
        return "".join(path.read_text() for path in sorted(self.audit.glob("*.jsonl")))

    def lines(self) -> list[dict[str, Any]]:
        """Return the audit trail."""
        return [json.loads(line) for line in self.trail().splitlines()]

    def wait_for_words(self, words: str) -> None:
        """Wait until it has said so."""
        with self._spoke:
            assert self._spoke.wait_for(lambda: any(words in line for line in self.said), 20), self.said

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(20) == 0, "".join(self.said)
        self._reader.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        self._stderr.close()


def with_key_in_memory(folder: Path, **options: Any) -> RunningProxy:
    """Start a proxy that signs with the bootstrap key of the environment."""
    given = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}

    def start(environment: dict[str, str], stderr: int) -> Process:
        with open(os.devnull, "r+b") as null:  # noqa: PTH123
            files = (null.fileno(), null.fileno(), stderr)
            return Forked("tests.support.running_proxy:serve", given, environment=environment, files=files)

    return RunningProxy(folder, start, name=given.get("name", "prod"))


def program(command: list[str], pass_fds: tuple[int, ...] = ()) -> Start:
    """Return what starts a program; it inherits those descriptors."""

    def start(environment: dict[str, str], stderr: int) -> Process:
        return subprocess.Popen(command, env=environment, pass_fds=pass_fds, stderr=stderr)

    return start


def serve(options: dict[str, Any]) -> None:
    """Be the proxy."""
    from hsm_keys.kalshi.bootstrap import bootstrap_key_from_env
    from hsm_keys.proxy.options import Options, check_options
    from hsm_keys.proxy.run import run
    from hsm_keys.signing.algorithms import public_key_pem
    from hsm_keys.signing.pem import load_private_key
    from hsm_keys.signing.signer import RequestSigner

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    pem = bootstrap_key_from_env() or sys.exit("there is no key")
    private = load_private_key(os.environ["KALSHI_PRIVATE_KEY"].encode())

    hangs_while = Path(options.pop("hangs_while", os.devnull + ".none"))
    asked_at = options.pop("asked_at", None)
    if asked_at is not None:
        _note_when_it_is_asked(Path(asked_at))

    class Key:
        name = "prod"
        api_key_id = pem.api_key_id
        public_key = staticmethod(private.public_key)

        def sign(self, message: bytes) -> bytes:
            while hangs_while.exists():
                time.sleep(0.005)
            return pem.sign(message)

        def public_pem(self) -> str:
            return public_key_pem(private.public_key())

    limit = options.pop("file_bytes", None)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    files = options.pop("files", None)
    if files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files // 2, files))
    for name in ("policy", "clients", "socket", "audit"):
        if name in options:
            options[name] = Path(options[name])
    if "tls" in options:
        options["tls"] = tuple(map(Path, options["tls"]))
    run(
        RequestSigner(Key()),
        os.environ["KALSHI_API_BASE_URL"],
        check_options(Options(**{"name": "prod", **options})),
        lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201 - what the command line does
    )


def _note_when_it_is_asked(path: Path) -> None:
    """Write to a file when the control socket was asked last (``time.monotonic``), once that is answered."""
    from hsm_keys.proxy.control import Control

    answer = Control.answer

    async def noted(control: Control, request: Any) -> Any:
        asked_at = str(time.monotonic())
        answered = await answer(control, request)
        await asyncio.to_thread(path.write_text, asked_at)
        return answered

    Control.answer = noted  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
