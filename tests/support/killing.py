"""A command line that is killed, or halted, at an effect or at any moment: SIGKILL, as a power cut would have it.

An effect is a call that leaves something behind, taken at the boundary and not in the code under test: a request to
Kalshi or Vault that doesn't only read; a PKCS#11 function that changes an object, in the module's own function list; a
KMS operation that changes something; a change of a file. The places before and after each effect are counted from 1.

A process that has imported everything forks for each run; see ``fork_server``::

    with Killer(Effects.KALSHI, Effects.TOKEN) as killer:
        whole = killer.run(["enroll", "--name", "a"])                   # whole.places: what there is to hit
        killer.run(["enroll", "--name", "b"], Moment(place=1))          # killed before the first effect
        killer.run(["enroll", "--name", "c"], Moment(place=1, late_s=0.001))  # one millisecond into it
        killer.run(["enroll", "--name", "d"], Moment(late_s=0.05))      # 50 ms after the start
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from tests.support.fork_server import ROOT, Forked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType


class Effects(StrEnum):
    """What counts as an effect."""

    KALSHI = "kalshi"
    TOKEN = "token"
    KMS = "kms"
    FILES = "files"


@dataclass(frozen=True)
class Moment:
    """When a run is killed: so many seconds after a place was reached, or right there."""

    place: int = 0
    """From 1; 0 is the start."""
    late_s: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int
    """The exit code; negative: by that signal."""
    places: list[str]
    """What it went through, such as ``before C_DestroyObject``."""
    output: str
    error: str

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    @property
    def code(self) -> str:
        """The error's code, of a run with ``--output json``; empty without an error."""
        return str(json.loads(self.error)["error"]["code"]) if self.status > 0 and self.error else ""


class Killer:
    """The process that forks; its environment is that of the moment in which it is started."""

    def __init__(self, *effects: Effects, **environment: str) -> None:
        theirs, ours = socket.socketpair()
        with theirs, ours:
            self._process = Forked(
                "tests.support.killing:serve",
                list(effects),
                environment={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                files=(theirs.fileno(), theirs.fileno(), 2),
            )
            self._line = ours.makefile("rw", encoding="utf-8")
        self._ended: Ended | None = None

    def run(
        self, arguments: list[str], moment: Moment | None = None, environment: Mapping[str, str] | None = None
    ) -> Ended:
        """Run the command line to its end, or to that moment."""
        self.begin(arguments, moment, environment)
        return self.end()

    def begin(
        self,
        arguments: list[str],
        moment: Moment | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        halt: bool = False,
    ) -> None:
        """Start the command line, and don't wait.

        Args:
            arguments: The command line.
            moment: When it is killed.
            environment: More variables.
            halt: Don't kill it there, but halt it; see ``halted``.
        """
        self._tell(
            {
                "arguments": arguments,
                "moment": moment and asdict(moment),
                "halt": halt,
                "environment": dict(environment or {}),
            }
        )

    def halted(self) -> bool:
        """Wait until the run is halted, or has ended; tell whether it is halted."""
        answer = self._hear()
        self._ended = None if answer.get("halted") else Ended(**answer)
        return self._ended is None

    def go_on(self) -> None:
        """Let a halted run go on; ``end`` waits for its end."""
        self._tell({})

    def end(self) -> Ended:
        """Wait for the end of the run."""
        ended, self._ended = self._ended, None
        return ended or Ended(**self._hear())

    def ask(self, function: str, *arguments: Any) -> Any:
        """Return what ``module:function`` gives in a process of its own; arguments and result go as JSON."""
        self._tell({"function": function, "arguments": arguments})
        return self._hear()

    def _tell(self, order: dict[str, Any]) -> None:
        print(json.dumps(order), file=self._line, flush=True)

    def _hear(self) -> Any:
        return json.loads(self._line.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._line.close()
        self._process.wait(30)


class _Counter:
    """Counts the places of a run, in the run itself, and ends or halts it at one of them."""

    def __init__(self, moment: Moment | None, telling: int, *, halt: bool) -> None:
        self._moment = moment
        self._telling = telling
        self._halt = halt
        self._passed = 0

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with a place before and one after it."""

        @functools.wraps(function)
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            self._pass(f"before {name}")
            try:
                return function(*arguments, **keywords)
            finally:
                self._pass(f"after {name}")

        return wrapped

    def _pass(self, place: str) -> None:
        self._passed += 1
        os.write(self._telling, f"{place}\n".encode())
        if self._moment and self._moment.place == self._passed and self._moment.late_s is None:
            os.kill(os.getpid(), signal.SIGSTOP if self._halt else signal.SIGKILL)


def _hook_kalshi(counter: _Counter) -> None:
    import httpx2

    send = httpx2.Client.send

    def sent(client: Any, request: Any, **keywords: Any) -> Any:
        function = functools.partial(send, client, request, **keywords)
        return function() if request.method in {"GET", "LIST"} else counter.around(request.method, function)()

    httpx2.Client.send = sent  # type: ignore[method-assign,assignment]


def _hook_kms(counter: _Counter) -> None:
    from botocore.client import BaseClient  # type: ignore[import-untyped]  # botocore has no annotations

    call = BaseClient._make_api_call

    def called(client: Any, operation: str, parameters: Any) -> Any:
        reads = operation.startswith(("Describe", "Get", "List", "Sign"))
        return (call if reads else counter.around(operation, call))(client, operation, parameters)

    BaseClient._make_api_call = called


def _hook_files(counter: _Counter) -> None:
    for name in ("fchmod", "fsync", "ftruncate", "link", "pwrite", "rename", "replace", "unlink"):
        setattr(os, name, counter.around(name, getattr(os, name)))
    plain = os.open

    def opened(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        function = counter.around("open", plain) if flags & os.O_CREAT else plain
        return int(function(path, flags, *arguments, **keywords))

    os.open = opened


_CHANGING = {
    "C_CreateObject": (20, 4),
    "C_DestroyObject": (22, 2),
    "C_SetAttributeValue": (25, 4),
    "C_GenerateKeyPair": (59, 8),
    "C_UnwrapKey": (61, 8),
}
"""C_CopyObject isn't among them: the one copy that is asked for, to prove custody, would live in a session alone.

Where they stand in CK_FUNCTION_LIST (PKCS#11 v2.40, appendix; from 0), and how many words they take."""

_kept: list[Any] = []  # C has no reference to these


def _hook_token(counter: _Counter) -> None:
    """Put ours into the module's function list, which is the module's own memory and shared by all who load it."""
    library = ctypes.CDLL(os.environ["HSM_KEYS_MODULE"])
    listed = ctypes.c_void_p()
    assert library.C_GetFunctionList(ctypes.byref(listed)) == 0
    assert listed.value is not None
    functions = (ctypes.c_void_p * 68).from_address(listed.value + ctypes.sizeof(ctypes.c_void_p))  # CK_VERSION, padded
    for name, (index, words) in _CHANGING.items():
        kind = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_void_p] * words)
        plain = kind(functions[index] or 0)
        ours = kind(counter.around(name, plain))
        _kept.extend((plain, ours))
        functions[index] = ctypes.cast(ours, ctypes.c_void_p).value


_HOOKS = {
    Effects.KALSHI: _hook_kalshi,
    Effects.TOKEN: _hook_token,
    Effects.KMS: _hook_kms,
    Effects.FILES: _hook_files,
}


def _in_child(arguments: list[str], environment: dict[str, str], effects: list[str], counter: _Counter) -> None:
    """Be the command line."""
    os.environ.update(environment)
    for effect in effects:
        _HOOKS[Effects(effect)](counter)
    from hsm_keys.cli import main

    status = 1
    try:
        main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _Run:
    """A forked command line, seen from the process that forked it."""

    def __init__(self, order: dict[str, Any], effects: list[str]) -> None:
        self._moment = Moment(**order["moment"]) if order["moment"] else None
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - closed in `ended`
        self._heard, telling = os.pipe()
        self._told = b""
        self._child = os.fork()
        if self._child == 0:
            null = os.open(os.devnull, os.O_RDONLY)
            for number, file in enumerate((null, *(file.fileno() for file in self._files))):
                os.dup2(file, number)
            counter = _Counter(self._moment, telling, halt=order["halt"])
            _in_child(order["arguments"], order["environment"], effects, counter)
        os.close(telling)

    def halted(self) -> bool:
        """Wait until it is halted, or is about to end."""
        _, status = os.waitpid(self._child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._status = status
        return False

    def go_on(self) -> None:
        os.kill(self._child, signal.SIGCONT)

    def ended(self) -> dict[str, Any]:
        """Wait for the end, or bring it about."""
        self._listen()
        if not hasattr(self, "_status"):
            _, self._status = os.waitpid(self._child, 0)
        os.close(self._heard)
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        status = os.waitstatus_to_exitcode(self._status)
        return {"status": status, "places": self._told.decode().splitlines(), "output": texts[0], "error": texts[1]}

    def _listen(self) -> None:
        """Read the places until the run has ended; kill it when it is due."""
        moment = self._moment if self._moment and self._moment.late_s is not None else None
        due: float | None = None
        while True:
            if moment and due is None and self._told.count(b"\n") >= moment.place:
                due = time.monotonic() + (moment.late_s or 0)
            left = None if due is None else max(0.0, due - time.monotonic())
            if not select.select([self._heard], [], [], left)[0]:
                os.kill(self._child, signal.SIGKILL)  # not waited for yet, so the id is still its own
                moment = due = None
            elif not (told := os.read(self._heard, 4096)):
                return
            else:
                self._told += told


def _answer(function: str, arguments: list[Any]) -> Any:
    """Call it in a child, and return its result."""
    heard, telling = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            module, _, name = function.partition(":")
            with os.fdopen(telling, "w") as pipe:
                json.dump(getattr(import_module(module), name)(*arguments), pipe)
        except BaseException:  # noqa: BLE001 - this child is nobody's caller: pytest shows what it writes
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(telling)
    with os.fdopen(heard) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text or "null")


def serve(effects: list[str]) -> None:
    """Fork for each order that comes on stdin, and answer on stdout."""
    run: _Run | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if "function" in order:
            answer = _answer(order["function"], order["arguments"])
        elif not order:
            assert run is not None
            run.go_on()
            answer = run.ended()
        else:
            run = _Run(order, effects)
            answer = {"halted": True} if order["halt"] and run.halted() else run.ended()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
