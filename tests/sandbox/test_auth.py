"""The signature, the clock and the three headers: what is taken, and every refusal."""

from __future__ import annotations

import http.client
import json
import socket
from base64 import b64decode, urlsafe_b64encode

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from hsm_keys.sandbox import SandboxServer
from hsm_keys.sandbox.auth import authenticate
from hsm_keys.sandbox.wire import WireError
from tests.sandbox.client import (
    API_KEYS,
    BALANCE,
    EVENT_ORDERS,
    PREFIX,
    Caller,
    Reply,
    headers_for,
    now_ms,
    port_of,
    rsa_key,
    send,
    sign,
)
from tests.support.orders import order_body

NOON = 1_795_000_000_000


@pytest.fixture
def rsa(server: SandboxServer) -> Caller:
    return Caller.added(server, key=rsa_key())


@pytest.fixture
def ed25519(server: SandboxServer) -> Caller:
    return Caller.bootstrap(server)


@pytest.fixture(params=["rsa", "ed25519"])
def caller(request: pytest.FixtureRequest) -> Caller:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Caller)
    return found


def is_wrong_signature(reply: Reply) -> bool:
    error = reply.error
    return reply.status == 401 and (error["code"], error["details"]) == (
        "authentication_error",
        "INCORRECT_API_KEY_SIGNATURE",
    )


def test_a_good_signature_is_taken(caller: Caller) -> None:
    assert caller.call("GET", BALANCE).status == 200
    last = caller.server.requests[-1]
    assert (last.verified, last.refusal, last.api_key_id) == (True, None, caller.api_key_id)


def test_the_bootstrap_key_can_be_rsa() -> None:
    with SandboxServer() as server:
        assert server.bootstrap_pem.startswith("-----BEGIN RSA PRIVATE KEY-----\n")
        assert server.state.keys[server.bootstrap_key_id].key_type == "rsa"
        assert Caller.bootstrap(server).call("GET", BALANCE).status == 200


@pytest.mark.parametrize("salt", [0, 20, 31, 33, 64, 222])
def test_a_salt_of_other_than_32_bytes_is_refused(rsa: Caller, salt: int) -> None:
    assert is_wrong_signature(rsa.call("GET", BALANCE, salt=salt))


@pytest.mark.parametrize("way", ["pkcs1v15", "mgf1-sha1", "sha512"])
def test_another_rsa_scheme_is_refused(rsa: Caller, way: str) -> None:
    stamp = str(now_ms())
    message = f"{stamp}GET{BALANCE}".encode()
    signature = {
        "pkcs1v15": lambda: rsa_key().sign(message, padding.PKCS1v15(), hashes.SHA256()),
        "mgf1-sha1": lambda: rsa_key().sign(message, padding.PSS(padding.MGF1(hashes.SHA1()), 32), hashes.SHA256()),  # noqa: S303 - it is to be refused
        "sha512": lambda: rsa_key().sign(message, padding.PSS(padding.MGF1(hashes.SHA512()), 32), hashes.SHA512()),
    }[way]()
    assert is_wrong_signature(send(rsa.server, "GET", BALANCE, headers_for(rsa.api_key_id, stamp, signature)))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        pytest.param(f"{BALANCE}?subaccount=0", f"GET{BALANCE}?subaccount=0", id="over the query"),
        pytest.param(BALANCE, f"get{BALANCE}", id="over a lower-case method"),
        pytest.param(BALANCE, f"POST{BALANCE}", id="over another method"),
        pytest.param(BALANCE, "GET/portfolio/balance", id="over the path without its prefix"),
        pytest.param(BALANCE, f"GET{BALANCE}/", id="over the path with a slash more"),
        pytest.param(BALANCE, f"GET{API_KEYS}", id="over another path"),
        pytest.param(BALANCE, f"GEThttp://127.0.0.1{BALANCE}", id="over the URL"),
        pytest.param(f"{PREFIX}/portfolio/b%61lance", f"GET{BALANCE}", id="over the decoded path"),
        pytest.param(f"{PREFIX}/portfolio/b%61l%61nce", f"GET{PREFIX}/portfolio/b%61lance", id="half decoded"),
        pytest.param(f"{PREFIX}/portfolio/bal%61n%63e", f"GET{PREFIX}/portfolio/bal%61n%63E", id="case of the path"),
    ],
)
def test_a_signature_over_another_text_is_refused(caller: Caller, target: str, message: str) -> None:
    assert is_wrong_signature(caller.call("GET", target, message=message))


def test_the_query_is_not_signed(caller: Caller) -> None:
    assert caller.call("GET", f"{BALANCE}?subaccount=0", message=f"GET{BALANCE}").status == 200
    assert caller.server.requests[-1].query == "subaccount=0"


def test_percent_escapes_count_as_they_were_sent(caller: Caller) -> None:
    sent = f"{PREFIX}/portfolio/%62alanc%65"
    assert caller.call("GET", sent).status == 200
    assert caller.server.requests[-1].path == sent


@pytest.mark.parametrize(("sent", "signed"), [("%2d", "%2D"), ("%2D", "%2d"), ("%2D", "-")])
def test_the_case_of_an_escape_counts(caller: Caller, sent: str, signed: str) -> None:
    target, other = f"{EVENT_ORDERS}/a{sent}b", f"DELETE{EVENT_ORDERS}/a{signed}b"
    assert is_wrong_signature(caller.call("DELETE", target, message=other))
    assert caller.call("DELETE", target).error["code"] == "not_found"  # as sent, it is a good signature


def test_the_body_is_not_signed(caller: Caller) -> None:
    """Kalshi signs timestamp, method and path. Whoever holds the headers can send another body for 5 seconds."""
    headers = caller.headers("POST", EVENT_ORDERS) | {"Content-Type": "application/json"}
    orders = [json.dumps(order_body(price=price, client_order_id=None)).encode() for price in ("0.01", "0.59")]
    # There is no nonce: a replay passes as well.
    assert [send(caller.server, "POST", EVENT_ORDERS, headers, order).status for order in orders] == [201, 201]


def test_the_signature_of_another_key_is_refused(rsa: Caller, ed25519: Caller) -> None:
    server = rsa.server
    for mixed in (
        Caller(server, rsa.api_key_id, rsa_key(1)),
        Caller(server, rsa.api_key_id, ed25519.key),
        Caller(server, ed25519.api_key_id, Ed25519PrivateKey.generate()),
        Caller(server, ed25519.api_key_id, rsa.key),
    ):
        assert is_wrong_signature(mixed.call("GET", BALANCE))


def test_an_unknown_id_is_not_found(caller: Caller) -> None:
    for unknown in ("00000000-0000-4000-8000-000000000000", caller.api_key_id.upper(), caller.api_key_id[:-1]):
        reply = Caller(caller.server, unknown, caller.key).call("GET", BALANCE)
        assert (reply.status, reply.error["details"]) == (401, "NOT_FOUND")


@pytest.mark.parametrize("field", ["KALSHI-ACCESS-KEY", "KALSHI-ACCESS-TIMESTAMP", "KALSHI-ACCESS-SIGNATURE"])
def test_a_header_that_is_missing_empty_or_doubled_is_refused(caller: Caller, field: str) -> None:
    headers = caller.headers("GET", BALANCE)
    without = {name: value for name, value in headers.items() if name != field}
    replies = [
        send(caller.server, "GET", BALANCE, without),
        send(caller.server, "GET", BALANCE, without | {field: ""}),
        _send_twice(caller.server, headers, field),
    ]
    for reply in replies:
        assert (reply.status, reply.error["code"]) == (401, "signature_is_missing_from_headers")
        assert caller.server.requests[-1].refusal == "signature_is_missing_from_headers"


def _send_twice(server: SandboxServer, headers: dict[str, str], field: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=20)
    try:
        connection.putrequest("GET", BALANCE)
        for name, value in [*headers.items(), (field, headers[field])]:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("offset_ms", "taken"),
    [
        *[(offset, True) for offset in (0, -4000, 4000, -5000, 5000)],
        *[(offset, False) for offset in (-5001, 5001, -6000, 6000, -86_400_000)],
    ],
)
def test_the_clock_window_is_five_seconds_on_both_sides(offset_ms: int, taken: bool) -> None:
    with SandboxServer(key_type="ed25519", clock_ms=lambda: NOON) as server:
        reply = Caller.bootstrap(server).call("GET", BALANCE, timestamp=NOON + offset_ms)
        assert reply.status == (200 if taken else 401)
        if not taken:
            assert reply.error["code"] == "header_timestamp_expired"
            assert "details" not in reply.error


@pytest.mark.parametrize(("offset_ms", "status"), [(-6000, 401), (-4000, 200), (4000, 200), (6500, 401)])
def test_the_clock_is_the_real_one(caller: Caller, offset_ms: int, status: int) -> None:
    assert caller.call("GET", BALANCE, timestamp=now_ms() + offset_ms).status == status


def test_seconds_instead_of_milliseconds_are_expired(caller: Caller) -> None:
    reply = caller.call("GET", BALANCE, timestamp=now_ms() // 1000)
    assert (reply.status, reply.error["code"]) == (401, "header_timestamp_expired")


@pytest.mark.parametrize("form", ["+{}", "0{}", "{}.0", "-{}", "{:x}", "1e12", "{:_}", "{} 1", "\xb2{}", "soon", "0"])
def test_a_timestamp_that_is_not_plain_decimal_is_refused(caller: Caller, form: str) -> None:
    stamp = form.format(now_ms())
    signature = sign(caller.key, f"{stamp}GET{BALANCE}")
    reply = send(caller.server, "GET", BALANCE, headers_for(caller.api_key_id, stamp, signature))
    assert (reply.status, reply.error["details"]) == (401, "INVALID_TIMESTAMP")


def test_base64_is_strict(ed25519: Caller) -> None:
    headers = ed25519.headers("GET", BALANCE)
    good = headers["KALSHI-ACCESS-SIGNATURE"]
    assert send(ed25519.server, "GET", BALANCE, headers).status == 200
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stray_bits = good[:85] + alphabet[alphabet.index(good[85]) | 1] + "=="
    assert b64decode(stray_bits, validate=True) == b64decode(good)  # a lenient decoder takes it
    for text in (
        good.rstrip("="),
        good + "=",
        good[:10] + " " + good[10:],
        good + "AAAA",
        stray_bits,
        b64decode(good).hex(),
        "!" + good,
        "\xe9" + good,
    ):
        assert is_wrong_signature(send(ed25519.server, "GET", BALANCE, headers | {"KALSHI-ACCESS-SIGNATURE": text})), (
            text
        )


def test_the_url_safe_alphabet_is_refused(rsa: Caller) -> None:
    for _ in range(50):  # 256 random bytes have a + or / in them almost surely
        headers = rsa.headers("GET", BALANCE)
        if {"+", "/"} & set(headers["KALSHI-ACCESS-SIGNATURE"]):
            break
    safe = urlsafe_b64encode(b64decode(headers["KALSHI-ACCESS-SIGNATURE"])).decode()
    assert is_wrong_signature(send(rsa.server, "GET", BALANCE, headers | {"KALSHI-ACCESS-SIGNATURE": safe}))


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128, 255, 257])
def test_a_signature_of_the_wrong_length_is_refused(caller: Caller, length: int) -> None:
    headers = headers_for(caller.api_key_id, str(now_ms()), b"\1" * length)
    assert send(caller.server, "GET", BALANCE, headers).status == 401


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"KALSHI-ACCESS-SIGNATURE", "KALSHI-ACCESS-TIMESTAMP", "KALSHI-ACCESS-KEY"}, "header_timestamp_expired"),
        ({"KALSHI-ACCESS-SIGNATURE", "KALSHI-ACCESS-KEY"}, "NOT_FOUND"),
        ({"KALSHI-ACCESS-SIGNATURE"}, "INCORRECT_API_KEY_SIGNATURE"),
    ],
)
def test_the_clock_is_looked_at_first_then_the_id_then_the_signature(
    caller: Caller, wrong: set[str], said: str
) -> None:
    bad = headers_for("00000000-0000-4000-8000-000000000000", "1000", b"\1" * 64)
    headers = caller.headers("GET", BALANCE)
    send(caller.server, "GET", BALANCE, {name: bad[name] if name in wrong else headers[name] for name in headers})
    assert caller.server.requests[-1].refusal == said


def test_a_deleted_key_is_dead_at_once_on_a_connection_that_is_open(server: SandboxServer) -> None:
    boss, doomed = Caller.bootstrap(server), Caller.added(server)
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=20)
    try:
        for expected in (200, 401):
            connection.request("GET", BALANCE, headers=doomed.headers("GET", BALANCE))
            response = connection.getresponse()
            body = response.read()
            assert response.status == expected
            if expected == 200:
                assert boss.call("DELETE", f"{API_KEYS}/{doomed.api_key_id}").status == 204
        assert b'"NOT_FOUND"' in body
    finally:
        connection.close()


@pytest.mark.parametrize("target", [BALANCE, f"http://127.0.0.1{BALANCE}"])
def test_a_lower_case_method_or_a_whole_url_in_the_request_line_is_never_taken(caller: Caller, target: str) -> None:
    method = "get" if target == BALANCE else "GET"
    head = "".join(f"{name}: {value}\r\n" for name, value in caller.headers("GET", BALANCE).items())
    with socket.create_connection(("127.0.0.1", port_of(caller.server)), timeout=20) as raw:
        raw.sendall(f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{head}\r\n".encode())
        answer = raw.makefile("rb").read()
    assert answer.split()[1] in {b"400", b"401"}


@pytest.mark.parametrize("target", [f"{BALANCE}/", f"{PREFIX}/portfolio//balance", f"{PREFIX}/x/../portfolio/balance"])
def test_paths_are_not_normalised(caller: Caller, target: str) -> None:
    reply = caller.call("GET", target)
    assert (reply.status, reply.json["code"]) == (404, "not_found")
    assert caller.server.requests[-1].path == target


def test_exchange_status_is_public(server: SandboxServer) -> None:
    reply = send(server, "GET", f"{PREFIX}/exchange/status", {})
    assert (reply.status, reply.json["exchange_active"], reply.json["trading_active"]) == (200, True, True)
    assert (server.requests[-1].verified, server.requests[-1].refusal) == (False, None)


_KEY = Ed25519PrivateKey.generate()
_SERVER = SandboxServer(key_type="ed25519")
_REGISTERED = Caller.added(_SERVER, key=_KEY)


@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    path=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?"), max_size=60),
    now=st.integers(6_000, 10**15),
    offset=st.integers(-7_000, 7_000),
    flip=st.integers(0, 63) | st.none(),
)
def test_exactly_the_signed_text_in_time_is_taken(
    method: str, path: str, now: int, offset: int, flip: int | None
) -> None:
    stamp = str(now + offset)
    signature = bytearray(_KEY.sign(f"{stamp}{method}/{path}".encode()))
    if flip is not None:
        signature[flip] ^= 1
    headers = CIMultiDict(headers_for(_REGISTERED.api_key_id, stamp, bytes(signature)))
    good = abs(offset) <= 5_000 and flip is None and now + offset > 0
    if good:
        key = authenticate(headers, method, f"/{path}", now, _SERVER.state.find_key)
        assert key.api_key_id == _REGISTERED.api_key_id
    else:
        with pytest.raises(WireError, match="401"):
            authenticate(headers, method, f"/{path}", now, _SERVER.state.find_key)
