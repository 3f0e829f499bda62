"""Kalshi's side of the door: what was judged goes there as it is, and what comes back goes to the client as it is."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
from aiohttp import WSMsgType, hdrs, web
from yarl import URL

from hsm_keys.proxy.door import refusal
from hsm_keys.proxy.headers import from_kalshi, to_kalshi

if TYPE_CHECKING:
    from types import TracebackType

    from hsm_keys.proxy.metrics import Metrics

__all__ = ["Upstream"]

_CONNECT_S: Final = 5.0
_READ_S: Final = 30.0
_WARM_S: Final = 20.0
_SMALL: Final = 256 * 1024
_LARGEST_MESSAGE: Final = 16 << 20
_WARMING: Final = "/trade-api/v2/exchange/status"  # public: it needs no signature
_ADDED_BY_ITSELF: Final = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)
_WS_OWN: Final = ("sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol")

_log: Final = logging.getLogger(__name__)


class Upstream:
    """Connections to Kalshi; an asynchronous context manager.

    Args:
        base_url: Kalshi's, as ``resolve`` gives it.
        metrics: Hears how long Kalshi took.
        read_s: Seconds without a byte after which Kalshi is given up.
    """

    def __init__(self, base_url: str, metrics: Metrics, *, read_s: float = _READ_S) -> None:
        self._origin = str(URL(base_url).origin())
        self._metrics = metrics
        self._read_s = read_s
        self._session: aiohttp.ClientSession | None = None
        self._warming: asyncio.Task[None] | None = None
        self._relays: set[web.WebSocketResponse] = set()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2 * _WARM_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_ADDED_BY_ITSELF,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._read_s),
        )
        # aiohttp repeats PUT and DELETE on a connection that was closed, and has no public way to leave that.
        self._session._retry_connection = False  # noqa: SLF001
        self._warming = asyncio.create_task(self._keep_warm())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._warming is not None:
            self._warming.cancel()
        await self.close_relays()
        if self._session is not None:
            await self._session.close()

    async def close_relays(self) -> None:
        """Close all WebSocket sessions, for a stop that doesn't wait for them."""
        for relay in list(self._relays):
            await relay.close(code=aiohttp.WSCloseCode.GOING_AWAY)

    async def forward(self, request: web.BaseRequest, body: bytes | None, signed: dict[str, str]) -> web.StreamResponse:
        """Send the request, once, and answer it with what Kalshi says.

        Args:
            request: The client's.
            body: Its body if it was read; else it is streamed.
            signed: The headers that authenticate it.
        """
        headers = to_kalshi(request.headers.items(), signed)
        data: Any = body if body is not None else (request.content if request.body_exists else None)
        started, status = time.perf_counter(), "none"
        try:
            answer = await self._opened().request(
                request.method, self._url(request.raw_path), headers=headers, data=data, allow_redirects=False
            )
            status = str(answer.status)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return refusal(502, "network", "Kalshi can't be reached; nothing was sent")
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            late = isinstance(error, TimeoutError)
            return refusal(504 if late else 502, "outcome_unknown", "Kalshi didn't answer; it may have done the work")
        finally:
            self._metrics.upstream.labels(status).observe(time.perf_counter() - started)
        async with answer:
            return await _pass_on(request, answer)

    async def relay(self, request: web.BaseRequest, signed: dict[str, str]) -> web.StreamResponse:
        """Open a WebSocket at Kalshi, then the client's, and relay messages until either side closes."""
        headers = to_kalshi(request.headers.items(), signed)
        for name in _WS_OWN:
            headers.popall(name, None)
        protocols = [
            name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()
        ]
        try:
            there = await self._opened().ws_connect(
                self._url(request.raw_path),
                headers=headers,
                protocols=protocols,
                autoping=False,
                max_msg_size=_LARGEST_MESSAGE,
            )
        except aiohttp.WSServerHandshakeError as error:
            return refusal(error.status, "websocket", "Kalshi refused the WebSocket")
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
            return refusal(502, "network", "Kalshi can't be reached")
        async with there:
            chosen = [there.protocol] if there.protocol else []
            here = web.WebSocketResponse(autoping=False, protocols=chosen, max_msg_size=_LARGEST_MESSAGE)
            await here.prepare(request)
            self._relays.add(here)
            self._metrics.sessions.inc()
            try:
                await _both_ways(here, there)
            finally:
                self._metrics.sessions.dec()
                self._relays.discard(here)
            return here

    async def _keep_warm(self) -> None:
        """Keep one connection open, so that the first order doesn't wait for TLS."""
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with self._opened().get(self._url(_WARMING)) as answer:
                    await answer.read()
            await asyncio.sleep(_WARM_S)

    def _url(self, target: str) -> URL:
        return URL(self._origin + target, encoded=True)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the upstream isn't open")
        return self._session


async def _pass_on(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = from_kalshi(answer.headers.items())
    length = answer.headers.get("Content-Length", "")
    try:
        if length.isdecimal() and int(length) <= _SMALL:  # one write for head and body
            return web.Response(status=answer.status, reason=answer.reason, headers=headers, body=await answer.read())
    except (aiohttp.ClientError, TimeoutError, ConnectionError):
        return refusal(502, "outcome_unknown", "Kalshi's answer was cut off; it may have done the work")
    passed = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    try:
        await passed.prepare(request)
        async for chunk in answer.content.iter_any():
            await passed.write(chunk)
        await passed.write_eof()
    except (aiohttp.ClientError, TimeoutError, ConnectionError):
        if request.transport is not None:  # the client must not take what it has for the whole
            request.transport.abort()
    return passed


async def _both_ways(here: web.WebSocketResponse, there: aiohttp.ClientWebSocketResponse) -> None:
    """Relay until one side ends, then end the other with the same code."""
    up = asyncio.create_task(_one_way(here, there))
    down = asyncio.create_task(_one_way(there, here))
    _, pending = await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(up, down, return_exceptions=True)


_Side = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _one_way(source: _Side, sink: _Side) -> None:
    """Relay each message when the last one has been taken."""
    try:
        while True:
            message = await source.receive()
            if message.type is WSMsgType.TEXT:
                await sink.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            elif message.type is WSMsgType.PING:
                await sink.ping(message.data)
            elif message.type is WSMsgType.PONG:
                await sink.pong(message.data)
            else:
                break
    except (ConnectionError, aiohttp.ClientError) as error:
        _log.debug("a WebSocket ended: %s", error)
    code = source.close_code or 0
    with suppress(ConnectionError, aiohttp.ClientError):
        await sink.close(code=code if code in range(1000, 1004) or code in range(1007, 5000) else 1001)
