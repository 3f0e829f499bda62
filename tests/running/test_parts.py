"""Parts of a run by themselves, where the whole shows a fault only now and then, or costs too much."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, cast

import pytest

from hsm_keys.errors import HsmKeysError, OutcomeUnknownError
from hsm_keys.processes import children_of
from hsm_keys.running.errors import ProxyEndedError
from hsm_keys.running.front import Front
from hsm_keys.running.keeping import end_children, next_word
from hsm_keys.running.proxy_process import ProxyProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsm_keys.running.sharing import Share

HEAVY = {
    *("aiohttp", "asyncio", "botocore", "cryptography", "http.client", "httpx2", "pkcs11", "prometheus_client"),
    *("hashlib", "logging", "pydantic", "random", "ssl", "tempfile", "websockets"),
}


def test_who_ends_with_something_unread_has_ended_all_the_same() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.send(b"\x02")
        theirs.send(b"\x82")
        theirs.close()
        assert [next_word(ours), next_word(ours)] == [b"\x82", b""]


def test_a_child_of_another_user_is_left_where_it_cant_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        kill = os.kill

        def refuse(process: int, number: int) -> None:
            if process == child.pid:
                raise PermissionError
            kill(process, number)

        monkeypatch.setattr(os, "kill", refuse)
        others = set(children_of(os.getpid())) - {child.pid}
        end_children(but=others)
        monkeypatch.undo()
        assert child.poll() is None
        child.kill()


class Shared:
    """A run's share, as far as it goes here."""

    listener = object()

    def serve(self) -> None:
        """Be the proxy's process."""


@pytest.fixture
def proxy() -> Iterator[ProxyProcess]:
    """A proxy that serves until it is killed, and a moment longer after SIGUSR1, which kills it too."""

    def serve(began: Callable[[], None]) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        began()
        signal.sigwait({signal.SIGUSR1})
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    process = ProxyProcess(cast("Share", Shared()), serve)
    process.start(asks=False, closed=[])
    yield process
    process.end()


def front(proxy: ProxyProcess, note: Callable[[int | None], None]) -> Front:
    share = cast("Share", Shared())
    return Front(share, proxy, on_proxy_exit="kill", note=note, report=lambda _: None)


def begun(proxy: ProxyProcess, note: Callable[[int | None], None]) -> HsmKeysError | int | None:
    """Let the proxy begin, and return what went wrong when the run noted its program."""
    tested = front(proxy, note)
    while not proxy.hear(proxy.descriptors[:1]):
        pass
    tested._begin()
    return tested._failure


def test_a_proxy_that_is_killed_while_a_program_is_noted_has_ended(
    proxy: ProxyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.running.proxy_process._ENDS_WITHIN_S", 60.0)

    def note(_: int | None) -> None:
        os.kill(proxy.pid, signal.SIGUSR1)  # as if its connections had ended, and it a moment later
        raise OutcomeUnknownError("it gives no answer", hint="")

    assert isinstance(begun(proxy, note), ProxyEndedError)


def test_a_proxy_that_lives_and_cant_note_a_program_is_no_proxy_that_ended(
    proxy: ProxyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.running.proxy_process._ENDS_WITHIN_S", 0.0)
    silent = OutcomeUnknownError("it gives no answer", hint="")

    def note(_: int | None) -> None:
        raise silent

    assert begun(proxy, note) is silent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP])
def test_a_key_of_the_terminal_that_comes_before_the_proxy_has_left_it_ends_no_proxy(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    setsid = os.setsid

    def leave() -> None:
        os.kill(os.getpid(), number)
        setsid()

    monkeypatch.setattr(os, "setsid", leave)
    process = ProxyProcess(cast("Share", Shared()), lambda _: 3)
    process.start(asks=False, closed=[])
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    process.pid = 0
    assert os.waitstatus_to_exitcode(status) == 3


def test_a_program_waits_for_no_library(tmp_path: Path) -> None:
    """What the run does before its first fork is all that its program waits for."""
    code = f"""
import os, sys
from hsm_keys.running.throwaway import throwaway_in
os.makedirs("hsm-keys", 0o700)
open("hsm-keys/throwaway-rsa.pem", "w").write("PEM")
def fork():
    print(*({HEAVY!r} & set(sys.modules)))
    sys.stdout.flush()
    os._exit(0)
os.fork = fork
sys.argv[1:] = ["run", "--name", "prod", "--base-url", "http://127.0.0.1:1/trade-api/v2", "--", "true"]
from hsm_keys.cli import main
main()
"""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
