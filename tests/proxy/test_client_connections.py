"""Connections of clients, byte for byte: what is read as which request, in what order, and what ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hsm_keys.proxy.client_requests import BodyError, ClientRequest
from hsm_keys.proxy.replies import Reply, refusal
from hsm_keys.proxy.serving import ClientServer

if TYPE_CHECKING:
    from hsm_keys.proxy.client_connections import ClientConnection

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;e=1\r\na\n\r\n1\r\nb\r\n0\r\nX: y\r\n\r\n"
LAST = b"DELETE /d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

Seen = tuple[str, str, bytes]


class Wire(asyncio.Transport):
    """In place of a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.ended = self.aborted = False
        self.reads = True

    def written(self) -> None:
        """Hear that something was written."""

    def write(self, data: Any) -> None:
        assert not self.ended
        self.sent += data
        self.written()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Served:
    """A connection whose requests are answered with 200, after their body was read; ``seen`` holds them."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.seen: list[Seen] = []
        self.refused: list[int] = []
        self.wire = Wire()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._reply = reply
        self.server = ClientServer(self._answer, self._refuse, lambda _transport: "bot", files=1000)
        self.connection: ClientConnection = self.server()
        self.connection.connection_made(self.wire)

    async def _answer(self, request: ClientRequest) -> Reply:
        await self.may_answer.wait()
        try:
            body = await request.whole_body(1000) if request.body_exists else b""
        except BodyError as error:
            self.refused.append(error.status)
            return refusal(error.status, "body", error.message)
        self.seen.append((request.method, request.raw_path, body))
        return self._reply or Reply(200, body=b"ok")

    def _refuse(self, _request: ClientRequest, status: int, _error: BaseException | None) -> Reply:
        self.refused.append(status)
        return refusal(status, "malformed", "")

    async def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)
            await self.settle()

    async def settle(self) -> None:
        for _ in range(40):  # as many rounds as the answers of one segment take
            await asyncio.sleep(0)

    @property
    def statuses(self) -> list[bytes]:
        return [part[:3] for part in self.wire.sent.split(b"HTTP/1.1 ")[1:]]


def read(*pieces: bytes) -> Served:
    async def run() -> Served:
        served = Served()
        await served.feed(*pieces)
        served.connection.connection_lost(None)
        await served.settle()
        return served

    return asyncio.run(run())


def test_pipelined_requests_are_read_and_answered_in_their_order() -> None:
    everything = GET + POST + CHUNKED + GET + LAST
    expected = [("GET", "/a", b""), ("POST", "/b", b"abc"), ("PUT", "/c", b"a\nb"), ("GET", "/a", b"")]
    expected.append(("DELETE", "/d", b""))
    for pieces in ([everything], [everything[at : at + 1] for at in range(len(everything))]):
        served = read(*pieces)
        assert served.seen == expected
        assert served.statuses == [b"200"] * 5
        assert served.wire.ended


def test_what_follows_a_close_is_no_request() -> None:
    served = read(LAST + GET, GET)
    assert [path for _, path, _ in served.seen] == ["/d"]
    assert b"Connection: close" in served.wire.sent


def test_one_request_at_a_time_is_answered_and_those_behind_it_wait_outside() -> None:
    async def run() -> None:
        served = Served()
        served.may_answer.clear()
        await served.feed(GET, GET * 4000)
        assert not served.wire.reads
        assert served.seen == []
        served.may_answer.set()
        await served.feed()
        await asyncio.wait_for(until(lambda: len(served.seen) == 4001), 10)
        assert served.wire.reads

    asyncio.run(run())


async def until(what: Any) -> None:
    while not what():  # noqa: ASYNC110 - it counts what a loop's rounds do
        await asyncio.sleep(0)


def test_http_1_0_is_answered_and_closed() -> None:
    served = read(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET)
    assert served.seen == [("GET", "/a", b"")]
    assert served.wire.ended


def test_head_is_answered_without_a_body() -> None:
    served = read(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
    first, second = served.wire.sent.split(b"HTTP/1.1 ")[1:]
    assert first.endswith(b"Content-Length: 2\r\n\r\n")
    assert second.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(status: int) -> None:
    async def run() -> bytes:
        served = Served(Reply(status, body=b"never"))
        await served.feed(GET)
        return served.wire.sent

    sent = asyncio.run(run())
    assert b"never" not in sent
    assert b"Content-Length" not in sent


REFUSED = {
    "CL.TE": b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE.CL": b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "TE twice": b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "TE of a list": b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE of another name": b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked2\r\n\r\n0\r\n\r\n",
    "TE with a VT": b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE with a space": b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "TE in 1.0": b"POST /b HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE that switches": b"POST /b HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CL twice": b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "CL of a list": b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc",
    "CL with a sign": b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
    "CL in hex": b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc",
    "CL of nothing": b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\nabc",
    "CL beyond 64 bits": b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551617\r\n\r\na",
    "a bare LF": b"GET /a HTTP/1.1\nHost: x\n\n",
    "a bare LF in one line": b"GET /a HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "a bare CR": b"GET /a HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "a CR before its CRLF": b"GET /a HTTP/1.1\r\nHost: x\r\r\n\r\n",
    "a NUL": b"GET /a HTTP/1.1\r\nHost: x\x00\r\n\r\n",
    "a folded line": b"GET /a HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
    "a line without a name": b"GET /a HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "a line without a colon": b"GET /a HTTP/1.1\r\nHost: x\r\nX\r\n\r\n",
    "two spaces": b"GET  /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "two spaces behind": b"GET /a  HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in front": b" GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab": b"GET\t/a\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /a\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "RTSP": b"GET /a RTSP/1.0\r\nHost: x\r\n\r\n",
    "http/1.1": b"GET /a http/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "a method in lower case": b"get /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method of nobody": b"FETCH /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "no Host": b"GET /a HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "a target that isn't ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long line": b"GET /a HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9_000 + b"\r\n\r\n",
    "a long target": b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "many headers": b"GET /a HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 101 + b"\r\n",
    "a head without an end": b"GET /a HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000,
    "a chunk in hex": CHUNKED.replace(b"2;e=1", b"0x2"),
    "a chunk with a sign": CHUNKED.replace(b"2;e=1", b"+2"),
    "a chunk with a space": CHUNKED.replace(b"2;e=1", b"2 "),
    "a chunk's LF": CHUNKED.replace(b"2;e=1\r\n", b"2\n"),
    "an LF in its extension": CHUNKED.replace(b"2;e=1", b"2;e\n=1"),
    "a chunk that is longer": CHUNKED.replace(b"2;e=1", b"1"),
    "a chunk beyond 64 bits": CHUNKED.replace(b"2;e=1", b"1" * 17),
    "an empty line in front": b"\r\n" + GET,
    "trailers with an LF": CHUNKED.replace(b"X: y\r\n", b"X: y\n"),
    "trailers without an end": CHUNKED[:-2] + b"X: y\r\n" * 200_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_single_reading_is_refused_and_nothing_behind_it_is_read(name: str) -> None:
    request = REFUSED[name]
    ways = [[GET + request + LAST], [GET, request, LAST]]
    if len(request) < 500:
        ways.append([GET, *(request[at : at + 1] for at in range(len(request))), LAST])
    for pieces in ways:
        served = read(*pieces)
        assert served.seen == [("GET", "/a", b"")]
        assert served.statuses == [b"200", b"400"]
        assert served.wire.ended


GADGETS = (
    b"Transfer-Encoding:%bchunked", b"Transfer-Encoding%b: chunked", b"%bTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked%b", b"X: X%bTransfer-Encoding: chunked", b"Transfer-Encoding: chunked%bX: X",
    b"X: X\r%bTransfer-Encoding: chunked", b"X: X%b\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r%bX: X",
    b"Transfer-Encoding: chunked%b\nX: X", b"Content-Length%b: 0", b"Content-Length: %b0", b"Transfer-Encoding: %bcow",
)  # fmt: skip
"""Where request smugglers put a byte that one server skips and another one doesn't."""


@pytest.mark.parametrize("gadget", GADGETS)
def test_no_byte_that_servers_read_differently_smuggles_a_request(gadget: bytes) -> None:
    for byte in b"\x00\x01\x04\x08\x09\x0a\x0b\x0c\x0d\x1f\x20\x2c\x3b\x7f\x85\xa0\xff":
        for body, length in ((b"0\r\n\r\n", 5), (b"0\r\n\r\nX", 6), (b"1\r\nA\r\n0\r\n\r\n", 4)):
            line = gadget % bytes([byte])
            data = b"POST /b HTTP/1.1\r\n%b\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (line, length, body) + LAST
            served = read(data)
            assert served.seen == as_h11_reads(data)[: len(served.seen)]
            assert not served.refused or served.wire.ended


def test_pipelined_requests_are_begun_one_a_turn() -> None:
    """However many there are, others have their turns, and the interpreter's stack doesn't grow."""

    async def run() -> None:
        served = Served()
        served.connection.data_received(GET * 2000)
        for turn in range(1, 20):
            assert len(served.seen) <= turn
            await asyncio.sleep(0)
        for _ in range(2 * 2000):
            await asyncio.sleep(0)
        assert len(served.seen) == 2000

    asyncio.run(run())


def test_a_body_that_is_too_long_is_refused_and_its_rest_is_no_request() -> None:
    for request in (
        b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + GET,
        b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"a" * 2000 + b"\r\n" + GET,
    ):
        served = read(request, GET * 10)
        assert (served.seen, served.refused, served.statuses) == ([], [413], [b"413"])
        assert served.wire.ended


def test_a_body_that_is_cut_off_is_none() -> None:
    served = read(POST[:-1])
    assert (served.seen, served.refused) == ([], [400])


def test_a_stop_closes_what_is_idle_at_once_and_what_is_busy_behind_its_answer() -> None:
    async def run() -> None:
        idle, busy = Served(), Served()
        busy.may_answer.clear()
        await busy.feed(GET + GET)
        stopping = [asyncio.create_task(one.server.stop(10)) for one in (idle, busy)]
        await busy.settle()
        assert (idle.wire.ended, busy.wire.ended) == (True, False)
        busy.may_answer.set()
        await busy.settle()
        assert busy.statuses == [b"200"]
        assert busy.wire.ended
        for one in (idle, busy):
            one.connection.connection_lost(None)
        await asyncio.gather(*stopping)

    asyncio.run(run())


def as_h11_reads(data: bytes) -> list[Seen]:
    """Return the requests that h11 reads, which nobody here wrote, until it refuses or wants more."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(data)
    seen: list[Seen] = []
    try:
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                method, target, body = event.method.decode(), event.target.decode("latin-1"), b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                seen.append((method, target, body))
                reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                reader.send(h11.EndOfMessage())
                if reader.our_state is h11.MUST_CLOSE:
                    return seen
                reader.start_next_cycle()
            else:
                return seen
    except h11.ProtocolError:
        return seen


PIECES = st.sampled_from([
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"3", b"a", b"\x0b", b"\x80", b"chunked",
    b"Host: x\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Expect: 100-continue\r\n", b"0\r\n\r\n", b"3\r\nabc\r\n", b"\r\n\r\n", b"HTTP/1.0", b"GET /z HTTP/1.1\r\n",
    GET, POST, CHUNKED,
])  # fmt: skip
Change = tuple[int, int, bytes]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from([GET, POST, CHUNKED, LAST]), min_size=1, max_size=3).map(b"".join),
    st.lists(st.tuples(st.integers(0, 250), st.integers(0, 3), PIECES), min_size=1, max_size=4),
    st.integers(0, 200),
)
@example(POST, [(55, 0, b"Transfer-Encoding: chunked\r\n")], 7)
def test_every_request_that_is_read_is_read_so_by_h11(
    data: bytes, changes: list[tuple[int, int, bytes]], at: int
) -> None:
    """And in any pieces alike: a server behind the proxy that is another program sees the same requests."""
    for place, cut, piece in changes:
        data = data[:place] + piece + data[place + cut :]
    served = read(data)
    assert read(data[:at], data[at:]).seen == served.seen
    assert served.seen == as_h11_reads(data)[: len(served.seen)]


def test_the_same_head_is_read_once_and_another_one_for_itself() -> None:
    async def run() -> None:
        kept: list[ClientRequest] = []
        served = Served()

        async def answer(request: ClientRequest) -> Reply:
            kept.append(request)
            return Reply(200, body=await request.whole_body(1000))

        served.connection._answer = answer
        head = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
        await served.feed(head + b"ab", head + b"cd", head.replace(b"x H", b"y H") + b"ef", GET, head + b"gh")
        assert [request.raw_path for request in kept] == ["/x", "/x", "/y", "/a", "/x"]
        assert [await request.whole_body(10) for request in kept] == [b"ab", b"cd", b"ef", b"", b"gh"]
        assert [one.head is kept[0].head for one in kept] == [True, True, False, False, False]

    asyncio.run(run())


def test_no_head_of_a_body_in_chunks_is_kept_nor_a_long_one() -> None:
    async def run() -> None:
        served = Served()
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        long = b"GET / HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"a" * 3000)
        for request in (chunked, long):
            await served.feed(request, request)
            assert served.connection._head is None
        assert [body for _, _, body in served.seen] == [b"ab", b"ab", b"", b""]

    asyncio.run(run())
