"""A program behind a proxy that no run has started: at its Unix socket, and where none can be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.errors import HsmKeysError, KeyBusyError, UsageError, WrongEnvironmentError
from hsm_keys.proxy.controlling import ControlAnswer
from hsm_keys.running import joining
from hsm_keys.running.joining import find_proxy
from hsm_keys.running.sharing import Share, Terms
from hsm_keys.running.socket_bridge import SocketBridge
from tests.support.cli import ROOT, run_json
from tests.support.runs import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.runs import Runs

PROD = "https://external-api.kalshi.com/trade-api/v2"
ASK = """
import os, urllib.error, urllib.request
def ask(token=os.environ["KALSHI_KEY_ID"]):
    url = os.environ["KALSHI_API_BASE_URL"] + "/portfolio/balance"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers={"KALSHI-ACCESS-KEY": token})).status
    except urllib.error.HTTPError as error:
        return error.code
print(ask(), ask(token="0" * 64), ask(token=""))
"""
NO_STORE = {"HSM_KEYS_STORE": "pkcs11:token=none", "HSM_KEYS_PIN_FILE": "/dev/null"}


@contextmanager
def proxy(*options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a proxy at its Unix socket."""
    command = [sys.executable, "-m", "hsm_keys", "proxy", "--name", "prod", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, text=True, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            run_json("proxy", "status", "--name", "prod", "--wait")
            yield process
        finally:
            process.terminate()


@pytest.mark.program
@pytest.mark.softhsm
def test_a_program_is_behind_a_proxy_at_a_socket(runs: Runs) -> None:
    policy = runs.folder / "policy.toml"
    policy.write_text(f'version = 1\n[clients.bot]\nuids = [{os.geteuid()}]\nallow = ["GET /**"]\n')
    with proxy("--policy", str(policy)) as process:
        done = runs.python(ASK, environment=NO_STORE)
        assert (done.stdout, done.returncode) == ("200 401 401\n", 0), done.stderr
        ran = [(line["kind"], line["client"]) for line in runs.trail() if line["kind"].startswith("program")]
        assert ran == [("program", "bot"), ("program_ended", "bot")]
        assert {line["client"] for line in runs.trail() if line.get("path", "").endswith("/balance")} == {"bot"}
        run_json("proxy", "freeze", "--name", "prod")
        contained = runs.python(ASK, options=("--contain", "--client", "bot"), environment=NO_STORE)
        assert (contained.stdout, "is frozen" in contained.stderr) == ("403 401 401\n", True), contained.stderr
        assert process.poll() is None
    until(lambda: runs.processes() == [])


def identity(**changes: Any) -> dict[str, Any]:
    """Return what a proxy says of itself."""
    common = {"name": "prod", "pid": 1, "base_url": PROD, "frozen": False, "client_of_user": "default"}
    return {**common, "token_folder": "", "serves_at": "http://127.0.0.1:1/trade-api/v2", **changes}


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has a proxy say something of itself."""
    (tmp_path / "control").touch()

    def says(**changes: Any) -> None:
        answer = ControlAnswer(tmp_path / "control", identity(**changes))
        monkeypatch.setattr(joining, "find_one", lambda _: answer)

    return says


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"serves_at": ""}, KeyBusyError),
        ({"name": "other"}, UsageError),
        ({"serves_at": "the socket /nowhere/prod.sock"}, UsageError),
        ({"serves_at": "https://10.0.0.1:1/trade-api/v2", "token_folder": "/clients"}, UsageError),
        ({"serves_at": "http://127.0.0.1:1/trade-api/v2"}, UsageError),
    ],
)
def test_proxies_that_no_program_can_be_behind(
    say: Callable[..., None], said: dict[str, Any], error: type[HsmKeysError]
) -> None:
    say(**said)
    with pytest.raises(error):
        find_proxy("prod")


def test_another_users_proxy_is_left_alone(say: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    say(token_folder="/clients")
    assert find_proxy("prod") is not None
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(UsageError, match=f"belongs to the user {user}"):
        find_proxy("prod")


def test_a_program_for_demo_is_behind_no_proxy_of_production(
    say: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "clients").mkdir()
    say(token_folder=str(tmp_path / "clients"))
    demo = Terms("https://external-api.demo.kalshi.co/trade-api/v2", "", "")
    with pytest.raises(WrongEnvironmentError, match=r"for prod.*on demo"), Share("prod", None, demo):
        pass
    with Share("prod", None, Terms("https://api.elections.kalshi.com/trade-api/v2", "", "")) as share:
        assert (share.port, (tmp_path / "clients" / "run").read_text()) == (1, share.token)
    assert not (tmp_path / "clients" / "run").exists()


def test_at_a_socket_a_program_is_the_client_that_its_user_is(
    say: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    terms = Terms(PROD, "", "")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "x.sock"))
        listener.listen()
        say(serves_at=f"the socket {tmp_path}/x.sock", client_of_user="bot")
        for named in (None, "bot"):
            with Share("prod", named, terms) as share:
                assert (share.client, share.socket, share.clients) == ("bot", tmp_path / "x.sock", None)
        with pytest.raises(UsageError, match="the client 'bot'"), Share("prod", "maker", terms):
            pass


def asked(port: int, head: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(head)
        return connection.makefile("rb").read()


def test_a_port_leads_to_a_socket_for_one_token(tmp_path: Path) -> None:
    token, path, came = "t" * 64, tmp_path / "proxy.sock", []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                came.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    serving = threading.Thread(target=serve)
    serving.start()
    with SocketBridge(path, token) as bridge:
        heads = [
            f"GET / HTTP/1.1\r\n{line}\r\n\r\n".encode()
            for line in (
                f"Kalshi-Access-Key: {token}",
                f"Authorization: bearer {token}",
                f"KALSHI-ACCESS-KEY: {token}x",
                f"Authorization: Basic {token}",
                "Host: x",
                f"X: {token}",
            )
        ]
        statuses = [asked(bridge.port, head)[9:12] for head in heads]
        assert statuses == [b"200"] * 2 + [b"401"] * 4
        serving.join()
        assert came == heads[:2]
        listener.close()
        path.unlink()
        assert b"proxy_gone" in asked(bridge.port, heads[0])
        assert b"401" in asked(bridge.port, b"POST / HTTP/1.1\r\nContent-Length: 600000\r\n\r\n" + b"x" * 600_000)
    with pytest.raises(ConnectionRefusedError):
        asked(bridge.port, heads[0])
