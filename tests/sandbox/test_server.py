"""Starting, stopping, starting again; what is kept, and what is never shown."""

from __future__ import annotations

import gc
import json
import logging
import socket
import subprocess
import sys
import threading
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hsm_keys.errors import NetworkError, UsageError
from hsm_keys.sandbox import SandboxServer, api_keys, parse_fault
from tests.sandbox.client import API_KEYS, BALANCE, Caller, headers_for, now_ms, port_of, send, ws_port_of

GENERATE = f"{API_KEYS}/generate"


def test_urls_name_loopback_and_the_port() -> None:
    with SandboxServer(key_type="ed25519") as server:
        port = port_of(server)
        assert port > 0
        assert server.base_url == f"http://127.0.0.1:{port}/trade-api/v2"
        assert ws_port_of(server) not in {0, port}
        assert server.ws_url == f"ws://127.0.0.1:{ws_port_of(server)}/trade-api/ws/v2"


def test_it_listens_on_loopback_alone() -> None:
    with SandboxServer(key_type="ed25519") as server, socket.socket() as probe:
        # Another loopback address can still be bound at the same port: the sandbox holds 127.0.0.1, not 0.0.0.0.
        probe.bind(("127.0.0.2", port_of(server)))


def test_stopped_it_refuses_connections_and_leaves_no_threads() -> None:
    before = set(threading.enumerate())
    with SandboxServer(key_type="ed25519") as server:
        assert Caller.bootstrap(server).call("POST", GENERATE, {"name": "n"}).status == 201  # on a worker thread
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        send(server, "GET", BALANCE, {})
    server.stop()  # again is harmless
    gc.collect()  # what was left open would warn now


def test_started_again_it_has_the_same_port_keys_orders_and_faults() -> None:
    server = SandboxServer(key_type="ed25519")
    with server:
        boss, added = Caller.bootstrap(server), Caller.added(server)
        url = server.base_url
        server.faults.add(parse_fault("DELETE /api_keys/{api_key}:status=500"))
    for _ in range(3):
        with server, socket.create_connection(("127.0.0.1", port_of(server))) as left_open:
            # Ended by the server's side, this connection keeps the port in TIME_WAIT.
            left_open.sendall(f"GET {BALANCE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert left_open.recv(65_536).endswith(b"}")  # all of it: what is left unread would end in a reset
            assert server.base_url == url
            assert boss.call("GET", BALANCE).status == added.call("GET", BALANCE).status == 200
            assert boss.call("DELETE", f"{API_KEYS}/{added.api_key_id}").status == 500
            server.stop()
    assert len(server.requests) == 12


def test_a_request_that_waits_does_not_hold_up_a_stop() -> None:
    with SandboxServer(key_type="ed25519") as server:
        server.faults.add(parse_fault("POST /api_keys/generate:latency=60000"))
        boss = Caller.bootstrap(server)
        failures: list[BaseException] = []

        def wait() -> None:
            try:
                boss.call("POST", GENERATE, {"name": "n", "key_type": "ed25519"})
            except ConnectionError as error:
                failures.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not server.requests:
            threading.Event().wait(0.01)
    waiting.join(20)
    assert len(failures) == 1
    assert list(server.state.keys) == [server.bootstrap_key_id]  # and its work was not done


def test_a_port_in_use_is_said_in_the_caller() -> None:
    before = set(threading.enumerate())
    with SandboxServer(key_type="ed25519") as first:
        second = SandboxServer(key_type="ed25519", port=port_of(first))
        with pytest.raises(UsageError, match=f"port {port_of(first)} .* can't be had") as caught:
            second.start()
        assert "--port" in caught.value.hint
        with pytest.raises(UsageError, match="runs already"):
            first.start()
        assert Caller.bootstrap(first).call("GET", BALANCE).status == 200
    assert set(threading.enumerate()) == before
    with second:
        assert Caller.bootstrap(second).call("GET", BALANCE).status == 200


def test_a_server_that_fails_on_its_thread_says_so_in_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: object) -> None:
        raise OSError("too many open files")

    before = set(threading.enumerate())
    with monkeypatch.context() as patch:
        patch.setattr("aiohttp.web.AppRunner.setup", fail)
        server = SandboxServer(key_type="ed25519")
        with pytest.raises(NetworkError, match="too many open files"):
            server.start()
    assert set(threading.enumerate()) == before
    with server:  # nothing is left of the attempt
        assert Caller.bootstrap(server).call("GET", BALANCE).status == 200


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tier": "gold"}, "basic or premier"),
        ({"key_type": "dsa"}, "rsa or ed25519"),
        ({"port": 65536}, "1 to 65535"),
        ({"port": -1}, "1 to 65535"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        SandboxServer(**arguments)


def test_without_a_port_it_has_no_url() -> None:
    with pytest.raises(UsageError, match="before it is started"):
        assert SandboxServer(key_type="ed25519").base_url


def test_without_aiohttp_it_says_which_extra_to_install() -> None:
    script = """
import sys
sys.modules["aiohttp"] = None
from hsm_keys.errors import UsageError
from hsm_keys.sandbox import SandboxServer, run_forever
try:
    SandboxServer(key_type="ed25519").start()
except UsageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "hsm-keys[sandbox]" in done.stdout


def test_the_room_loads_without_aiohttp() -> None:
    script = "import sys, hsm_keys.sandbox; print([m for m in sys.modules if m.startswith(('aiohttp', 'hsm_keys.'))])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = eval(done.stdout)  # noqa: S307 - a list of strings that the line above printed
    assert "aiohttp" not in loaded
    ours = {name for name in loaded if not name.startswith("hsm_keys.sandbox")}
    judged = tuple(f"hsm_keys.{package}" for package in ("signing", "stores", "inspecting", "lifecycle"))
    assert not {name for name in ours if name.startswith(judged)}
    assert {name for name in ours if name.startswith("hsm_keys.kalshi.")} == {"hsm_keys.kalshi.operations"}


@pytest.mark.parametrize("target", [BALANCE, f"{BALANCE}/x", API_KEYS])
def test_the_date_header_follows_the_sandbox_clock(target: str) -> None:
    noon = 1_795_000_000_999
    with SandboxServer(key_type="ed25519", clock_ms=lambda: noon) as server:
        for headers in ({}, Caller.bootstrap(server).headers("GET", target, timestamp=noon)):
            reply = send(server, "GET", target, headers)
            assert parsedate_to_datetime(reply.headers["Date"]).timestamp() == noon // 1000


def test_the_date_header_is_the_real_time_by_default() -> None:
    with SandboxServer(key_type="ed25519") as server:
        date = send(server, "GET", BALANCE, {}).headers["Date"]
        assert abs(parsedate_to_datetime(date).timestamp() - now_ms() / 1000) < 3


def test_a_clock_that_moves_is_followed() -> None:
    times = [now_ms()]
    with SandboxServer(key_type="ed25519", clock_ms=lambda: times[-1]) as server:
        boss = Caller.bootstrap(server)
        headers = boss.headers("GET", BALANCE, timestamp=times[0])
        assert send(server, "GET", BALANCE, headers).status == 200
        times.append(times[0] + 5_001)
        assert send(server, "GET", BALANCE, headers).error["code"] == "header_timestamp_expired"


def test_a_defect_is_a_500_in_kalshis_shape_and_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(api_keys, "parse_public_key", fail)
    with SandboxServer(key_type="ed25519") as server:
        reply = Caller.bootstrap(server).call("POST", API_KEYS, {"name": "n", "public_key": "x"})
        assert (reply.status, set(reply.error)) == (500, {"code", "message", "service"})
    assert "POST /api_keys failed" in caplog.text
    assert "broken" in caplog.text


def raw(server: SandboxServer, data: bytes, *, hang_up: bool = False) -> bytes:
    """Send bytes and read to the end of the connection; ``hang_up`` ends this side of it first."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=20) as connection:
        connection.sendall(data)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read()


POST = b"POST /trade-api/v2/api_keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("data", "hang_up"),
    [
        (b"hello\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nKALSHI-ACCESS-SIGNATURE\x01: x\r\n\r\n", False),
        (POST + b"Content-Length: 100\r\n\r\n{", True),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", False),
        (POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", False),
        (b"GET /trade-api/v2/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
    ],
)
def test_broken_requests_do_no_harm_and_leave_no_noise(
    data: bytes, hang_up: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with SandboxServer(key_type="ed25519") as server:
        answer = raw(server, data, hang_up=hang_up)
        assert (hang_up and not answer) or answer.split()[1][:1] == b"4"
        assert Caller.bootstrap(server).call("GET", BALANCE).status == 200
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def private_pem_of(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_no_signature_and_no_private_key_is_recorded_logged_or_shown(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = Ed25519PrivateKey.generate()
    pasted_by_mistake = private_pem_of(canary)
    secrets = [pasted_by_mistake.splitlines()[1]]
    with SandboxServer(key_type="ed25519") as server:
        boss = Caller.bootstrap(server)
        secrets += [server.bootstrap_pem.splitlines()[1]]
        handed_out = boss.call("POST", GENERATE, {"name": "n"}).json["private_key"]
        secrets += handed_out.splitlines()[1:-1]
        answers = [boss.call("POST", API_KEYS, {"name": "n", "public_key": pasted_by_mistake}).body]
        good = boss.headers("GET", BALANCE)
        signature = good["KALSHI-ACCESS-SIGNATURE"]
        secrets += [signature, signature[1:-2]]
        one_line = pasted_by_mistake.replace("\n", "")
        wrong_places = [
            good,
            headers_for(signature, good["KALSHI-ACCESS-TIMESTAMP"], good["KALSHI-ACCESS-KEY"]),
            headers_for(good["KALSHI-ACCESS-KEY"], signature, "x"),
            headers_for(one_line, one_line, one_line),
        ]
        answers += [send(server, "GET", BALANCE, headers).body for headers in wrong_places]
        # What can't be parsed is quoted to its sender, and to nobody else.
        assert raw(server, b"GET / HTTP/1.1\r\nHost: x\r\nSIG\x01: " + signature.encode() + b"\r\n\r\n")
        seen = send(server, "GET", "/_sandbox/requests", {}).body.decode()
        shown = [
            repr(server),
            repr(server.state),
            repr(server.state.keys),
            repr(server.requests),
            json.dumps([request.as_json() for request in server.requests]),
            seen,
            caplog.text,
            *(answer.decode() for answer in answers),
            *capfd.readouterr(),
        ]
    assert len(server.requests) >= 6
    for secret in secrets:
        assert not any(secret in text for text in shown), secret[:6]
