"""Why Kalshi wasn't reached, in the answer and in the log; and the network's own proxy."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.proxy.reaching import network_proxy
from tests.support.ports import free_port
from tests.support.running_proxy import with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer

BALANCE = "/trade-api/v2/portfolio/balance"
KALSHI = "https://external-api.kalshi.com/trade-api/v2"


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Give a port on which each connection is led by a function and then closed."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def reset(connection: socket.socket) -> None:
    connection.recv(1)  # and leaves the rest unread


def hang_up(connection: socket.socket) -> None:
    while not connection.recv(65_536).endswith(b"\r\n\r\n"):
        pass


def babble(connection: socket.socket) -> None:
    hang_up(connection)
    connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")


def speak_plainly(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_url: str) -> tuple[int, str, str, str]:
    """Return the status, code and message that a client gets, and the proxy's log."""
    monkeypatch.setenv("KALSHI_API_BASE_URL", base_url)
    monkeypatch.delenv("KALSHI_WS_URL")
    with with_key_in_memory(tmp_path) as proxy:
        status, body = proxy.request("GET", BALANCE)[:2]
        proxy.stop()
        return status, body["error"]["code"], body["error"]["message"], "".join(proxy.said)


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    "case",
    [
        (None, "http", "network", "connection refused"),
        (reset, "http", "outcome_unknown", "connection"),
        (hang_up, "http", "outcome_unknown", "the connection was closed"),
        (babble, "http", "outcome_unknown", "the answer isn't HTTP"),
        (speak_plainly, "https", "network", "TLS: the handshake failed"),
    ],
    ids=lambda case: case[3],
)
def test_the_answer_and_the_log_say_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[Callable[[socket.socket], None] | None, str, str, str],
) -> None:
    talk, scheme, code, words = case
    with server(talk or hang_up) as port:
        base_url = f"{scheme}://127.0.0.1:{port if talk else free_port()}/trade-api/v2"
        status, seen, message, log = told(tmp_path, monkeypatch, base_url)
    assert (status, seen) == (502, code)
    assert words in message
    assert message in log


@pytest.mark.usefixtures("sandbox")
def test_a_name_that_cant_be_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, code, message, log = told(tmp_path, monkeypatch, "https://kalshi.invalid/trade-api/v2")
    assert (status, code) == (502, "network")
    assert "its name can't be resolved" in message
    assert message in log


def test_the_networks_proxy_is_used(sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []

    def refuse(connection: socket.socket) -> None:
        heads.append(connection.recv(65_536))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with server(refuse) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        status, code, message, _ = told(tmp_path, monkeypatch, "https://kalshi.invalid/trade-api/v2")
    assert heads[0].startswith(b"CONNECT kalshi.invalid:443 ")
    assert b"KALSHI-ACCESS" not in b"".join(heads)
    assert (status, code) == (502, "network")
    assert "the network's proxy refuses the connection" in message
    assert not sandbox.requests


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({"HTTPS_PROXY": "http://user:pw@proxy:3128"}, KALSHI, "http://user:pw@proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, KALSHI, "http://proxy:3128"),
        ({"ALL_PROXY": "http://proxy:3128"}, "wss://external-api-ws.kalshi.com", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": ".kalshi.com"}, KALSHI, None),
        ({"HTTP_PROXY": "http://proxy", "ALL_PROXY": "http://proxy"}, "http://127.0.0.1:8960", None),
        ({"HTTP_PROXY": "http://proxy"}, KALSHI, None),
        ({}, KALSHI, None),
    ],
)
def test_which_proxy_a_url_has(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, expected: str | None
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = network_proxy(url)
    assert (found and str(found).rstrip("/")) == expected


def test_a_proxy_that_isnt_spoken_to_over_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5h://user:canary@proxy:1080")
    with pytest.raises(UsageError, match="isn't an HTTP proxy") as caught:
        network_proxy(KALSHI)
    assert "canary" not in str(caught.value)
