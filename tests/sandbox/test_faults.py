"""Faults over real connections: what goes wrong, whether the work was done, and for whom."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect

from hsm_keys.sandbox import Fault, FaultKind, SandboxServer, parse_fault
from tests.sandbox.client import API_KEYS, BALANCE, EVENT_ORDERS, ORDERS, PREFIX, Caller, Reply, port_of, send

GENERATE = ("POST", f"{API_KEYS}/generate", {"name": "made", "key_type": "ed25519"})


def made(server: SandboxServer) -> int:
    return sum(key.name == "made" for key in server.state.keys.values())


def switch_on(server: SandboxServer, *specs: str) -> None:
    for spec in specs:
        server.faults.add(parse_fault(spec))


def test_drop_before_ends_the_connection_and_does_nothing(boss: Caller) -> None:
    boss.server.faults.add(Fault("POST /api_keys/generate", FaultKind.DROP_BEFORE, times=1))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        boss.call(*GENERATE)
    assert made(boss.server) == 0
    seen = boss.server.requests[-1]
    assert (seen.verified, seen.fault, seen.status) == (True, "drop-before", None)
    assert boss.call(*GENERATE).status == 201


def test_drop_after_ends_the_connection_and_the_work_is_done(boss: Caller) -> None:
    boss.server.faults.add(Fault("POST /api_keys/generate", FaultKind.DROP_AFTER, times=1))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        boss.call(*GENERATE)
    assert made(boss.server) == 1
    seen = boss.server.requests[-1]
    assert (seen.verified, seen.fault, seen.status) == (True, "drop-after", None)


def test_drop_after_loses_the_answer_to_a_deletion_too(boss: Caller) -> None:
    doomed = Caller.added(boss.server)
    switch_on(boss.server, "DELETE /api_keys/{api_key}:drop-after:1")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        boss.call("DELETE", f"{API_KEYS}/{doomed.api_key_id}")
    assert doomed.api_key_id not in boss.server.state.keys


def test_truncate_sends_a_201_and_half_a_body(boss: Caller) -> None:
    switch_on(boss.server, "POST /api_keys/generate:truncate:1")
    with pytest.raises(http.client.IncompleteRead) as caught:
        boss.call(*GENERATE)
    assert caught.value.partial.startswith(b'{"api_key_id"')
    assert caught.value.expected in {len(caught.value.partial), len(caught.value.partial) + 1}
    assert made(boss.server) == 1
    assert (boss.server.requests[-1].fault, boss.server.requests[-1].status) == ("truncate", 201)


def test_an_answer_without_a_body_is_truncated_by_dropping_it(boss: Caller) -> None:
    doomed = Caller.added(boss.server)
    switch_on(boss.server, "DELETE /api_keys/{api_key}:truncate")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        boss.call("DELETE", f"{API_KEYS}/{doomed.api_key_id}")
    assert doomed.api_key_id not in boss.server.state.keys


def test_429_has_kalshis_body_and_no_retry_after(boss: Caller) -> None:
    switch_on(boss.server, "GET /portfolio/balance:status=429:2")
    for _ in range(2):
        reply = boss.call("GET", BALANCE)
        assert (reply.status, reply.json) == (429, {"error": "too many requests"})
        assert "Retry-After" not in reply.headers
    assert boss.call("GET", BALANCE).status == 200


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 418, 499, 500, 503, 599])
def test_any_status_comes_in_one_of_kalshis_shapes_and_without_the_work(boss: Caller, status: int) -> None:
    switch_on(boss.server, f"POST /api_keys/generate:status={status}")
    reply = boss.call(*GENERATE)
    assert reply.status == status
    error = reply.json.get("error", reply.json)
    assert set(error) in ({"code", "message"}, {"code", "message", "service"})
    assert all(isinstance(value, str) and value for value in error.values())
    assert made(boss.server) == 0


def test_latency_delays_the_work(boss: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_on(boss.server, "*:latency=150", "GET /portfolio/balance:latency=100:1")
    delays = []

    async def sleep(delay: float) -> None:
        delays.append(delay)

    monkeypatch.setattr("hsm_keys.sandbox.app.asyncio", SimpleNamespace(sleep=sleep))
    for _ in range(2):
        assert boss.call("GET", BALANCE).status == 200
    assert delays == [0.25, 0.15]


def test_work_that_a_client_does_not_wait_for_is_done_all_the_same(boss: Caller) -> None:
    switch_on(boss.server, "POST /api_keys/generate:latency=300:1")
    headers = boss.headers("POST", GENERATE[1]) | {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port_of(boss.server), timeout=0.05)
    try:
        connection.request("POST", GENERATE[1], body=json.dumps(GENERATE[2]), headers=headers)
        with pytest.raises(TimeoutError):
            connection.getresponse()
    finally:
        connection.close()
    deadline = time.monotonic() + 20
    while not made(boss.server):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_a_fault_hits_its_endpoint_alone(boss: Caller) -> None:
    switch_on(boss.server, "DELETE /portfolio/events/orders/{order_id}:status=500")
    assert boss.call("GET", BALANCE).status == 200
    assert boss.call("GET", ORDERS).status == 200
    assert boss.call("DELETE", f"{API_KEYS}/00000000-0000-4000-8000-000000000000").status == 404
    assert boss.call("DELETE", f"{EVENT_ORDERS}/any").status == 500
    assert boss.call("DELETE", f"{EVENT_ORDERS}/b%61ny").status == 500


def test_every_request_can_be_hit_public_and_unknown_ones_too(boss: Caller) -> None:
    switch_on(boss.server, "*:status=503")
    for target in (f"{PREFIX}/exchange/status", f"{PREFIX}/nowhere", BALANCE):
        assert send(boss.server, "GET", target, {}).status == 503


def test_a_fault_stays_until_it_is_cleared(boss: Caller) -> None:
    switch_on(boss.server, "*:status=500")
    assert [boss.call("GET", BALANCE).status for _ in range(3)] == [500, 500, 500]
    boss.server.faults.clear()
    assert boss.call("GET", BALANCE).status == 200


def test_faults_for_one_endpoint_come_one_after_the_other(boss: Caller) -> None:
    switch_on(boss.server, "GET /portfolio/balance:status=500:2", "*:status=429:1")
    assert [str(fault) for fault in boss.server.faults.active] == [
        "GET /portfolio/balance:status=500:2",
        "*:status=429:1",
    ]
    assert [boss.call("GET", BALANCE).status for _ in range(4)] == [500, 500, 429, 200]
    assert boss.server.faults.active == ()


def test_an_unsigned_request_is_judged_before_its_fault_is_recorded(server: SandboxServer) -> None:
    switch_on(server, "GET /portfolio/balance:status=500:1")
    assert send(server, "GET", BALANCE, {}).status == 500
    seen = server.requests[-1]
    assert (seen.verified, seen.refusal, seen.fault) == (False, "signature_is_missing_from_headers", "status")


def test_a_lost_answer_to_a_refused_request_leaves_it_refused(server: SandboxServer) -> None:
    switch_on(server, "POST /api_keys/generate:drop-after:1")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        Caller.added(server, scopes=["read"]).call(*GENERATE)
    assert made(server) == 0


@pytest.mark.parametrize("spec", ["drop-before:1", "status=503:1"])
def test_a_websocket_handshake_can_fail(boss: Caller, spec: str) -> None:
    switch_on(boss.server, f"GET /trade-api/ws/v2:{spec}")
    headers = boss.headers("GET", "/trade-api/ws/v2")
    with pytest.raises((InvalidHandshake, ConnectionError, EOFError)):
        connect(boss.server.ws_url, additional_headers=headers, proxy=None)
    with connect(boss.server.ws_url, additional_headers=headers, proxy=None):
        pass


def test_the_transport_is_really_closed(boss: Caller) -> None:
    switch_on(boss.server, "GET /portfolio/balance:drop-before:1")
    head = "".join(f"{name}: {value}\r\n" for name, value in boss.headers("GET", BALANCE).items())
    with socket.create_connection(("127.0.0.1", port_of(boss.server)), timeout=20) as raw:
        raw.sendall(f"GET {BALANCE} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        assert raw.recv(1) == b""


# --- the control endpoints


def control(server: SandboxServer, method: str, what: str, body: bytes | None = None) -> Reply:
    return send(server, method, f"/_sandbox/{what}", {"Content-Type": "application/json"}, body)


def test_other_processes_switch_faults(boss: Caller) -> None:
    server = boss.server
    assert server.control_url == f"http://127.0.0.1:{port_of(server)}/_sandbox"
    assert control(server, "GET", "faults").json == {"faults": []}
    reply = control(server, "POST", "faults", b'{"fault": "GET /portfolio/balance:status=500:2"}')
    assert (reply.status, reply.json) == (201, {"faults": ["GET /portfolio/balance:status=500:2"]})
    control(server, "POST", "faults", b'{"fault": "*:latency=1"}')
    assert boss.call("GET", BALANCE).status == 500
    assert control(server, "GET", "faults").json == {"faults": ["GET /portfolio/balance:status=500:1", "*:latency=1"]}
    assert control(server, "DELETE", "faults").status == 204
    assert boss.call("GET", BALANCE).status == 200


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"fault": 1}', b'{"fault": null}', b'{"fault": "nonsense"}', b'{"fault": "POST /nowhere:drop-after"}'],
)
def test_a_bad_fault_is_refused_with_words(server: SandboxServer, body: bytes) -> None:
    reply = control(server, "POST", "faults", body)
    assert (reply.status, set(reply.json)) == (400, {"code", "message"})
    assert server.faults.active == ()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000])
def test_a_body_that_holds_no_fault_is_refused(server: SandboxServer, body: bytes) -> None:
    reply = control(server, "POST", "faults", body)
    assert (reply.status, set(reply.json)) == (400, {"msg"})


def test_other_processes_see_what_reached_the_server(boss: Caller) -> None:
    boss.call("GET", f"{BALANCE}?subaccount=0", timestamp=1)
    boss.call("GET", f"{PREFIX}/portfolio/b%61lance")
    first, second = control(boss.server, "GET", "requests").json["requests"]
    assert first == {
        "method": "GET",
        "path": BALANCE,
        "query": "subaccount=0",
        "api_key_id": boss.api_key_id,
        "timestamp": "1",
        "verified": False,
        "refusal": "header_timestamp_expired",
        "fault": None,
        "status": 401,
    }
    assert (second["path"], second["verified"], second["status"]) == (f"{PREFIX}/portfolio/b%61lance", True, 200)
    assert control(boss.server, "DELETE", "requests").status == 405


def test_control_needs_no_signature_and_is_hit_by_no_fault(server: SandboxServer) -> None:
    switch_on(server, "*:drop-before")
    before: Any = server.requests
    assert control(server, "GET", "faults").status == 200
    assert server.requests == before
