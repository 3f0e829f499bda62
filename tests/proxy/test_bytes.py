"""Byte for byte: a Kalshi that is a socket sees what the client sent, and the client what it answers."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import socket
import threading
from base64 import b64decode
from contextlib import suppress
from functools import reduce
from posixpath import normpath
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hsm_keys.signing.algorithms import verifies
from hsm_keys.signing.pem import load_private_key
from tests.support.judging import ORDER, ORDERS
from tests.support.running_proxy import RunningProxy, asks_for_itself, with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer


class Kalshi:
    """Answers requests with given bytes, and keeps what it was asked; one a connection, unless ``stays`` is set."""

    def __init__(self) -> None:
        self.answer = b""
        self.stays = False
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/trade-api/v2"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(5)
            while asked := self._request(connection):
                answer = self.answer
                if not asks_for_itself(asked):
                    self.asked.append(asked)
                    connection.sendall(answer)
                if not self.stays or b"Connection: close" in answer:
                    return

    def _request(self, connection: socket.socket) -> bytes:
        """Read one; empty at the end."""
        asked = b""
        while b"\r\n\r\n" not in asked or not self._whole(asked):
            chunk = connection.recv(65536)
            if not chunk:
                return b""
            asked += chunk
        return asked

    def _whole(self, asked: bytes) -> bool:
        head, _, body = asked.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            return body.endswith(b"0\r\n\r\n")
        length = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), b":0")
        return len(body) >= int(length.partition(b":")[2])

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def kalshi() -> Iterator[Kalshi]:
    stand_in = Kalshi()
    yield stand_in
    stand_in.close()


@pytest.fixture
def proxy(
    sandbox: SandboxServer, kalshi: Kalshi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningProxy]:
    monkeypatch.setenv("KALSHI_API_BASE_URL", kalshi.base_url)
    with with_key_in_memory(tmp_path) as running:
        yield running


def received(proxy: RunningProxy, request: bytes) -> bytes:
    """Send a request that closes its connection, and return every byte of the answer."""
    with proxy.connect() as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_what_goes_there(proxy: RunningProxy, kalshi: Kalshi) -> None:
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    body = b'{"count" :5,  "b": "\xc3\xa9\\u00e9"}'
    target = f"{ORDERS}?b=%2f&a=1&a=1&c=x+y%20z&d".encode()
    head = (
        b"Host: localhost\r\nConnection: close\r\nX-Request-Id: 1\r\nX-Request-Id: 2\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    received(proxy, b"POST " + target + b" HTTP/1.1\r\n" + head + body)
    (asked,) = kalshi.asked
    sent_head, _, sent_body = asked.partition(b"\r\n\r\n")
    assert sent_head.split(b"\r\n")[0] == b"POST " + target + b" HTTP/1.1"
    assert sent_body == body
    names = [line.partition(b":")[0].lower() for line in sent_head.split(b"\r\n")[1:]]
    assert names.count(b"x-request-id") == 2
    assert names.count(b"kalshi-access-signature") == 1
    assert not {b"user-agent", b"accept-encoding", b"accept"} & set(names)


def test_a_body_that_was_streamed(proxy: RunningProxy, kalshi: Kalshi) -> None:
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" % ORDERS.encode()
    received(proxy, head + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    (asked,) = kalshi.asked
    sent_head, _, body = asked.partition(b"\r\n\r\n")
    assert b"content-length: 7" in sent_head.lower()  # it was read to its end before it was judged
    assert body == b"abcdefg"


COMPRESSED = gzip.compress(b'{"orders": []}' * 100, mtime=0)


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (b"Content-Length: %d" % len(COMPRESSED), COMPRESSED),
        (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(COMPRESSED), COMPRESSED)),
    ],
    ids=["whole", "chunked"],
)
def test_what_comes_back(proxy: RunningProxy, kalshi: Kalshi, head: bytes, sent: bytes) -> None:
    kalshi.answer = (
        b"HTTP/1.1 200 Fine\r\nContent-Encoding: gzip\r\nX-Kalshi: 1\r\nX-Kalshi: 2\r\n" + head + b"\r\n\r\n" + sent
    )
    answer = received(proxy, b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % ORDERS.encode())
    got_head, _, body = answer.partition(b"\r\n\r\n")
    assert got_head.split(b"\r\n")[0] == b"HTTP/1.1 200 Fine"
    assert got_head.count(b"X-Kalshi: ") == 2
    assert COMPRESSED in body


CUT = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    b"HTTP/1.1 2",
    b"garbage\r\n\r\n",
    b"",
)


def test_an_answer_that_was_cut_is_never_taken_for_whole(proxy: RunningProxy, kalshi: Kalshi) -> None:
    for number, cut in enumerate(CUT, start=1):
        kalshi.answer = cut
        try:
            answer = received(proxy, b"DELETE %s/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % ORDERS.encode())
        except ConnectionError:
            answer = b""
        assert not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"0\r\n\r\n"), cut
        assert len(kalshi.asked) == number


UNREADABLE = {
    "both lengths": b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a list of lengths": b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\n{}",
    "one length twice": b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "another coding": b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks in 1.0": b"POST %s HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a chunk in hex": b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk's LF": b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    "LF": b"GET %s HTTP/1.1\nHost: x\nAuthorization: Bearer CANARY\n\n",
    "NUL": b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer CANARY\x00\r\n\r\n",
    "CR": b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer CANARY\rX: y\r\n\r\n",
    "a folded header": b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n CANARY\r\n\r\n",
    "a header's name": b"GET %s HTTP/1.1\r\nHost: x\r\nAuth orization: Bearer CANARY\r\n\r\n",
    "no Host": b"GET %s HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET %s HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "0.9": b"GET %s\r\n\r\n",
    "9.9": b"GET %s HTTP/9.9\r\nHost: x\r\n\r\n",
    "authority": b"GET localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute": b"GET http://x%s HTTP/1.1\r\nHost: x\r\n\r\n",
    "another authority": b"GET //x%s HTTP/1.1\r\nHost: x\r\n\r\n",
    "not UTF-8": b"GET %s\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a query that isn't": b"GET %s?\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in lower case": b"get %s HTTP/1.1\r\nHost: x\r\n\r\n",
    "too many headers": b"GET %s HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    "a long header": b"GET %s HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    "a WebSocket by POST": b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\n{}",
    "a WebSocket without a key": b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
}


def test_what_can_be_read_in_two_ways_is_refused_and_written_down(proxy: RunningProxy, kalshi: Kalshi) -> None:
    for name, request in UNREADABLE.items():
        answer = proxy.raw(request.replace(b"%s", ORDERS.encode()))
        assert answer[:3] in {b"400", b"403"}, name
        assert b"CANARY" not in answer, name
        assert b"hsm-keys proxy" in answer, name
    proxy.stop()
    assert kalshi.asked == []
    decisions = [line for line in proxy.lines() if line["kind"] == "decision"]
    assert [line["verdict"] for line in decisions] == ["denied"] * len(UNREADABLE)
    assert {line["uid"] for line in decisions} == {os.getuid()}
    log = "".join(proxy.said)
    assert "CANARY" not in log + proxy.trail()
    assert "Traceback" not in log


def test_pipelined_requests_are_judged_each(proxy: RunningProxy, kalshi: Kalshi) -> None:
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    paths = (ORDERS, "/trade-api/v2/api_keys", f"{ORDERS}/x")
    last = "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = received(
        proxy, "".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths).encode() + last.encode()
    )
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"204", b"403", b"204", b"400"]
    assert [asked.split()[1] for asked in kalshi.asked] == [ORDERS.encode(), f"{ORDERS}/x".encode()]


def test_another_protocol_is_not_spoken(proxy: RunningProxy, kalshi: Kalshi) -> None:
    """curl asks for HTTP/2 like this; what comes behind is no request that anybody judged."""
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    upgrade = "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    request = f"GET {ORDERS} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n"
    for behind in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", request.encode()):
        assert received(proxy, request.encode() + behind).count(b"HTTP/1.1 204") == 1
    assert len(kalshi.asked) == 3
    assert not any(b"h2c" in asked or b"http2-settings" in asked.lower() for asked in kalshi.asked)


def test_headers_that_mislead_end_at_the_proxy(proxy: RunningProxy, kalshi: Kalshi) -> None:
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    misleading = ("X-HTTP-Method-Override", "X_HTTP_Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL",
                  "X-Forwarded-Host", "X-Host", "X-HTTP-Path-Override", "X-Envoy-Original-Path", "Forwarded", "Via",
                  "Kalshi_Access_Key", "TE", "Trailer", "Proxy-Authorization", "Keep-Alive", "X-Named",
                  "X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Kalshi-User", "Kalshi-Subaccount",
                  "Content_Encoding", "Content_Type", "X-Client",
                  "Idempotency-Key", "Referer", "Range",
                  "Date", "Priority")  # fmt: skip
    head = "".join(f"{name}: canary\r\n" for name in misleading)
    named = "Connection: close, X-Named, KALSHI-ACCESS-SIGNATURE, KALSHI-ACCESS-KEY, Content-Length\r\n"
    received(proxy, f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\n{named}{head}Content-Length: 2\r\n\r\n{{}}".encode())
    (asked,) = kalshi.asked
    assert b"canary" not in asked
    assert len(re.findall(rb"\r\nKALSHI-ACCESS-[A-Z]+: ", asked)) == 3
    assert asked.endswith(b"\r\n\r\n{}")


def test_headers_of_clients_go_through(proxy: RunningProxy, kalshi: Kalshi) -> None:
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    names = ("Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Content-Type", "Content-Encoding",
             "If-None-Match", "If-Modified-Since", "User-Agent", "X-Request-ID", "traceparent")  # fmt: skip
    head = "".join(f"{name}: canary-{number}\r\n" for number, name in enumerate(names))
    head = f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}Content-Length: 2\r\n\r\n"
    received(proxy, f"{head}{{}}".encode())
    (asked,) = kalshi.asked
    for number, name in enumerate(names):
        assert f"\r\n{name}: canary-{number}\r\n".encode() in asked


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
ODD_ANSWERS = {
    "both lengths": (OK + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n5\r\nabcde\r\n0\r\n\r\n", None, b"abcde"),
    "two lengths": (OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", 502, None),
    "hints": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}", 200, b"{}"),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc", 502, None),
    "trailers": (OK + CHUNKED + b"Trailer: X\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n", 200, b"{}"),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 30\r\n\r\n", 304, b""),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n", 302, b""),
    "no length": (OK + b"Connection: close\r\n\r\nabcde", 200, b"abcde"),
    "two answers": (OK + b"Content-Length: 2\r\n\r\n{}" + OK + b"Content-Length: 6\r\n\r\nSTOLEN", 200, b"{}"),
    "a long header": (OK + b"X: " + b"a" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n{}", 502, None),
    "no gzip": (OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}"),
}


def test_odd_answers(proxy: RunningProxy, kalshi: Kalshi) -> None:
    """Two requests on one connection: whatever the first one's answer is, the second one gets its own."""
    request = f"GET {ORDERS} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    kalshi.stays = True  # one that closes, and doesn't say so, may meet the second request
    for name, (answer, status, body) in ODD_ANSWERS.items():
        with proxy.connect() as connection:
            kalshi.answer = answer
            connection.sendall(request)
            first = http.client.HTTPResponse(connection, method="GET")
            first.begin()
            text = first.read()
            assert status in {None, first.status}, name
            assert first.status == 502 or text == body, name
            kalshi.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"
            connection.sendall(request)
            second = http.client.HTTPResponse(connection, method="GET")
            second.begin()
            assert second.read() == b"second", name


def test_a_client_that_waits_to_be_asked_for_its_body(proxy: RunningProxy, kalshi: Kalshi) -> None:
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    for path, words in (
        (ORDERS, b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("/trade-api/v2/api_keys", b"HTTP/1.1 403 Forbidden"),
    ):
        with proxy.connect() as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(words)
            assert kalshi.asked == []  # nothing is signed for a body that may never come
            connection.sendall(b"{}")
            if path == ORDERS:
                assert connection.recv(1000).startswith(b"HTTP/1.1 204")
                assert kalshi.asked.pop().endswith(b"\r\n\r\n{}")


JUDGED = json.dumps(ORDER).encode()


def test_an_order_that_says_it_is_something_else_is_not_judged_as_json(
    sandbox: SandboxServer, kalshi: Kalshi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALSHI_API_BASE_URL", kalshi.base_url)
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n[clients.default]\nmax_count = 5\n")
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    with with_key_in_memory(tmp_path, policy=policy) as proxy:
        for header, allowed in (
            ("Content-Type: application/json", True),
            ("Content-Type: application/json; charset=UTF-8", True),
            ("X: y", True),
            ("Content-Type: application/json; charset=utf-16", False),
            ("Content-Type: application/json; charset=utf-7", False),
            ("Content-Type: application/x-www-form-urlencoded", False),
            ("Content-Type: application/json\r\nContent-Type: text/xml", False),
            ("Content-Encoding: gzip", False),
            ("Content-Encoding: identity, deflate", False),
            ("Connection: content-encoding\r\nContent-Encoding: br", False),
        ):
            head = f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: {len(JUDGED)}\r\n\r\n"
            assert proxy.raw(head.encode() + JUDGED)[:3] in ({b"204"} if allowed else {b"400", b"403"}), header
            assert bool(kalshi.asked) is allowed, header
            kalshi.asked.clear()
        head = f"POST {ORDERS}?price=0.9900 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(JUDGED)}\r\n\r\n"
        assert proxy.raw(head.encode() + JUDGED)[:3] == b"403"
        gzipped = gzip.compress(JUDGED)
        head = f"POST {ORDERS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(gzipped)}\r\n\r\n"
        assert proxy.raw(head.encode() + gzipped)[:3] == b"403"


PIECES = st.one_of(
    st.sampled_from(["/", "//", "/.", "/..", ";", "\\", "?", "#", "@", "&", "%", " ", "\t", "\r\n", "\0", "\u00e9"]),
    st.sampled_from(["%2e", "%2E", "%2f", "%2F", "%5C", "%25", "%252e", "%00", "%0D%0A", "%C3%A9", "%E2%84%AA", "%6B"]),
    st.sampled_from(["%3F", "%23", "%3B", "%20", "api_keys", "%61pi_keys", "API_KEYS", "portfolio", "transfer"]),
)


def as_a_lenient_server_reads(target: str) -> str:
    """Return the path that is left when all is decoded, folded and cut that any server might."""
    path = reduce(lambda text, _: unquote(text), range(4), target.partition("?")[0])
    path = re.split(r"[?#]", path.replace("\\", "/"))[0]
    path = normpath(re.sub(r";[^/]*", "", path))
    return "/".join(segment.strip() for segment in path.casefold().split("/"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES | st.text(max_size=2), max_size=7).map("".join), st.sampled_from(["GET", "POST", "DELETE"]))
@example("@ ", "GET")
def test_what_kalshi_sees_is_what_was_judged(proxy: RunningProxy, kalshi: Kalshi, rest: str, method: str) -> None:
    kalshi.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    kalshi.asked.clear()
    target = f"/trade-api/v2/{rest}"
    received(proxy, f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("utf-8", "replace"))
    target = target.rstrip(" ")  # the spaces before the version only part the two
    for asked in kalshi.asked:
        line, *fields = asked.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")
        assert line == f"{method} {target.removesuffix('?')} HTTP/1.1"
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        path = target.partition("?")[0]
        message = f"{headers['kalshi-access-timestamp']}{method}{path}".encode()
        key = load_private_key(os.environ["KALSHI_PRIVATE_KEY"].encode()).public_key()
        assert verifies(key, message, b64decode(headers["kalshi-access-signature"]))
        read = as_a_lenient_server_reads(target)
        assert read == path.casefold()
        assert "api_keys" not in read
        assert method == "GET" or "transfer" not in read
