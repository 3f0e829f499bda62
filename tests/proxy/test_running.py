"""What was allowed stays allowed only until it is signed, and what is under way can be stopped."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.proxy.access import Caller, Refused
from hsm_keys.proxy.running import MOST_AT_ONCE, RunningRequests
from tests.support.cli import run_cli
from tests.support.http_heads import head_of
from tests.support.orders import order_body
from tests.support.running_proxy import RunningProxy, asks_for_itself, with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer

ORDERS = "/trade-api/v2/portfolio/events/orders"
BALANCE = "/trade-api/v2/portfolio/balance"
WS = "/trade-api/ws/v2"
TOKEN = "canary-token-of-32-letters-and-some"
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Kalshi:
    """Takes requests, and answers none until the test lets it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/trade-api/v2"
        self.heads: list[bytes] = []
        self.arrived = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            head = b""
            while b"\r\n\r\n" not in head and (some := connection.recv(65_536)):
                head += some
            if asks_for_itself(head):
                return
            self.heads.append(head)
            if b"websocket" in head:
                connection.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                )
            self.arrived.release()
            self.may_answer.wait(30)
            if b"websocket" not in head:
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    def stop(self) -> None:
        self.may_answer.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def kalshi(monkeypatch: pytest.MonkeyPatch, sandbox: SandboxServer) -> Iterator[Kalshi]:
    server = Kalshi()
    monkeypatch.setenv("KALSHI_API_BASE_URL", server.base_url)
    monkeypatch.delenv("KALSHI_WS_URL")
    yield server
    server.stop()


@contextmanager
def served(folder: Path, policy: str = "[clients.default]", **options: Any) -> Iterator[RunningProxy]:
    (folder / "policy.toml").write_text(f"version = 1\n{policy}")
    with with_key_in_memory(folder, policy=folder / "policy.toml", **options) as proxy:
        yield proxy


def freeze(proxy: RunningProxy) -> None:
    assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0


def to_read_only(proxy: RunningProxy) -> None:
    (proxy.folder / "policy.toml").write_text("version = 1\n[clients.default]\nread_only = true")
    proxy.reload()
    proxy.wait_for_words("was reloaded")


STOPS = {"freeze": (freeze, 403, "frozen"), "reload": (to_read_only, 403, "policy")}


def answer_to(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())["error"]


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", "Content-Length: 2\r\n\r\n{"])
@pytest.mark.parametrize("how", STOPS)
def test_a_body_that_comes_late_is_judged_late(tmp_path: Path, kalshi: Kalshi, framing: str, how: str) -> None:
    stop, status, _ = STOPS[how]
    with served(tmp_path) as proxy, proxy.connect() as connection:
        connection.sendall(f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\n{framing}".encode())
        stop(proxy)
        connection.sendall(b"1\r\n}\r\n0\r\n\r\n" if "chunked" in framing else b"}")
        assert answer_to(connection)[0] == status
        assert kalshi.heads == []


@pytest.mark.parametrize(
    ("header", "size", "status"),
    [("Content-Type: text/plain", 0, 403), ("Content-Encoding: gzip", 0, 403), ("X: y", 40_000, 413), ("X: y", 0, 204)],
)
def test_a_body_is_judged_by_a_policy_that_changes_while_it_arrives(
    tmp_path: Path, kalshi: Kalshi, header: str, size: int, status: int
) -> None:
    """It is JSON as it stands, of 32 KiB at most: Kalshi must not read another order in it than was judged."""
    body = json.dumps(order_body()) + size * " "
    kalshi.may_answer.set()
    with served(tmp_path) as proxy, proxy.connect() as connection:
        head = f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # the head was looked at
        (proxy.folder / "policy.toml").write_text("version = 1\n[clients.default]\nmax_order_dollars = 50")
        proxy.reload()
        proxy.wait_for_words("was reloaded")
        connection.sendall(body.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, len(kalshi.heads)) == (status, int(status == 204))


@pytest.mark.parametrize("how", STOPS)
def test_a_request_on_its_way_is_given_up_and_may_have_gone_out(tmp_path: Path, kalshi: Kalshi, how: str) -> None:
    with served(tmp_path) as proxy, proxy.connect() as connection:
        connection.sendall(f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert kalshi.arrived.acquire(timeout=20)
        STOPS[how][0](proxy)
        status, error = answer_to(connection)
        assert (status, error["code"]) == (502, "outcome_unknown")
        assert "Kalshi may have done the work" in error["message"]


@pytest.mark.parametrize("how", STOPS)
def test_a_websocket_is_closed(tmp_path: Path, kalshi: Kalshi, how: str) -> None:
    with served(tmp_path) as proxy, proxy.connect() as connection:
        connection.sendall(f"GET {WS} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
        assert kalshi.arrived.acquire(timeout=20)
        assert connection.recv(12) == b"HTTP/1.1 101"
        STOPS[how][0](proxy)
        rest = b"".join(iter(lambda: connection.recv(4096), b""))
        assert rest.endswith(b"\r\n\r\n\x88\x02\x03\xe9")  # 1001


def test_a_reload_that_changes_nothing_for_a_client_stops_nothing_of_it(tmp_path: Path, kalshi: Kalshi) -> None:
    with served(tmp_path) as proxy, proxy.connect() as connection:
        connection.sendall(f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert kalshi.arrived.acquire(timeout=20)
        (tmp_path / "policy.toml").write_text("version = 1\n[clients.default]\n[clients.other]\nread_only = true")
        proxy.reload()
        proxy.wait_for_words("was reloaded")
        kalshi.may_answer.set()
        assert connection.recv(12) == b"HTTP/1.1 204"


def test_a_token_that_is_revoked_ends_what_its_client_has_open(tmp_path: Path, kalshi: Kalshi) -> None:
    tokens = tmp_path / "clients"
    tokens.mkdir()
    (tokens / "maker").touch(mode=0o600)
    (tokens / "maker").write_text(TOKEN)
    (tokens / "other").touch(mode=0o600)
    (tokens / "other").write_text(TOKEN[::-1])
    with (
        served(tmp_path, "[clients.maker]\n[clients.other]", listen="127.0.0.1:0", clients=tokens) as proxy,
        closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=20)) as connection,
        closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=20)) as others,
    ):
        for each, token in ((connection, TOKEN), (others, TOKEN[::-1])):
            head = (
                f"GET {WS} HTTP/1.1\r\nHost: 127.0.0.1:{proxy.port}\r\nAuthorization: Bearer {token}\r\n{UPGRADE}\r\n"
            )
            each.sendall(head.encode())
            assert kalshi.arrived.acquire(timeout=20)
            assert head_of(each).startswith(b"HTTP/1.1 101")
        (tokens / "maker").unlink()
        assert b"".join(iter(lambda: connection.recv(4096), b"")).endswith(b"\x88\x02\x03\xe9")
        others.sendall(b"to Kalshi")  # it is open: nothing comes back of it
        kalshi.may_answer.set()
        assert b"\x88" not in b"".join(iter(lambda: others.recv(4096), b""))


def test_a_body_beyond_the_limit_is_refused(tmp_path: Path, kalshi: Kalshi) -> None:
    with served(tmp_path) as proxy:
        assert proxy.request("POST", ORDERS, b" " * (256 * 1024 + 1))[0] == 413
        assert kalshi.heads == []


def test_one_client_has_a_share_of_what_is_under_way() -> None:
    running = RunningRequests()
    with ExitStack() as stack:
        for _ in range(MOST_AT_ONCE):
            stack.enter_context(running.counted(Caller("hog")))
        with pytest.raises(Refused, match="256 requests under way"), running.counted(Caller("hog")):
            pass
        with running.counted(Caller("other")):
            pass
    with running.counted(Caller("hog")):
        pass


def test_half_sent_requests_of_one_client_reset_none_of_another(tmp_path: Path, sandbox: SandboxServer) -> None:
    tokens = tmp_path / "clients"
    tokens.mkdir()
    for name, token in (("maker", TOKEN), ("reader", TOKEN[::-1])):
        (tokens / name).touch(mode=0o600)
        (tokens / name).write_text(token)
    policy = "[clients.maker]\n[clients.reader]\nread_only = true"
    with served(tmp_path, policy, listen="127.0.0.1:0", clients=tokens, files=600) as proxy, ExitStack() as stack:

        def ask(connection: http.client.HTTPConnection) -> int:
            connection.request("GET", BALANCE, headers={"Authorization": f"Bearer {TOKEN}"})
            with connection.getresponse() as answer:
                answer.read()
                return answer.status

        maker = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)))
        assert ask(maker) == 200
        assert maker.sock is not None
        port = maker.sock.getsockname()[1]
        for _ in range(420):
            half = stack.enter_context(closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=20)))
            half.sendall(f"GET {BALANCE} HTTP/1.1\r\nHost: 127.0.0.1:{proxy.port}\r\nX".encode())
        for _ in range(20):
            assert ask(maker) == 200
            assert maker.sock.getsockname()[1] == port  # it is the same connection all along
    assert sum(seen.path == BALANCE for seen in sandbox.requests) == 21
