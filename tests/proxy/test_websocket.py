"""WebSockets through the proxy, to a Kalshi that says and closes what the test wants."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect
from websockets.sync.server import serve
from websockets.typing import Subprotocol

from tests.support.running_proxy import RunningProxy, with_key_in_memory
from tests.support.seen import latest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.http11 import Request, Response
    from websockets.sync.server import ServerConnection

    from hsm_keys.sandbox import SandboxServer

WS = "/trade-api/ws/v2"


class Kalshi:
    """A WebSocket server. Text starting with ``close`` makes it close; ``flood`` makes it send much; else it echoes."""

    def __init__(self) -> None:
        self.handshakes: list[Request] = []
        self.closed_with: list[tuple[int | None, str | None]] = []
        self.closed = threading.Event()
        self.refuse_with = 0
        self.flooded = 0
        self._server = serve(
            self._talk,
            "127.0.0.1",
            0,
            process_request=self._check,
            select_subprotocol=lambda connection, offered: Subprotocol("kalshi") if "kalshi" in offered else None,
            max_size=None,
            compression=None,
        )
        self.base_url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/trade-api/v2"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        if not request.path.startswith(WS):  # what keeps a connection warm
            return connection.respond(200, "")
        self.handshakes.append(request)
        if not self.refuse_with:
            return None
        refused = connection.respond(self.refuse_with, "")
        if self.refuse_with == 302:
            refused.headers["Location"] = f"{WS}/elsewhere"
        return refused

    def _talk(self, connection: ServerConnection) -> None:
        try:
            for message in connection:
                if isinstance(message, str) and message.startswith("close"):
                    _, code, reason = message.split(maxsplit=2)
                    connection.close(int(code), reason)
                elif message == "flood":
                    while True:
                        connection.send(b"x" * 100_000)
                        self.flooded += 1
                else:
                    connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            self.closed_with.append((connection.close_code, connection.close_reason))
            self.closed.set()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(10)


@pytest.fixture
def kalshi() -> Iterator[Kalshi]:
    server = Kalshi()
    yield server
    server.stop()


@pytest.fixture
def proxy(
    sandbox: SandboxServer, kalshi: Kalshi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningProxy]:
    monkeypatch.setenv("KALSHI_API_BASE_URL", kalshi.base_url)
    monkeypatch.delenv("KALSHI_WS_URL")  # it serves both on one port
    with with_key_in_memory(tmp_path) as running:
        yield running


def session(proxy: RunningProxy, **options: Any) -> ClientConnection:
    opened: ClientConnection = unix_connect(str(proxy.socket), f"ws://localhost{WS}", max_size=None, **options)
    return opened


def test_messages_pings_and_headers_go_both_ways(proxy: RunningProxy, kalshi: Kalshi) -> None:
    own = {"KALSHI-ACCESS-KEY": "bot", "Authorization": "Bearer x", "X-Request-Id": "1", "X-Client": "1"}
    with session(proxy, additional_headers=own, subprotocols=["other", "kalshi"]) as bot:
        assert bot.subprotocol == "kalshi"
        for message in ("text \u00e9", b"\x00\xff", "", "x" * 3_000_000):
            bot.send(message)
            assert bot.recv(timeout=20) == message
        assert bot.ping(b"are you there").wait(20)
    assert kalshi.closed.wait(20)
    assert kalshi.closed_with == [(1000, "")]
    (handshake,) = kalshi.handshakes
    assert len(handshake.headers.get_all("KALSHI-ACCESS-KEY")) == 1
    assert handshake.headers["KALSHI-ACCESS-KEY"] != "bot"
    assert "Authorization" not in handshake.headers
    assert handshake.headers["X-Request-Id"] == "1"
    assert "X-Client" not in handshake.headers
    proxy.stop()
    ended = [line for line in proxy.lines() if line["kind"] in {"decision", "outcome"}]
    assert [(line["kind"], line["status"]) for line in ended] == [("decision", None), ("outcome", 101)]


def test_whoever_closes_tells_why(proxy: RunningProxy, kalshi: Kalshi) -> None:
    for code, reason in ((1000, "done"), (1008, "policy"), (1011, "broken"), (4001, "our own"), (3999, "another")):
        with session(proxy) as bot:
            bot.send(f"close {code} {reason}")
            with pytest.raises(ConnectionClosed):
                bot.recv(timeout=20)
            assert (bot.close_code, bot.close_reason) == (code, reason)
        assert kalshi.closed.wait(20)
        kalshi.closed.clear()
        kalshi.closed_with.clear()
        with session(proxy) as bot:
            bot.close(code, reason)
        assert kalshi.closed.wait(20)
        assert kalshi.closed_with == [(code, reason)]
        kalshi.closed.clear()


def test_a_client_that_reads_nothing_stops_kalshi_from_sending(proxy: RunningProxy, kalshi: Kalshi) -> None:
    """What Kalshi can send is what fits into the buffers on the way, however long it goes on."""
    with session(proxy, max_queue=1) as bot:
        bot.send("flood")
        seen, still = -1, 0
        pause = threading.Event()
        while still < 5:
            pause.wait(0.1)
            seen, still = (kalshi.flooded, 0) if kalshi.flooded != seen else (seen, still + 1)
            assert kalshi.flooded < 2000  # 200 MB: the client and the system take some of it
        bot.socket.shutdown(socket.SHUT_RDWR)  # and dies
        assert kalshi.closed.wait(20)


def test_a_handshake_that_kalshi_refuses(proxy: RunningProxy, kalshi: Kalshi) -> None:
    for status, told in ((401, 401), (429, 429), (200, 502), (302, 502)):
        kalshi.refuse_with = status
        with pytest.raises(InvalidStatus, match=str(told)):
            session(proxy)
    assert proxy.request("GET", WS)[0] == 302  # no handshake, then: an ordinary GET
    assert len(kalshi.handshakes) == 5


def test_each_websocket_goes_to_the_host_that_serves_it(
    sandbox: SandboxServer, kalshi: Kalshi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REST stays with the base URL, and both WebSockets are where ``KALSHI_WS_URL`` says."""
    monkeypatch.setenv("KALSHI_WS_URL", kalshi.base_url.replace("http:", "ws:").replace("/trade-api/v2", WS))
    with with_key_in_memory(tmp_path) as proxy:
        assert proxy.request("GET", "/trade-api/v2/portfolio/balance")[0] == 200
        for path in (WS, f"{WS}/margin"):
            with unix_connect(str(proxy.socket), f"ws://localhost{path}") as bot:
                bot.send("hello")
                assert bot.recv(timeout=20) == "hello"
    assert [handshake.path for handshake in kalshi.handshakes] == [WS, f"{WS}/margin"]
    assert latest(sandbox).status == 200
