"""A contained program: what it reaches, each way out that was tried, and that it never runs uncontained."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.running.containing.hosts import Place, kalshi_hosts, places
from hsm_keys.running.containing.kernel import ContainmentError
from hsm_keys.running.containing.streams import check_streams
from tests.support.cli import ROOT
from tests.support.seen import latest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.runs import Runs
    from tests.support.softhsm import TestToken

pytestmark = [
    pytest.mark.program,
    pytest.mark.softhsm,
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's"),
]

CONTAIN = ("--contain",)
PROBE = str(ROOT / "tests" / "running" / "probe.py")
KALSHI = "https://external-api.kalshi.com/trade-api/v2"
ASK = f"""
import os, urllib.request
token = os.environ["KALSHI_KEY_ID"]
request = urllib.request.Request("{KALSHI}/portfolio/balance", headers={{"KALSHI-ACCESS-KEY": token}})
print(urllib.request.urlopen(request, timeout=30).status)
"""


class Listening:
    """What listens outside, and counts who comes."""

    def __init__(self, folder: Path) -> None:
        self.came = 0
        self.tcp = socket.create_server(("0.0.0.0", 0))  # noqa: S104 - the program is to try every address
        self.port = self.tcp.getsockname()[1]
        self.unix = folder / "outside.sock"
        self.abstract = f"hsm-keys-test-{os.getpid()}"
        self.sockets = [self.tcp]
        for address in (str(self.unix), "\0" + self.abstract):
            one = socket.socket(socket.AF_UNIX)
            one.bind(address)
            one.listen()
            self.sockets.append(one)
        self.threads = [threading.Thread(target=self._accept, args=(one,)) for one in self.sockets]
        for thread in self.threads:
            thread.start()

    def _accept(self, one: socket.socket) -> None:
        try:
            while True:
                connection, _ = one.accept()
                self.came += 1
                connection.sendall(b"hello\n")
                connection.close()
        except OSError:
            return

    def close(self) -> None:
        for one, thread in zip(self.sockets, self.threads, strict=True):
            one.shutdown(socket.SHUT_RDWR)
            thread.join()
            one.close()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Listening]:
    listening = Listening(tmp_path)
    yield listening
    listening.close()


def test_no_way_leads_out(runs: Runs, token: TestToken, outside: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = os.openpty()
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as shared, tempfile.TemporaryDirectory() as home:
        hidden = Path(home) / ".config" / "hsm-keys"
        hidden.mkdir(parents=True)
        for secret in (Path(home) / ".vault-token", hidden / "secret"):
            secret.write_text("secret")
        monkeypatch.setenv("HOME", home)
        given: dict[str, Any] = {
            "address": socket.gethostbyname(socket.gethostname()),
            "port": outside.port,
            "unix": str(outside.unix),
            "abstract": outside.abstract,
            "control": str(runs.folder / "hsm-keys" / "prod.control.sock"),
            "clients": str(runs.folder / "hsm-keys" / "prod.run" / "clients"),
            "softhsm": str(runs.folder / "softhsm" / "tokens"),
            "pin_file": str(token.pin_file),
            "run": os.getpid(),
            "shm": shared.name,
            "hidden": str(hidden),
            "terminal": os.ttyname(terminal[1]),
        }
        done = runs.run(sys.executable, PROBE, json.dumps(given), options=CONTAIN, cwd=hidden)
    for end in terminal:
        os.close(end)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: said for name, said in found.items() if said.startswith("open")} == {}
    assert outside.came == 0
    assert (found["typing"], found["pasting"]) == ("EACCES", "EACCES")  # by the filter: it has no terminal here
    assert found["processes"] == "2"  # the first one of the namespace, and itself


def test_streams_that_lead_out_are_refused(tmp_path: Path) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    pair, datagrams = socket.socketpair(), socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with pair[0], pair[1], datagrams[0], datagrams[1], socket.socket() as network:
        folder = os.open(tmp_path, os.O_RDONLY)
        check_streams([pair[0].fileno(), null, 4711])  # as programs of Node.js start others; and one that is closed
        for leading in (network.fileno(), datagrams[0].fileno(), folder):
            with pytest.raises(ContainmentError, match="output"):
                check_streams([null, leading, null])
        os.close(folder)
    os.close(null)


def test_hosts_in_the_code_lead_to_the_proxy(runs: Runs) -> None:
    done = runs.python(ASK, options=CONTAIN)
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
    assert latest(runs.sandbox).verified
    curl = 'curl -sS -o /dev/null -w "%{http_code}" -H "KALSHI-ACCESS-KEY: $KALSHI_KEY_ID" '
    assert runs.run("sh", "-c", f"{curl} {KALSHI}/portfolio/balance", options=CONTAIN).stdout == "200"


def test_a_host_that_is_allowed_is_relayed_and_written_down(runs: Runs, outside: Listening) -> None:
    code = f"import socket; print(socket.create_connection(('localhost', {outside.port}), 20).makefile().read())"
    refused = runs.python(code, options=CONTAIN)
    assert "ConnectionRefusedError" in refused.stderr
    host = f"ip6-localhost:{outside.port}"  # a name that this machine knows, and that isn't the program's own loopback
    if "ip6-localhost" not in Path("/etc/hosts").read_text():
        host = f"{socket.gethostname()}:{outside.port}"
    code = code.replace("'localhost'", repr(host.partition(":")[0]))
    done = runs.python(code, options=(*CONTAIN, "--allow-host", host))
    assert done.returncode == 0, done.stderr
    relayed = [line["relayed_to"] for line in runs.trail() if line["kind"] == "relayed"]
    assert relayed == [host.lower()]


NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
READING = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # where this Python is root's alone


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are an ordinary user's then")
def test_an_ordinary_user_contains_programs_too(runs: Runs) -> None:
    curl = 'curl -sS -o /dev/null -w "%{http_code}" -H "KALSHI-ACCESS-KEY: $KALSHI_KEY_ID"'
    ask = f"id -u; {curl} {KALSHI}/portfolio/balance"
    with tempfile.TemporaryDirectory() as runtime:
        subprocess.run(["chown", "-R", str(NOBODY), runs.folder, runtime], check=True)
        environment = {"HOME": str(runs.folder), "XDG_RUNTIME_DIR": runtime}
        done = runs.run("sh", "-c", ask, options=CONTAIN, through=(*AS_NOBODY, *READING), environment=environment)
    assert (done.stdout, done.returncode) == (f"{NOBODY}\n200", 0), done.stderr
    assert latest(runs.sandbox).verified


def test_exit_codes_and_signals_are_the_programs(runs: Runs) -> None:
    assert runs.run("sh", "-c", "exit 7", options=CONTAIN).returncode == 7
    assert runs.run("sh", "-c", "kill -TERM $$", options=CONTAIN).returncode == 143
    with runs.start(
        "sh", "-c", "trap 'echo got; exit 5' INT; echo ready; while :; do sleep 0.1; done", options=CONTAIN
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        run.send_signal(2)
        assert run.communicate(timeout=30)[0] == "got\n"
    assert run.returncode == 5


def test_where_namespaces_arent_allowed_nothing_runs(runs: Runs) -> None:
    mark = runs.folder / "ran"
    code = f"""
import ctypes, sys
libc = ctypes.CDLL(None)
class No:
    def unshare(self, flags):
        ctypes.set_errno(1); return -1
    def __getattr__(self, name): return getattr(libc, name)
import hsm_keys.running.containing.kernel as kernel
kernel._libc = No
from hsm_keys.cli import main
main(["run", "--name", "prod", "--contain", "--", "touch", {str(mark)!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, mark.exists()) == (1, False)
    assert "containment" in done.stderr
    assert "kernel.unprivileged_userns_clone" in done.stderr


def test_an_environments_hosts_are_its_own() -> None:
    demo = kalshi_hosts("https://external-api.demo.kalshi.co/trade-api/v2")
    prod = kalshi_hosts("https://external-api.kalshi.com/trade-api/v2")
    assert "demo-api.kalshi.co" in demo
    assert "api.elections.kalshi.com" in prod
    assert set(demo).isdisjoint(prod)
    assert set(kalshi_hosts("http://127.0.0.1:1/trade-api/v2")) == {*demo, *prod}


def test_places() -> None:
    assert places(8090, ["api.example.com", "API.example.com:80"])[2:] == [
        Place("127.0.1.1", 443, "api.example.com", 443),
        Place("127.0.1.1", 80, "api.example.com", 80),
    ]


@pytest.mark.parametrize(
    "text", ["", ":80", "x:", "x:0", "x:99999", "10.0.0.1", "::1", "a b", "x:80:80", "http://x", "-x"]
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(UsageError):
        places(8090, [text])
