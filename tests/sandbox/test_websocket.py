"""The WebSocket: a signed handshake, subscriptions in Kalshi's shape, a clean end."""

from __future__ import annotations

import json
import socket
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from hsm_keys.sandbox import SandboxServer
from tests.sandbox.client import API_KEYS, BALANCE, Caller, now_ms, rsa_key, send, ws_port_of

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "/trade-api/ws/v2"


def dial(server: SandboxServer, headers: Mapping[str, str], query: str = "") -> ClientConnection:
    return connect(server.ws_url + query, additional_headers=dict(headers), proxy=None, open_timeout=20)


def refusal_of(server: SandboxServer, headers: Mapping[str, str]) -> tuple[int, Any]:
    with pytest.raises(InvalidStatus) as caught:
        dial(server, headers)
    response = caught.value.response
    return response.status_code, json.loads(response.body)


def ask(session: ClientConnection, command: object) -> Any:
    session.send(command if isinstance(command, str) else json.dumps(command))
    return json.loads(session.recv(timeout=20))


def test_a_signed_handshake_is_accepted(server: SandboxServer) -> None:
    for caller in (Caller.bootstrap(server), Caller.added(server, key=rsa_key())):
        with dial(server, caller.headers("GET", PATH)) as session:
            assert session.response is not None
            assert session.response.status_code == 101
            last = server.requests[-1]
            assert (last.method, last.path, last.verified, last.status) == ("GET", PATH, True, 101)


def test_the_date_header_follows_the_sandbox_clock() -> None:
    noon = 1_795_000_000_000
    with (
        SandboxServer(key_type="ed25519", clock_ms=lambda: noon) as server,
        dial(server, Caller.bootstrap(server).headers("GET", PATH, timestamp=noon)) as session,
    ):
        assert session.response is not None
        assert parsedate_to_datetime(session.response.headers["Date"]).timestamp() == noon // 1000


def test_the_query_is_not_signed(boss: Caller) -> None:
    with dial(boss.server, boss.headers("GET", PATH), query="?a=b"):
        assert boss.server.requests[-1].query == "a=b"


@pytest.mark.parametrize(
    "message", [f"GET{PATH}/", f"GET{BALANCE}", f"POST{PATH}", f"GET{PATH}/margin", f"GETws://h{PATH}"]
)
def test_a_signature_over_something_else_is_refused(boss: Caller, message: str) -> None:
    status, body = refusal_of(boss.server, boss.headers("GET", PATH, message=message))
    assert (status, body["error"]["details"]) == (401, "INCORRECT_API_KEY_SIGNATURE")


def test_other_refusals(boss: Caller) -> None:
    server = boss.server
    status, body = refusal_of(server, {})
    assert (status, body["error"]["code"]) == (401, "signature_is_missing_from_headers")
    status, body = refusal_of(server, boss.headers("GET", PATH, timestamp=now_ms() - 6000))
    assert (status, body["error"]["code"]) == (401, "header_timestamp_expired")
    salty = Caller.added(server, key=rsa_key())
    assert refusal_of(server, salty.headers("GET", PATH, salt=222))[0] == 401
    for restrictions in ({"scopes": ["write::trade"]}, {"fcm_subtrader_id": "me_x1"}):
        assert refusal_of(server, Caller.added(server, **restrictions).headers("GET", PATH))[0] == 403


def test_without_an_upgrade_it_is_a_bad_request(boss: Caller) -> None:
    reply = send(boss.server, "GET", PATH, boss.headers("GET", PATH), port=ws_port_of(boss.server))
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert (boss.server.requests[-1].verified, boss.server.requests[-1].status) == (True, 400)


def test_a_deleted_key_shakes_no_hands_and_its_open_session_lives_on(boss: Caller) -> None:
    doomed = Caller.added(boss.server)
    with dial(boss.server, doomed.headers("GET", PATH)) as session:
        assert boss.call("DELETE", f"{API_KEYS}/{doomed.api_key_id}").status == 204
        status, body = refusal_of(boss.server, doomed.headers("GET", PATH))
        assert (status, body["error"]["details"]) == (401, "NOT_FOUND")
        assert ask(session, {"id": 1, "cmd": "subscribe", "params": {"channels": ["fill"]}})["type"] == "subscribed"


def test_each_channel_is_acknowledged_with_an_id_of_its_own(boss: Caller) -> None:
    with dial(boss.server, boss.headers("GET", PATH)) as session:
        command = {"id": 7, "cmd": "subscribe", "params": {"channels": ["ticker", "fill"], "market_ticker": "T"}}
        first = ask(session, command)
        second = json.loads(session.recv(timeout=20))
        third = ask(session, {"id": 8, "cmd": "subscribe", "params": {"channels": ["trade"]}})
    assert first == {"id": 7, "type": "subscribed", "msg": {"channel": "ticker", "sid": 1}}
    assert second == {"id": 7, "type": "subscribed", "msg": {"channel": "fill", "sid": 2}}
    assert third == {"id": 8, "type": "subscribed", "msg": {"channel": "trade", "sid": 3}}


@pytest.mark.parametrize(
    ("command", "command_id", "code"),
    [
        ("{", None, 1),
        ("[]", None, 1),
        ({"id": 1, "cmd": "dance"}, 1, 5),
        ({"id": 2, "cmd": "subscribe"}, 2, 2),
        ({"id": 3, "cmd": "subscribe", "params": {}}, 3, 3),
        ({"id": 4, "cmd": "subscribe", "params": {"channels": "fill"}}, 4, 3),
        ({"id": 5, "cmd": "subscribe", "params": {"channels": ["weather"]}}, 5, 8),
        ({"id": 6, "cmd": "subscribe", "params": {"channels": [["fill"]]}}, 6, 8),
        ({"id": 6, "cmd": "subscribe", "params": {"channels": ["corporate_actions"]}}, 6, 8),
        ({"id": 6, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"]}}, 6, 14),
        ({"id": 6, "cmd": "subscribe", "params": {"channels": ["trade"], "market_tickers": "T"}}, 6, 11),
        ({"id": 6, "cmd": "subscribe", "params": {"channels": ["trade"], "market_ticker": 1}}, 6, 11),
        ({"id": 7, "cmd": "unsubscribe", "params": {}}, 7, 4),
        ({"id": 7, "cmd": "unsubscribe", "params": {"sids": ["1"]}}, 7, 11),
        ({"id": 7, "cmd": "unsubscribe", "params": {"sids": [9]}}, 7, 7),
        ({"id": 8, "cmd": "update_subscription", "params": {"action": "add_markets"}}, 8, 12),
        ({"id": 8, "cmd": "update_subscription", "params": {"sids": [1, 2], "action": "add_markets"}}, 8, 12),
        ({"id": 8, "cmd": "update_subscription", "params": {"sid": 9, "action": "add_markets"}}, 8, 7),
        ({"id": 8, "cmd": "update_subscription", "params": {"sid": True, "action": "add_markets"}}, 8, 11),
        ({"cmd": "dance"}, None, 5),
        ({"id": 9, "cmd": ["subscribe"]}, 9, 5),
        ({"id": "9", "cmd": {}}, None, 5),
    ],
)
def test_bad_commands_get_kalshis_error_codes(boss: Caller, command: object, command_id: int | None, code: int) -> None:
    with dial(boss.server, boss.headers("GET", PATH)) as session:
        answer = ask(session, command)
        assert (answer.get("id"), answer["type"], answer["msg"]["code"]) == (command_id, "error", code)
        assert ask(session, {"id": 9, "cmd": "subscribe", "params": {"channels": ["fill"]}})["msg"]["sid"] == 1


def test_a_command_may_be_a_binary_message(boss: Caller) -> None:
    with dial(boss.server, boss.headers("GET", PATH)) as session:
        session.send(b'{"id": 9, "cmd": "subscribe", "params": {"channels": ["fill"]}}')
        assert json.loads(session.recv(timeout=20))["msg"]["sid"] == 1
        session.send(b"\xff")
        assert json.loads(session.recv(timeout=20))["msg"]["code"] == 1


def test_pings_are_answered_and_a_close_is_acknowledged(boss: Caller) -> None:
    with dial(boss.server, boss.headers("GET", PATH)) as session:
        assert session.ping("heartbeat").wait(timeout=20)
        session.close(1000, "done")
        with pytest.raises(ConnectionClosedOK) as caught:
            session.recv(timeout=20)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1000


def test_a_client_that_vanishes_is_forgotten_without_noise(
    boss: Caller, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with dial(boss.server, boss.headers("GET", PATH)) as session:
        session.send(json.dumps({"id": 1, "cmd": "subscribe", "params": {"channels": ["fill"] * 20_000}}))
        session.socket.shutdown(socket.SHUT_RDWR)  # what the server still sends is answered with a reset
        assert boss.call("GET", BALANCE).status == 200
    boss.server.stop()
    assert [record for record in caplog.records if not record.name.startswith("websockets")] == []
    assert capfd.readouterr() == ("", "")


def test_stopping_says_goodbye(boss: Caller) -> None:
    session = dial(boss.server, boss.headers("GET", PATH))
    boss.server.stop()
    with session, pytest.raises(ConnectionClosedOK) as caught:
        session.recv(timeout=20)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1001


def test_a_client_that_does_not_acknowledge_the_goodbye_does_not_hold_up_a_stop(boss: Caller) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in boss.headers("GET", PATH).items())
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    nonce = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    with socket.create_connection(("127.0.0.1", ws_port_of(boss.server)), timeout=20) as deaf:
        deaf.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n{upgrade}{nonce}{head}\r\n".encode())
        assert deaf.recv(65_536).startswith(b"HTTP/1.1 101 ")
        boss.server.stop()  # while nobody answers it


def test_each_port_serves_its_own(boss: Caller) -> None:
    """At Kalshi REST and WebSockets have hosts of their own: a mix-up fails here as it does there."""
    for target, port in ((PATH, 0), (BALANCE, ws_port_of(boss.server))):
        reply = send(boss.server, "GET", target, boss.headers("GET", target), port=port)
        assert (reply.status, reply.json["code"]) == (404, "not_found")
