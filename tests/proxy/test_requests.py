"""The proxy over the wire: what reaches Kalshi, what doesn't, and what is written down."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from hsm_keys.errors import UsageError
from hsm_keys.proxy.options import Options, check_options
from hsm_keys.proxy.verifying import verify
from hsm_keys.sandbox.faults import parse_fault
from tests.support.certificates import self_signed
from tests.support.cli import run_cli, run_json
from tests.support.judging import ORDER, ORDERS, V2
from tests.support.ports import free_port
from tests.support.running_proxy import asks_for_itself

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox import RecordedRequest, SandboxServer
    from tests.support.running_proxy import RunningProxy

    Start = Callable[..., RunningProxy]

pytestmark = pytest.mark.program

BALANCE = f"{V2}/portfolio/balance"


def reached(sandbox: SandboxServer) -> list[RecordedRequest]:
    """What reached Kalshi, without what the proxy asks for itself."""
    return [seen for seen in sandbox.requests if not asks_for_itself(f"{seen.method} {seen.path} ".encode())]


def test_requests_are_signed_and_forwarded(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    assert proxy.request("GET", BALANCE + "?subaccount=0")[0] == 200
    status, made = proxy.request("POST", ORDERS, json.dumps(ORDER), {"Content-Type": "application/json"})
    assert status == 201, made
    order_id = made["order_id"]
    assert proxy.request("DELETE", f"{ORDERS}/{order_id}")[0] == 200
    seen = reached(sandbox)
    assert [(one.method, one.path, one.query, one.verified) for one in seen] == [
        ("GET", BALANCE, "subaccount=0", True),
        ("POST", ORDERS, "", True),
        ("DELETE", f"{ORDERS}/{order_id}", "", True),
    ]
    proxy.stop()
    lines = proxy.lines()
    decisions = [line for line in lines if line["kind"] == "decision"]
    outcomes = {line["of"]: line for line in lines if line["kind"] == "outcome"}
    assert [(line["verdict"], line["uid"], line["pid"]) for line in decisions] == [
        ("allowed", os.getuid(), os.getpid())
    ] * 3
    assert [outcomes[line["seq"]]["status"] for line in decisions] == [200, 201, 200]
    report = verify(proxy.audit)
    assert (report.findings, report.closed) == ([], True)
    trail = proxy.trail()
    assert "KXTEST-1" not in trail
    assert "subaccount=0" not in trail


def test_a_clients_own_authentication_ends_at_the_proxy(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    own = {"kalshi-access-key": "bot", "KALSHI-ACCESS-SIGNATURE": "AAAA", "KALSHI-ACCESS-TIMESTAMP": "1"}
    assert proxy.request("GET", BALANCE, headers={**own, "Authorization": "Bearer x", "Cookie": "a=b"})[0] == 200
    assert reached(sandbox)[0].api_key_id == sandbox.bootstrap_key_id


DENIED = [
    f"{V2}/api_keys",
    f"{V2}/API_KEYS",
    f"{V2}/api_keys?x=1",
    f"{V2}/api_keys/",
    f"{V2}//api_keys",
    f"{V2}/./api_keys",
    f"{V2}/portfolio/../api_keys",
    f"{V2}/portfolio/%2e%2e/api_keys",
    f"{V2}/portfolio%2F..%2Fapi_keys",
    f"{V2}/portfolio/..%2Fapi_keys",
    f"{V2}/%61pi_keys",
    f"{V2}/api%5Fkeys",
    f"{V2}/api%255Fkeys",
    f"{V2}/api_keys;x",
    f"{V2}/portfolio\\..\\api_keys",
    f"{V2}/portfolio/%5C..%5Capi_keys",
    "/portfolio/balance",
    "/",
    f"http://evil.example{BALANCE}",
    "*",
    f"{V2}/api_keys%00",
    f"{V2}/api_keys#x",
    f"{V2}/api_keys%3Fx",
    f"{V2}/api_keys%23",
    f"{V2}/api_keys%20",
    f"{V2}/api_%E2%84%AAeys",
    "/trade-api/v3/api_keys",
    f"{V2}/" + "a" * 9000,
]

SMUGGLED = [
    "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
    "Content-Length: 2\r\nContent-Length: 3\r\n",
    "Content-Length: +2\r\n",
    "Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n",
    "Transfer-Encoding : chunked\r\nContent-Length: 2\r\n",
    "Content-Length: 2\r\nX: a\rB: c\r\n",
    "X: " + "a" * 20_000 + "\r\n",
    "Content-Length: 2\r\n folded: yes\r\n",
]


def test_nothing_that_is_denied_is_signed(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    for target in DENIED:
        for method in ("GET", "POST"):
            request = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"
            assert proxy.raw(request.encode())[:3] in {b"400", b"403", b"404"}, target
            assert reached(sandbox) == [], target


def test_smuggled_requests_are_refused(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    for head in SMUGGLED:
        assert proxy.raw(f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\n{head}\r\n{{}}".encode())[:3] == b"400", head
        assert reached(sandbox) == [], head


def test_pages_in_browsers_are_refused(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    assert proxy.request("GET", BALANCE, headers={"Origin": "http://localhost"})[0] == 403
    assert proxy.request("OPTIONS", BALANCE)[0] == 403
    assert reached(sandbox) == []


def test_limits_of_money(start: Start, sandbox: SandboxServer) -> None:
    proxy = start("[clients.default]\nmax_count = 5\nmarkets = ['KXTEST-*']")
    assert proxy.request("POST", ORDERS, json.dumps({**ORDER, "count": "6"}))[1]["error"]["code"] == "max_count"
    assert proxy.request("POST", ORDERS, b" " * 33_000)[0] == 413
    assert reached(sandbox) == []
    assert proxy.request("POST", ORDERS, json.dumps(ORDER), {"Content-Type": "application/json"})[0] == 201


def test_freeze_and_thaw(start: Start, sandbox: SandboxServer) -> None:
    proxy = start(ahead=4)
    assert proxy.request("GET", BALANCE)[0] == 200
    assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
    assert proxy.request("GET", BALANCE)[1]["error"]["code"] == "frozen"
    proxy.stop()
    proxy = start()
    assert proxy.request("GET", BALANCE)[0] == 403
    status = run_json("proxy", "status", "--name", "prod", "--output", "json", **proxy.environment)
    assert (status["frozen"], status["denied"], status["not_ready"]) == (True, 1, "signing is frozen")
    assert run_json("proxy", "thaw", "--name", "prod", **proxy.environment) == {"frozen": False}
    assert proxy.request("GET", BALANCE)[0] == 200
    assert len(reached(sandbox)) == 2


def test_a_policy_is_reloaded_if_it_is_good(start: Start) -> None:
    proxy = start("[clients.default]\nread_only = true")
    path = proxy.folder / "policy.toml"
    for text, words, status in (
        ("version = 1\n[clients.default]\nreadonly = false", "wasn't reloaded", 403),
        ("version = 1\n[clients.default]", "was reloaded", 404),
    ):
        path.write_text(text)
        proxy.reload()
        deadline = time.monotonic() + 10
        while not any(words in line for line in proxy.said):
            assert time.monotonic() < deadline, proxy.said
            time.sleep(0.01)
        assert proxy.request("DELETE", f"{ORDERS}/00000000-0000-0000-0000-000000000000")[0] == status


def test_tokens_over_tcp(start: Start, sandbox: SandboxServer, tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    folder.mkdir()
    maker, reader = _token(folder, "maker"), _token(folder, "reader")
    proxy = start("[clients.maker]\n[clients.reader]\nread_only = true", listen="127.0.0.1:0", clients=folder)

    def ask(method: str, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as connection:
            connection.request(method, BALANCE, headers=named)
            answer = connection.getresponse()
            answer.read()
            return answer.status

    assert ask("GET") == 401
    assert ask("GET", Authorization="Bearer " + "x" * 40) == 401
    assert ask("GET", Authorization=f"Bearer {maker}", Host="evil.example") == 403
    assert reached(sandbox) == []
    assert ask("GET", Authorization=f"Bearer {maker}") == 200
    assert ask("GET", KALSHI_ACCESS_KEY=reader, KALSHI_ACCESS_SIGNATURE="of a throwaway key") == 200
    assert ask("POST", KALSHI_ACCESS_KEY=reader) == 403
    (folder / "maker").unlink()
    time.sleep(0.25)  # tokens are looked at five times a second
    assert ask("GET", Authorization=f"Bearer {maker}") == 401
    proxy.stop()
    trail = proxy.trail() + "".join(proxy.said)
    assert maker not in trail
    assert reader not in trail


def test_strangers_do_not_fill_the_trail(start: Start, sandbox: SandboxServer, tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    folder.mkdir()
    token = _token(folder, "maker")
    proxy = start(listen="127.0.0.1:0", clients=folder)
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as connection:

        def ask(**headers: str) -> int:
            connection.request("GET", BALANCE, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert {ask() for _ in range(200)} == {401}
        assert ask(Authorization=f"Bearer {token}") == 200
    proxy.stop()
    lines = proxy.lines()
    assert sum(line.get("status") == 401 for line in lines) == 120
    assert [line["count"] for line in lines if line["kind"] == "omitted"] == [80]
    assert [line["client"] for line in lines if line.get("verdict") == "allowed"] == ["maker"]
    assert len(reached(sandbox)) == 1
    assert verify(proxy.audit).findings == []


def test_tls(start: Start, sandbox: SandboxServer, tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    folder.mkdir()
    token = _token(folder, "maker")
    cert, key = self_signed(tmp_path)
    for options, says in (
        ({"listen": "0.0.0.0:0"}, "isn't loopback"),
        ({"listen": "0.0.0.0:0", "unsafe_listen": True}, "needs TLS"),
        ({"listen": "[::]:0", "tls": (cert, key)}, "isn't loopback"),
        ({"unsafe_listen": True, "tls": (cert, key)}, "need --listen"),
    ):
        with pytest.raises(UsageError, match=says):
            check_options(Options("prod", clients=folder, **options))
    proxy = start(listen="127.0.0.1:0", clients=folder, tls=[str(cert), str(key)])
    known = ssl.create_default_context(cafile=cert)
    bearer = {"Authorization": f"Bearer {token}"}
    with closing(http.client.HTTPSConnection("127.0.0.1", proxy.port, timeout=10, context=known)) as connection:
        connection.request("GET", BALANCE, headers=bearer)
        assert connection.getresponse().status == 200
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as plain:
        plain.request("GET", BALANCE, headers=bearer)
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.getresponse()
    assert len(reached(sandbox)) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ahead_rate": 10.0}, "needs --presign"),
        ({"ahead": 1, "ahead_rate": float("nan")}, "not possible"),
        ({"ahead": 1, "ahead_rate": float("inf")}, "not possible"),
    ],
)
def test_a_rate_of_signing_ahead_that_cannot_be_used(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_options(Options("prod", **options))


@pytest.mark.parametrize("options", [{"listen": "127.0.0.1:0"}, {"socket": Path("proxy.sock")}])
def test_a_place_beside_the_socket_of_systemd(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    with pytest.raises(UsageError, match="systemd gives the proxy a socket"):
        check_options(Options("prod", **options))


def test_a_websocket_is_signed_and_relayed(start: Start, sandbox: SandboxServer, tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    folder.mkdir()
    token = _token(folder, "maker")
    proxy = start(listen="127.0.0.1:0", clients=folder)
    url = f"ws://127.0.0.1:{proxy.port}/trade-api/ws/v2"
    with connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as session:
        session.send(json.dumps({"id": 1, "cmd": "subscribe", "params": {"channels": ["ticker"]}}))
        assert json.loads(session.recv(timeout=10))["type"] == "subscribed"
        assert session.ping().wait(10)
        sandbox.stop()
        with pytest.raises(ConnectionClosed):  # noqa: PT012 - the channel may have sent something before
            while True:
                session.recv(timeout=10)
    (handshake,) = reached(sandbox)
    assert (handshake.path, handshake.verified) == ("/trade-api/ws/v2", True)
    with pytest.raises(InvalidStatus):
        connect(url)


def test_an_answer_that_was_lost_is_not_asked_for_again(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    for method, template in (
        ("POST", "/portfolio/events/orders"),
        ("DELETE", "/portfolio/events/orders/{order_id}"),
        ("GET", "/portfolio/orders"),
    ):
        path = V2 + template.format(order_id="x")
        assert proxy.request("GET", BALANCE)[0] == 200  # a connection that is open already
        sandbox.faults.add(parse_fault(f"{method} {template}:drop-after:1"))
        before = len(reached(sandbox))
        status, answer = proxy.request(method, path, json.dumps(ORDER) if method == "POST" else None)
        assert (status, answer["error"]["code"]) == (502, "outcome_unknown")
        assert len(reached(sandbox)) == before + 1


def test_kalshi_away(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    sandbox.stop()
    status, answer = proxy.request("POST", ORDERS, b"{}")
    assert (status, answer["error"]["code"]) == (502, "network")


def test_no_room_for_the_trail_means_no_signature(start: Start, sandbox: SandboxServer) -> None:
    proxy = start(file_bytes=2500)
    answers = [proxy.request("GET", BALANCE) for _ in range(8)]
    assert answers[0][0] == 200
    assert answers[-1][0] == 503
    assert answers[-1][1]["error"]["code"] == "audit"
    assert len(reached(sandbox)) == sum(status == 200 for status, _ in answers)
    proxy.process.kill()
    proxy.process.wait()


def test_a_client_that_dies_half_way(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    with proxy.connect() as connection:
        connection.sendall(f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{{".encode())
    with proxy.connect() as connection:
        connection.sendall(f"POST {ORDERS} HTTP/1.1\r\nHo".encode())
    assert proxy.request("GET", BALANCE)[0] == 200
    assert sandbox.state.orders == {}


def test_a_thousand_idle_connections(proxy: RunningProxy) -> None:
    idle = [proxy.connect() for _ in range(1000)]
    try:
        assert proxy.request("GET", BALANCE)[0] == 200
    finally:
        for connection in idle:
            connection.close()


def test_health_and_metrics(start: Start) -> None:
    address = f"127.0.0.1:{free_port()}"
    proxy = start(metrics=address)

    def read(path: str) -> str:
        with urlopen(Request(f"http://{address}{path}"), timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    assert read("/healthz") == "ok\n"
    assert read("/readyz") == "ready\n"
    with pytest.raises(HTTPError, match="403"):  # a page in a browser, by DNS rebinding
        urlopen(Request(f"http://{address}/metrics", headers={"Host": "evil.example"}), timeout=10)
    proxy.request("GET", BALANCE)
    proxy.request("GET", f"{V2}/api_keys")
    text = read("/metrics")
    assert 'hsm_keys_proxy_verdicts_total{rule="allowed",verdict="allowed"} 1.0' in text
    assert 'hsm_keys_proxy_verdicts_total{rule="api_keys",verdict="denied"} 1.0' in text
    assert 'hsm_keys_proxy_upstream_seconds_count{status="200"} 1.0' in text


def test_a_second_proxy_for_a_name_is_refused(proxy: RunningProxy, start: Start) -> None:
    with pytest.raises(AssertionError, match="another proxy"):
        start()
    assert proxy.request("GET", BALANCE)[0] == 200


def test_check_explains(start: Start) -> None:
    proxy = start("[clients.maker]\nread_only = true\n[clients.default]\nmax_count = 5")
    policy = str(proxy.folder / "policy.toml")
    said = run_cli("proxy", "check", policy, "POST", ORDERS, "--client", "maker")
    assert (said.returncode, "read_only" in said.stdout) == (1, True)
    assert run_cli("proxy", "check", policy, "GET", ORDERS, "--client", "maker").returncode == 0
    assert run_cli("proxy", "check", policy, "POST", ORDERS).returncode == 2
    assert run_cli("proxy", "check", policy, "POST", f"{ORDERS}/x/decrease").returncode == 0
    order = json.dumps({**ORDER, "count": "9"})
    said = run_cli("proxy", "check", policy, "POST", ORDERS, "--body", order)
    assert "max_count" in said.stdout
    said = run_cli("proxy", "check", policy, "GET", ORDERS, "--client", "maker")
    assert said.stdout == "allowed: nothing denies it\n"
    for method, path, client, code in (
        ("GET", ORDERS, "maker", 0),
        ("POST", ORDERS, "maker", 1),
        ("DELETE", f"{ORDERS}/x", "default", 0),
        ("GET", f"{BALANCE}?subaccount=0", "default", 0),
        ("GET", f"{V2}/api_keys", "default", 1),
    ):
        whole = run_cli("proxy", "check", policy, method, path, "--client", client)
        short = run_cli("proxy", "check", policy, method, path.removeprefix(V2), "--client", client)
        assert (whole.returncode, whole.stdout) == (short.returncode, short.stdout), path
        assert whole.returncode == code, path
    said = run_cli("proxy", "check", policy, "GET", "portfolio/balance")  # as neither the wire nor a rule has it
    assert (said.returncode, said.stdout) == (2, "")
    assert run_cli("audit", "verify", str(proxy.audit)).returncode == 0


def _token(folder: Path, client: str) -> str:
    token = client + "0" * 40
    (folder / client).touch(mode=0o600)
    (folder / client).write_text(token + "\n")
    return token
