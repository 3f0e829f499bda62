"""Clients that want to stall the proxy, to outlive a freeze, or to be somebody else; and a Kalshi that is slow."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import aiohttp
import pytest

from hsm_keys.errors import UsageError
from hsm_keys.proxy.access import Caller, Refused, TokenFolder, local_caller
from hsm_keys.proxy.handler import Handler
from hsm_keys.proxy.judge import Judge, Verdict
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.replies import Reply
from hsm_keys.proxy.running import RunningRequests
from hsm_keys.proxy.signing import FrozenError, ProxySigner
from hsm_keys.proxy.upstream import Upstream
from hsm_keys.signing.signer import RequestSigner
from tests.proxy.test_bytes import Kalshi
from tests.support.cli import run_cli
from tests.support.client_requests import client_request
from tests.support.judging import ORDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hsm_keys.proxy.client_requests import ClientRequest
    from hsm_keys.proxy.signing import RequestSigning
    from hsm_keys.sandbox import SandboxServer
    from tests.support.running_proxy import RunningProxy

pytestmark = pytest.mark.program

BALANCE = "/trade-api/v2/portfolio/balance"
TOKEN = "t" * 40


def test_whoever_holds_all_connections_keeps_no_freeze_away(
    start: Callable[..., RunningProxy], sandbox: SandboxServer
) -> None:
    proxy = start(files=256)
    held = []
    try:
        for _ in range(400):
            held.append(proxy.connect())
            with suppress(OSError):  # closed for a newer one
                held[-1].sendall(b"GET / HTTP/1.1\r\nX: ")
        assert proxy.request("GET", BALANCE)[0] == 200
        assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
        assert proxy.request("GET", BALANCE)[0] == 403
    finally:
        for connection in held:
            connection.close()
    assert not any("out of system resource" in line for line in proxy.said)


class StubbornKey:
    """A key whose token doesn't answer until it is let go."""

    name = "prod"
    api_key_id = "id"

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked = threading.Event()

    def sign(self, message: bytes) -> bytes:
        self.asked.set()
        assert self.let_go.wait(20)
        return b"signature"


def test_a_freeze_does_not_wait_for_the_token() -> None:
    key = StubbornKey()
    judge = Judge()
    signs = ProxySigner(RequestSigner(key), judge, Metrics(), ahead=2)
    ahead = signs._ahead
    assert ahead is not None
    ahead.add("GET", BALANCE)
    assert key.asked.wait(20)
    judge.frozen = True
    signs.freeze()  # the event loop does this: if it waited, nothing else would be denied meanwhile
    assert not key.let_go.is_set()
    key.let_go.set()
    signs.close()


def signing_with(sign: Callable[[], Any]) -> RequestSigning:
    return cast("RequestSigning", SimpleNamespace(headers=sign, is_worth_another=mock.AsyncMock(return_value=False)))


@pytest.fixture
def slow_to_connect(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Set when Kalshi is being connected to; and what that waits for."""
    begun, opened = asyncio.Event(), asyncio.Event()
    original = aiohttp.TCPConnector._create_connection

    async def create(*given: Any) -> Any:
        begun.set()
        await opened.wait()
        return await original(*given)

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", create)
    return begun, opened


@pytest.mark.parametrize("frozen", [False, True])
def test_a_request_is_signed_when_it_can_be_sent(
    slow_to_connect: tuple[asyncio.Event, asyncio.Event], frozen: bool
) -> None:
    """However long a connection takes, the timestamp is fresh; and what was frozen meanwhile isn't sent."""
    begun, opened = slow_to_connect
    kalshi = Kalshi()
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    signed: list[float] = []

    async def sign() -> dict[str, str]:
        if frozen:
            raise FrozenError("signing is frozen")
        signed.append(time.monotonic())
        return {"KALSHI-ACCESS-KEY": "id"}

    async def run() -> None:
        async with Upstream(kalshi.base_url, Metrics()) as upstream:
            asked = asyncio.create_task(upstream.forward(client_request("GET", BALANCE), None, signing_with(sign)))
            await begun.wait()
            await asyncio.sleep(0)
            assert signed == []
            opened_at = time.monotonic()
            opened.set()
            if frozen:
                with pytest.raises(FrozenError):
                    await asked
                assert kalshi.asked == []
            else:
                assert (await asked).status == 204
                assert signed[0] >= opened_at
                assert b"KALSHI-ACCESS-KEY: id" in kalshi.asked[0]

    try:
        asyncio.run(asyncio.wait_for(run(), 20))
    finally:
        kalshi.close()


def test_a_kalshi_that_hangs() -> None:
    async def sign() -> dict[str, str]:
        return {"KALSHI-ACCESS-KEY": "id"}

    async def run(address: str) -> int:
        async with Upstream(address, Metrics(), read_s=0.2) as upstream:
            return (await upstream.forward(client_request("POST", ORDERS), b"{}", signing_with(sign))).status

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/trade-api/v2"
        assert asyncio.run(asyncio.wait_for(run(address), 20)) == 504


class Lines(list[dict[str, Any]]):
    """An audit trail in memory."""

    def append(self, kind: str, **members: Any) -> int:  # type: ignore[override]
        return self.append_lines([(kind, members)])

    def append_lines(self, lines: Iterable[tuple[str, dict[str, Any]]]) -> int:
        self.extend({"kind": kind, **members} for kind, members in lines)
        return len(self)


class SigningOnly:
    """In place of Kalshi's side."""

    async def forward(self, request: ClientRequest, body: object, signing: RequestSigning, _hear: object) -> Reply:
        await signing.headers()
        return Reply(204)


def proxy_before(lines: Lines, signs: object, judge: Judge | None = None) -> Handler:
    given = (judge or Judge(), signs, SigningOnly(), RunningRequests())
    parts = {"order_sent": lambda: None, "trail": lines, "metrics": Metrics()}
    return Handler(lambda request: Caller("bot"), *cast("Any", given), **cast("Any", parts))


def test_nothing_is_signed_for_a_client_that_has_gone() -> None:
    """It waited for a slow token, say, and asks again: its order must not be sent twice."""
    lines = Lines()
    signer = mock.Mock()
    request = client_request("GET", BALANCE, transport=None)
    signs = ProxySigner(signer, Judge(), Metrics())
    asyncio.run(proxy_before(lines, signs).answer(request))
    assert signer.mock_calls == []
    assert [line.get("status") for line in lines] == [None, 499]


def test_long_bodies_leave_turns_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judging one takes milliseconds: a hundred at once must not keep a freeze away for as long as they all take."""
    rounds = 0
    judged_in: list[int] = []
    judge = Judge(parse_policy("version = 1\n[clients.bot]\nmax_count = 5"))
    monkeypatch.setattr(Handler, "_body", mock.AsyncMock(return_value=b" " * 30_000))

    def judge_now(*given: object, **more: object) -> Verdict:
        judged_in.append(rounds)
        return Verdict(allowed=False, rule="body")

    monkeypatch.setattr(Judge, "judge", judge_now)

    async def run() -> None:
        nonlocal rounds
        proxy = proxy_before(Lines(), mock.Mock(), judge)
        asked = asyncio.gather(*(proxy.answer(client_request("POST", ORDERS)) for _ in range(20)))
        while not asked.done():
            rounds += 1
            await asyncio.sleep(0)

    asyncio.run(run())
    assert len(set(judged_in)) == len(judged_in) == 20


def test_a_defect_is_answered_and_written_down(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines()
    answer = proxy_before(lines, mock.Mock()).refuse_unanswered(
        client_request("GET", BALANCE), 500, RuntimeError("of this program")
    )
    assert (answer.status, lines[0]["verdict"], lines[0]["rule"]) == (500, "denied", "defect")
    assert "of this program" not in str(answer.body)
    assert "RuntimeError" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_refused_and_written_down(start: Callable[..., RunningProxy], sandbox: SandboxServer) -> None:
    """Where the socket lets others knock: by ``--allow-uid`` for somebody else, say."""
    proxy = start()
    proxy.socket.chmod(0o666)
    proxy.socket.parent.chmod(0o755)
    request = f"GET {BALANCE} HTTP/1.1\r\nHost: x\r\n\r\n"
    ask = "import os, socket; os.setuid(4321); s = socket.socket(socket.AF_UNIX); s.connect('prod.sock')"
    done = subprocess.run(
        [sys.executable, "-c", f"{ask}; s.sendall({request.encode()!r}); print(s.recv(12))"],
        cwd=proxy.socket.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "HTTP/1.1 403" in done.stdout, done.stderr
    assert not any(seen.path == BALANCE for seen in sandbox.requests)
    proxy.stop()
    (line,) = [line for line in proxy.lines() if line["kind"] == "decision"]
    assert (line["verdict"], line["rule"], line["status"]) == ("denied", "uid", 403)


def test_a_client_that_has_gone_is_nobody() -> None:
    with pytest.raises(Refused):
        local_caller(None, frozenset({os.getuid()}), str)


def given_token(folder: Path, client: str, token: str = TOKEN, mode: int = 0o600) -> Path:
    path = folder / client
    path.touch(mode=0o600)
    path.write_text(token)
    path.chmod(mode)
    return path


@pytest.fixture
def clients(tmp_path: Path) -> Path:
    folder = tmp_path / "clients"
    folder.mkdir(mode=0o700)
    given_token(folder, "maker")
    return folder


def is_maker(tokens: TokenFolder) -> bool:
    tokens._looked_at = float("-inf")
    try:
        return tokens.caller({"Authorization": f"Bearer {TOKEN}"}).client == "maker"
    except Refused:
        return False


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660])
def test_tokens_that_others_can_read(clients: Path, mode: int) -> None:
    tokens = TokenFolder(clients)
    assert is_maker(tokens)
    (clients / "maker").chmod(mode)
    assert not is_maker(tokens)
    with pytest.raises(UsageError, match="0600"):
        TokenFolder(clients)


def test_a_folder_that_others_can_write_to(clients: Path) -> None:
    """They could give one client's file the name of another."""
    tokens = TokenFolder(clients)
    clients.chmod(0o777)
    assert not is_maker(tokens)
    with pytest.raises(UsageError, match="others can write"):
        TokenFolder(clients)
    clients.chmod(0o755)
    assert is_maker(tokens)


def test_tokens_that_are_not_files_of_their_own(clients: Path, tmp_path: Path) -> None:
    for spoil, says in (
        (lambda path: path.symlink_to(given_token(tmp_path, "elsewhere", "u" * 40)), "0600"),
        (lambda path: os.mkfifo(path, 0o600), "0600"),
        (lambda path: path.mkdir(mode=0o700), "0600"),
        (lambda path: given_token(clients, path.name), "another client"),
        (lambda path: given_token(clients, path.name, "short"), "letters and digits"),
        (lambda path: given_token(clients, path.name, "u" * 300), "letters and digits"),
    ):
        path = clients / "second"
        spoil(path)
        with pytest.raises(UsageError, match=says):
            TokenFolder(clients)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    given_token(clients, "maker~", "v" * 40)  # an editor's copy outlives the token that is revoked
    with pytest.raises(UsageError, match="no name for a client"):
        TokenFolder(clients)


def test_tokens_while_it_runs(clients: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = TokenFolder(clients)
    away = clients.rename(clients.with_name("away"))
    assert not is_maker(tokens)
    assert not is_maker(tokens)
    assert caplog.text.count("a client's token can't be used") == 1
    away.rename(clients)
    assert is_maker(tokens)
    (clients / "maker").unlink()
    assert not is_maker(tokens)


def test_an_order_is_read_before_it_is_signed(start: Callable[..., RunningProxy], sandbox: SandboxServer) -> None:
    """A client that says half of it and dies, or waits, leaves nothing signed that grows old."""
    proxy = start()
    with proxy.connect() as connection:
        connection.sendall(f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{{".encode())
    with proxy.connect() as connection:
        connection.sendall(f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    assert proxy.request("GET", BALANCE)[0] == 200
    proxy.stop()
    assert not any(seen.path == ORDERS for seen in sandbox.requests)
    decisions = [line for line in proxy.lines() if line["kind"] == "decision"]
    assert sorted(line["status"] or 200 for line in decisions) == [200, 400, 400]
