"""Connections to Kalshi that are the proxy's own: what is kept, what is closed, and that nothing is sent twice."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from hsm_keys.proxy.links import Links, request_bytes
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.reaching import NotHttpError
from hsm_keys.proxy.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    Use = Callable[["Links", "Kalshi"], Coroutine[Any, Any, None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REQUEST = request_bytes("POST", "/x", "kalshi", [], b"{}")


class Kalshi:
    """Answers each request with the next bytes; None closes the connection. ``connections`` counts those it had."""

    def __init__(self, *answers: bytes | None, then_closes: bool = False) -> None:
        self.answers = list(answers)
        self.then_closes = then_closes
        self.asked: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.changed = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        self.open += 1
        try:
            while asked := await reader.read(65_536):
                self.asked.append(asked)
                self.changed.set()
                answer = self.answers.pop(0)
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
                if self.then_closes:
                    return
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.open -= 1
            self.changed.set()

    async def all_closed(self) -> None:
        while self.open:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def links_to(kalshi: Kalshi, **options: Any) -> AsyncIterator[Links]:
    server = await asyncio.start_server(kalshi.serve, "127.0.0.1", 0)
    links = Links(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, **{"read_s": 10.0, **options})
    try:
        yield links
    finally:
        await links.close()
        server.close()
        await server.wait_closed()


def run(
    kalshi: Callable[[], Kalshi], use: Callable[[Links, Kalshi], Coroutine[Any, Any, None]], **options: Any
) -> None:
    async def both() -> None:
        stand_in = kalshi()
        async with links_to(stand_in, **options) as links:
            await use(links, stand_in)

    asyncio.run(asyncio.wait_for(both(), 20))


async def asked(links: Links, request: bytes = REQUEST) -> tuple[int, bytes]:
    with await (await links.get()).exchange(request) as answer:
        return answer.status, await answer.read()


KEPT = {
    "a length": OK,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
    "an answer on the way": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + OK,
}
CLOSED = {
    "Connection: close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.0 that says it stays": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
    "a second answer": OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSTOLEN",
    "bytes behind it": OK + b"x",
    "trailers that close": KEPT["trailers"].replace(b"X: y", b"Connection: close"),
}


@pytest.mark.parametrize("name", [*KEPT, *CLOSED])
def test_which_connections_are_kept(name: str) -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        assert await asked(links) == (200, b"{}")
        assert await asked(links) == (200, b"{}")
        assert kalshi.connections == (1 if name in KEPT else 2)
        assert kalshi.asked == [REQUEST] * 2

    run(lambda: Kalshi({**KEPT, **CLOSED}[name], OK), use)


NO_HTTP = {
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    "a coding before chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a coding in a line of its own": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\n{}\r\n0\r\n\r\n",
    "a coding alone": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    "a bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "a bare CR": b"HTTP/1.1 200 OK\r\nX: a\rY: b\r\nContent-Length: 2\r\n\r\n{}",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "another protocol": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a head without an end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "hints without an end": b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 4_000,
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_what_is_no_answer_is_none_and_nothing_is_sent_again(name: str) -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        with pytest.raises(NotHttpError):
            await asked(links)
        assert kalshi.asked == [REQUEST]
        assert await asked(links) == (200, b"{}")
        assert kalshi.connections == 2

    run(lambda: Kalshi(NO_HTTP[name], OK), use)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_an_answer_that_is_lost_is_an_error_and_nothing_is_sent_again(method: str) -> None:
    """Also on a connection that was kept: Kalshi may have read the request before it closed it."""
    request = request_bytes(method, "/x", "kalshi", [])

    async def use(links: Links, kalshi: Kalshi) -> None:
        assert (await asked(links, request))[0] == 200
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await asked(links, request)
        assert kalshi.asked == [request] * 2
        assert kalshi.connections == 1

    run(lambda: Kalshi(OK, None), use)


def test_a_connection_that_kalshi_closes_between_requests_is_not_used() -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        for _ in range(3):
            assert await asked(links) == (200, b"{}")
            await kalshi.all_closed()
            await asyncio.sleep(0)
        assert kalshi.connections == 3
        assert kalshi.asked == [REQUEST] * 3

    run(lambda: Kalshi(OK, OK, OK, then_closes=True), use)


@pytest.mark.parametrize("sent", [b"", OK.replace(b"{}", b"[]")])
def test_what_came_on_an_idle_connection_and_wasnt_read_yet_is_no_answer(sent: bytes) -> None:
    """Kalshi closes it, or says something, in the same turn of the loop in which the next request is to be sent."""

    async def use(links: Links, kalshi: Kalshi) -> None:
        assert await asked(links) == (200, b"{}")
        there = kalshi.writers[0]
        there.write(sent) if sent else there.get_extra_info("socket").shutdown(socket.SHUT_WR)
        assert await asked(links) == (200, b"{}")
        assert (kalshi.asked, kalshi.connections) == ([REQUEST] * 2, 2)

    run(lambda: Kalshi(OK, OK), use)


def test_a_connection_is_closed_if_its_answer_came_before_the_request_was_sent() -> None:
    """What is left of the request would stand before the next one, on a connection that Kalshi may read no more."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\n{}")
        with suppress(ConnectionError):
            await closed.wait()
        writer.close()

    async def use() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=1024)
        links = Links(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, read_s=10)
        long = request_bytes("POST", "/x", "kalshi", [], bytes(16 << 20))
        link = await links.get()
        with await link.exchange(long) as answered:
            assert (answered.status, await answered.read()) == (413, b"{}")
        assert not link.is_open
        closed.set()
        await links.close()
        server.close()

    closed = asyncio.Event()
    asyncio.run(asyncio.wait_for(use(), 20))


@pytest.mark.parametrize(
    ("cut", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", aiohttp.ServerDisconnectedError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{", aiohttp.ClientPayloadError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", aiohttp.ClientPayloadError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", aiohttp.ClientPayloadError),
    ],
)
def test_an_answer_that_is_cut_off_is_never_whole(cut: bytes, error: type[Exception]) -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        with pytest.raises(error):
            await asked(links)

    run(lambda: Kalshi(cut, then_closes=True), use)


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        assert await asked(links) == (200, b"{}")

    run(lambda: Kalshi(b"HTTP/1.1 200 OK\r\n\r\n{}", then_closes=True), use)


@pytest.mark.parametrize("head", [b"Content-Length: 5000000", b"Connection: close"])
def test_a_long_answer_comes_in_parts_and_waits_for_whoever_takes_it(head: bytes) -> None:
    body = bytes(range(250)) * 20_000

    async def use(links: Links, kalshi: Kalshi) -> None:
        got = bytearray()
        with await (await links.get()).exchange(REQUEST) as answer:
            assert not answer.is_whole
            async for chunk in answer.chunks():
                await asyncio.sleep(0.001)
                assert len(answer.body) <= 1 << 20  # what isn't taken isn't read
                got += chunk
        assert got == body

    run(lambda: Kalshi(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body, then_closes=True), use)


@pytest.mark.parametrize("begun", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b""])
def test_a_kalshi_that_says_no_more_is_given_up(begun: bytes) -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        with pytest.raises(TimeoutError):
            await asked(links)

    run(lambda: Kalshi(begun), use, read_s=0.05)


def test_an_answer_on_a_connection_that_was_kept_is_given_up_as_well() -> None:
    """One timer serves all requests of a connection."""

    async def use(links: Links, kalshi: Kalshi) -> None:
        await asked(links)
        with pytest.raises(TimeoutError):
            await asked(links)
        assert kalshi.connections == 1

    run(lambda: Kalshi(OK, b"HTTP/1.1 200 OK\r\n"), use, read_s=0.05)


def test_a_timer_of_an_earlier_request_ends_no_later_one() -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        link = await links.get()
        with await link.exchange(REQUEST):
            pass
        again = asyncio.create_task(link.exchange(REQUEST))
        await asyncio.sleep(0)
        link._look_at_the_clock()  # as if it had run out, of which the second request knows nothing
        with await again as answer:
            assert answer.status == 200

    run(lambda: Kalshi(OK, OK), use)


def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        link = await links.get()
        with await link.exchange(REQUEST) as answer:
            assert answer.is_whole
        assert link.is_open
        link.data_received(OK)
        assert not link.is_open
        assert await asked(links) == (200, b"{}")
        assert kalshi.connections == 2

    run(lambda: Kalshi(OK, OK), use)


def test_a_switch_of_protocols_is_no_answer() -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc"

    async def use(links: Links, kalshi: Kalshi) -> None:
        link = await links.get()
        with await link.exchange(REQUEST) as answer:
            assert answer.status == 101
        assert not link.is_open

    run(lambda: Kalshi(switch), use)


def test_whoever_is_cancelled_leaves_no_connection_with_half_an_answer() -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        link = await links.get()
        waiting = asyncio.create_task(link.exchange(REQUEST))
        await kalshi.changed.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not link.is_open
        assert await asked(links) == (200, b"{}")

    run(lambda: Kalshi(b"HTTP/1.1 200 OK\r\n", OK), use)


def test_a_request_with_a_lines_end_in_a_part_is_never_written() -> None:
    for method, target, host, value in (
        ("GET\r\n", "/x", "h", "v"),
        ("GET", "/x\n", "h", "v"),
        ("GET", "/x", "h\r", "v"),
        ("GET", "/x", "h", "v\r\nX: y"),
    ):
        with pytest.raises(ValueError, match="line's end"):
            request_bytes(method, target, host, [("A", value)])


def test_what_is_urgent_waits_for_no_connection_while_there_is_one() -> None:
    async def use(links: Links, kalshi: Kalshi) -> None:
        async def signed() -> dict[str, str]:
            return {}

        async with Upstream(f"http://{links.host}/trade-api/v2", Metrics()) as upstream:
            for links_of_it in (upstream._links, upstream._urgent):
                links_of_it.put(await links_of_it.get())
            before = kalshi.connections
            link = await upstream._urgent.get()  # as if it was being kept warm
            assert not upstream._urgent.has_idle
            assert await upstream.own("DELETE", "/x", signed, urgent=True) == (200, b"{}")
            assert kalshi.connections == before
            upstream._urgent.put(link)
            assert await upstream.own("DELETE", "/x", signed, urgent=True) == (200, b"{}")
            assert link.idle_since == max(one.idle_since for one in upstream._urgent._idle)

    run(lambda: Kalshi(*[OK] * 4), use)
