"""Connections to Kalshi that are kept for requests: one request at a time on each, its answer read by llhttp.

They are opened by aiohttp's connector (names, TLS, the network's proxy) and led by this module from then on: the
library's client costs several times what the rest of a forwarded request does. Nothing is ever sent twice here: a
connection that Kalshi closes before it has answered is an error, whatever the method was.
"""

from __future__ import annotations

import asyncio
import select
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from yarl import URL

from hsm_keys.proxy.begun import in_task
from hsm_keys.proxy.prompt_future import PromptFuture
from hsm_keys.proxy.reaching import NotHttpError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from types import TracebackType

    from aiohttp.connector import Connection

__all__ = ["Answer", "Link", "Links", "head_begun", "request_bytes", "with_rest"]

_SMALL: Final = 256 * 1024
"""Bytes of a body up to which an answer is awaited whole."""

_CONNECT_S: Final = 10.0
_KEPT_S: Final = 40.0
_LONGEST_HEAD: Final = 32 * 1024
_SENT_WITH_LENGTH: Final = frozenset({"POST", "PUT", "PATCH"})  # RFC 9110, section 8.6
_SWITCHING: Final = 101
_FINAL: Final = 200
"""The first status that isn't one of an answer on the way (RFC 9110, section 15.2)."""


def request_bytes(
    method: str, target: str, host: str, headers: Iterable[tuple[str, str]], body: bytes | None = None
) -> bytes:
    """Return a request as it goes over the wire (RFC 9112).

    Args:
        method: Its method.
        target: Its path and query.
        host: Its Host.
        headers: Further headers, but for those of its length.
        body: Its body; None if it has none.

    Raises:
        ValueError: If a part holds a line's end.
    """
    return with_rest(head_begun(method, target, host, headers), method, (), body)


def head_begun(method: str, target: str, host: str, headers: Iterable[tuple[str, str]]) -> str:
    """Return the lines with which a request begins; see ``request_bytes``."""
    return _lines(f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers))


def with_rest(begun: str, method: str, headers: Iterable[tuple[str, str]], body: bytes | None = None) -> bytes:
    """Return a request that begins with such lines, as it goes over the wire; see ``request_bytes``."""
    lines = [f"{name}: {value}" for name, value in headers]
    if body is not None or method in _SENT_WITH_LENGTH:
        lines.append(f"Content-Length: {len(body or b'')}")
    head = f"{begun}{_lines(*lines)}\r\n".encode("utf-8", "surrogateescape")
    return head + body if body else head


def _lines(*lines: str) -> str:
    text = "".join([f"{line}\r\n" for line in lines])
    if text.count("\n") > len(lines) or text.count("\r") > len(lines):
        raise ValueError("a part of the request holds a line's end")
    return text


class Answer:
    """Kalshi's answer, of which the head is there; a context manager, at whose end its connection is kept or closed.

    Attributes:
        status: Its status.
        reason: The words behind the status.
        headers: Its headers, in their order; trailers aren't among them.
        body: What has come of the body and wasn't taken yet.
        is_whole: Whether all has come.
        sent_at: When its request was sent (``time.perf_counter``).
        at: When its head had come.
    """

    __slots__ = ("_link", "at", "body", "headers", "is_whole", "reason", "sent_at", "status")

    def __init__(self, link: Link) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.is_whole = False
        self.sent_at = time.perf_counter()
        self.at = 0.0
        self._link = link

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            aiohttp.ClientError: If it is cut off.
            TimeoutError: If nothing came for too long.
        """
        while self.body or not self.is_whole:
            if not self.body:
                await self._link.more()
                continue
            chunk = bytes(self.body)
            self.body.clear()
            self._link.transport.resume_reading()
            yield chunk

    async def read(self, limit: float = inf) -> bytes:
        """Return the body; of one that is longer than so many bytes the beginning, and ``chunks`` has the rest.

        Raises what ``chunks`` does.
        """
        if self.is_whole and len(self.body) <= limit:
            begun = bytes(self.body)
            self.body.clear()
            return begun
        pieces = bytearray()
        async for piece in self.chunks():
            pieces += piece
            if len(pieces) > limit:
                break
        return bytes(pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.end()


class Links:
    """The connections to one origin.

    Args:
        origin: Kalshi's scheme, host and port.
        proxy: The network's proxy on the way there.
        read_s: Seconds without a byte after which Kalshi is given up.
    """

    def __init__(self, origin: str, proxy: URL | None, *, read_s: float) -> None:
        self._url = URL(origin)
        self._proxy = proxy
        self.read_s: Final = read_s
        self.host: Final = self._url.host_port_subcomponent or ""
        self._connector = aiohttp.TCPConnector(limit=0)
        self._idle: list[Link] = []
        self._busy: set[Link] = set()

    async def get(self) -> Link:
        """Return a connection that is open and idle; the one that was used last, or a new one.

        Raises:
            aiohttp.ClientError: If none can be opened; nothing was sent.
        """
        while self._idle:
            link = self._idle.pop()
            if link.is_quiet and link.loop.time() - link.idle_since < _KEPT_S:
                self._busy.add(link)
                return link
            link.close()
        await in_task()
        request = aiohttp.ClientRequest("GET", self._url, loop=asyncio.get_running_loop(), proxy=self._proxy)
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S)
        try:
            connection = await self._connector.connect(request, [], timeout)
        except TimeoutError:
            raise aiohttp.ConnectionTimeoutError from None
        link = Link(self, connection)
        self._busy.add(link)
        return link

    @property
    def has_idle(self) -> bool:
        """Whether there is a connection that needn't be opened."""
        return any(link.is_open for link in self._idle)

    def put(self, link: Link) -> None:
        """Take back a connection that was got: it is kept if the next request may go on it, else closed."""
        self._busy.discard(link)
        if link.may_be_kept:
            link.idle_since = link.loop.time()
            self._idle.append(link)
        else:
            link.close()

    def forget(self, link: Link) -> None:
        """Keep no connection that was closed."""
        with suppress(ValueError):
            self._idle.remove(link)

    def tidy(self) -> None:
        """Close what has been idle for long."""
        for link in [link for link in self._idle if link.loop.time() - link.idle_since >= _KEPT_S]:
            link.close()

    async def close(self) -> None:
        """Close them all."""
        for link in [*self._idle, *self._busy]:
            link.close()
        await self._connector.close()


class Link(asyncio.Protocol):
    """One connection. Bytes that nobody asked for are a reason to close it: the next answer must not be another's."""

    def __init__(self, links: Links, connection: Connection) -> None:
        former = connection.protocol
        if former is None or former.transport is None:
            raise aiohttp.ServerDisconnectedError
        self.loop = asyncio.get_running_loop()
        self.idle_since = self.loop.time()
        self.transport: asyncio.Transport = former.transport
        self._links = links
        self._connection = connection  # aiohttp counts it as in use, until it is closed
        self._former = former
        self._parser = HttpResponseParser(self)
        self._answer: Answer | None = None
        self._waiter: PromptFuture | None = None
        self._failure: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._head_size = 0
        self._has_head = self._is_on_the_way = self._ends_with_connection = self._comes_in_parts = False
        self._has_news = False
        self._length: str | None = None
        self._codings: list[str] = []
        self._keeps_alive = True
        self._unread = select.poll()
        self._unread.register(self.transport.get_extra_info("socket"), select.POLLIN | select.POLLHUP)
        self.transport.set_protocol(self)
        self.transport.resume_reading()

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent on it."""
        return self._failure is None and not self.transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Whether a request can be sent on it, and nothing has come that the event loop hasn't read yet.

        Without that look, a request would go to a Kalshi that has just closed the connection, and its outcome would be
        unknown; or what nobody asked for would be taken for its answer.
        """
        return self.is_open and not self._unread.poll(0)

    @property
    def may_be_kept(self) -> bool:
        """Whether the next request can; not behind an answer that came before its request was sent to the end."""
        ended = self._answer is None and not self.transport.get_write_buffer_size()
        return self._keeps_alive and ended and self.is_open

    async def exchange(self, request: bytes) -> Answer:
        """Send a request, once, and return its answer: whole if it is small and says its length, else at its head.

        Raises:
            aiohttp.ClientError: If the connection is closed before, or the answer isn't HTTP.
            OSError: If the connection breaks.
            TimeoutError: If nothing came for too long.
        """
        answer = self._answer = Answer(self)
        self._has_head = self._ends_with_connection = self._comes_in_parts = False
        self._length, self._codings = None, []
        self._head_size = 0
        self._heard_at = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(self._links.read_s, self._look_at_the_clock)
        self.transport.write(request)
        try:
            await self.more()
        except BaseException:
            self.end()
            raise
        return answer

    async def more(self) -> None:
        """Wait until more of the answer has come than was there when it was asked."""
        if self._failure is not None:
            raise self._failure
        self._waiter = PromptFuture(loop=self.loop)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def end(self) -> None:
        """Be done with the answer, however much of it has come."""
        answer, self._answer = self._answer, None
        if answer is None or not answer.is_whole:
            self._keeps_alive = False
        self._links.put(self)

    def close(self) -> None:
        """Close it."""
        self._stop_the_clock()
        self._links.forget(self)
        self._connection.close()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        answer = self._answer
        if answer is None or answer.is_whole:
            self._keeps_alive = False
            if answer is None:
                self.close()
            return
        self._heard_at = self.loop.time()
        if not self._has_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._keeps_alive = False
        except HttpParserError:
            self._keeps_alive = False
            if not answer.is_whole:
                self._fail(NotHttpError())
                return
        if not self._has_head and self._head_size > _LONGEST_HEAD:
            self._fail(NotHttpError())
        elif len(answer.body) > _SMALL:
            self.transport.pause_reading()
        self._tell()

    def on_message_begin(self) -> None:
        """Notice what comes behind an answer."""
        if self._answer is None or self._answer.is_whole:
            self._keeps_alive = False
            raise ValueError("nobody asked for a second answer")

    def on_status(self, reason: bytes) -> None:
        """Keep the words behind the status."""
        if self._answer is not None:
            self._answer.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes behind the body are trailers, which end here."""
        if self._answer is None or self._has_head:
            return
        if len(name) + len(value) > _LONGEST_HEAD:
            raise ValueError("a header is too long")
        text = value.decode("utf-8", "surrogateescape").strip(" \t")
        self._answer.headers.append((name.decode("ascii"), text))
        folded = name.lower()
        if folded == b"content-length":
            self._length = text
        elif folded == b"transfer-encoding":
            self._codings.append(text.lower())

    def on_headers_complete(self) -> None:
        """Look how the answer goes on."""
        answer = self._answer
        if answer is None:
            return
        answer.status = self._parser.get_status_code()
        self._is_on_the_way = 100 <= answer.status < _FINAL and answer.status != _SWITCHING  # noqa: PLR2004 - the class
        if self._is_on_the_way:  # hints, which end here
            answer.headers.clear()
            answer.reason = b""
            self._length, self._codings = None, []
            return
        self._has_head = True
        version = self._parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise ValueError("the answer is of another version")
        self._keeps_alive = version == "1.1" and answer.status >= _FINAL and self._parser.should_keep_alive()
        answer.at = time.perf_counter()
        is_chunked = self._codings == ["chunked"]
        if self._codings and not is_chunked:  # the client would have the coded bytes, and not know it
            raise ValueError("nobody asked for a coding")
        self._ends_with_connection = not is_chunked and self._length is None
        is_long = int(self._length or 0) > _SMALL
        self._comes_in_parts = is_chunked or self._ends_with_connection or is_long or answer.status == _SWITCHING
        if self._comes_in_parts:
            self._has_news = True

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if self._answer is not None and self._has_head:
            self._answer.body += body
            if self._comes_in_parts:
                self._has_news = True

    def on_message_complete(self) -> None:
        """Note that all has come."""
        if self._answer is None or self._is_on_the_way:
            return
        self._answer.is_whole = True
        self._keeps_alive = self._keeps_alive and self._parser.should_keep_alive()  # trailers count there too
        self._has_news = True

    def eof_received(self) -> None:
        """Nothing: ``connection_lost`` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End an answer that ends with its connection; fail for any other one."""
        answer = self._answer
        if answer is not None and not answer.is_whole:
            if self._has_head and self._ends_with_connection and exc is None:
                answer.is_whole = self._has_news = True
            elif self._has_head:
                self._fail(aiohttp.ClientPayloadError("the answer was cut off"))
            else:
                self._fail(exc if isinstance(exc, OSError) else aiohttp.ServerDisconnectedError())
        self._keeps_alive = False
        self._stop_the_clock()
        self._links.forget(self)
        self._former.connection_lost(exc)
        self._connection.close()
        self._tell()

    def _look_at_the_clock(self) -> None:
        """Give up an answer of which nothing has come for too long; one timer serves many requests."""
        self._timer = None
        if self._answer is None:
            return
        left = self._heard_at + self._links.read_s - self.loop.time()
        if self._waiter is None:  # nobody waits for Kalshi: a client takes its time
            left = self._links.read_s
        if left > 0:
            self._timer = self.loop.call_later(left, self._look_at_the_clock)
        else:
            self._fail(TimeoutError())

    def _stop_the_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._keeps_alive = False
        if self._waiter is not None:
            self._waiter.fail(error)
        self.transport.abort()

    def _tell(self) -> None:
        """Let whoever waits go on, if there is something new; last of all, as the next request may go out in here."""
        has_news, self._has_news = self._has_news, False
        if has_news and self._waiter is not None:
            self._waiter.arrive()
