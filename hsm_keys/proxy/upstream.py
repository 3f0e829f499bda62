"""Kalshi's side of the door: what was judged goes there as it is, and what comes back goes to the client as it is."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from aiohttp import WSMsgType, hdrs, web
from yarl import URL

from hsm_keys.errors import HsmKeysError
from hsm_keys.proxy.headers import from_kalshi, to_kalshi
from hsm_keys.proxy.refusing import ClientGoneError, refusal
from hsm_keys.signing.environments import PERPS, websocket_url
from hsm_keys.signing.message import MARGIN_WEBSOCKET_PATH, WEBSOCKET_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.proxy.signing import RequestSigning

    Sign = Callable[[], Awaitable[dict[str, str]]]

__all__ = ["Upstream"]

_CONNECT_S: Final = 10.0
_READ_S: Final = 30.0
_WARM_S: Final = 20.0
_SMALL: Final = 256 * 1024
_NO_CODE: Final = 1005
_LARGEST_MESSAGE: Final = 16 << 20
_WARMING: Final = "/trade-api/v2/exchange/status"  # public: it needs no signature
_ADDED_BY_ITSELF: Final = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)
_WS_OWN: Final = ("sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol")

_log: Final = logging.getLogger(__name__)
_sign: ContextVar[Sign | None] = ContextVar("_sign", default=None)
"""Signs the request that is being sent; None for one that needs no signature."""


class _RedirectedError(aiohttp.ClientError):
    """The library follows redirects of WebSockets, to wherever they lead, and can't be told not to."""


async def _signed_once() -> dict[str, str]:
    raise _RedirectedError


class _SigningConnector(aiohttp.TCPConnector):
    """Has a request signed when there is a connection to send it on.

    So the timestamp isn't older for a name that was slow to resolve or a TLS that was slow to open, and nothing is
    signed, or sent after a freeze, for a Kalshi that can't be reached.
    """

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - the library's
    ) -> Connection:
        """Return a connection, and sign the request that will be sent on it."""
        sign = _sign.get()
        if sign is _signed_once:
            raise _RedirectedError
        connection = await super().connect(req, traces, timeout)
        if sign is None:
            return connection
        try:
            signed = await sign()
            if connection.protocol is None or not connection.protocol.is_connected():  # closed while it was signed
                connection.close()
                connection = await super().connect(req, traces, timeout)
                signed = await sign()
        except BaseException:
            connection.release()
            raise
        req.headers.update(signed)
        _sign.set(_signed_once)
        return connection


class Upstream:
    """Connections to Kalshi; an asynchronous context manager.

    Args:
        base_url: Kalshi's, as ``resolve`` gives it.
        ws_url: The WebSocket's URL, where that isn't told by the base URL; see ``websocket_url``.
        metrics: Hears how long Kalshi took.
        read_s: Seconds without a byte after which Kalshi is given up.
    """

    def __init__(self, base_url: str, metrics: Metrics, *, ws_url: str | None = None, read_s: float = _READ_S) -> None:
        self._origin = str(URL(base_url).origin())
        self._websocket_origins = {
            path: str(URL(websocket_url(base_url=base_url, exchange=exchange, ws_url=ws_url)).origin())
            for path, exchange in ((WEBSOCKET_PATH, None), (MARGIN_WEBSOCKET_PATH, PERPS))
        }
        self._metrics = metrics
        self._read_s = read_s
        self._session: aiohttp.ClientSession | None = None
        self._warming: asyncio.Task[None] | None = None
        self._relays: set[web.WebSocketResponse] = set()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=_SigningConnector(limit=0, keepalive_timeout=2 * _WARM_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_ADDED_BY_ITSELF,
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=self._read_s),
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

    async def forward(
        self, request: web.BaseRequest, body: bytes | AsyncIterator[bytes] | None, signing: RequestSigning
    ) -> web.StreamResponse:
        """Send the request and answer it with what Kalshi says.

        It is sent once; once more, where its body is still there, if Kalshi's 401 may be due to its key or its age.

        Args:
            request: The client's.
            body: Its body, whole or as it comes.
            signing: Signs it, when there is a connection.

        Raises:
            ClientGoneError: If the client has gone; nothing was sent then.
            HsmKeysError: Whatever signing raises; the same.
        """
        while True:
            answer = await self._sent(request, body, signing)
            if isinstance(answer, web.Response):
                return answer
            async with answer:
                if answer.status < 200:  # noqa: PLR2004 - 101: nobody asked for another protocol
                    answer.close()
                    return refusal(502, "outcome_unknown", "Kalshi's answer isn't one")
                again = await signing.is_worth_another(answer.status)
                if not again or not isinstance(body, bytes | None):
                    return await _pass_on(request, answer, self._read_s)

    async def _sent(
        self, request: web.BaseRequest, body: bytes | AsyncIterator[bytes] | None, signing: RequestSigning
    ) -> aiohttp.ClientResponse | web.Response:
        """Return Kalshi's answer, of which the head was read, or a refusal in its place."""
        started = time.perf_counter()
        status: str | None = "none"

        async def sign_and_start() -> dict[str, str]:
            nonlocal started
            signed = await signing.headers()
            started = time.perf_counter()
            return signed

        _sign.set(sign_and_start)
        headers = to_kalshi(request.headers.items())
        try:
            answer = await self._opened().request(
                request.method, self._url(request.raw_path), headers=headers, data=body, allow_redirects=False
            )
            status = str(answer.status)
        except (HsmKeysError, ClientGoneError):
            status = None  # this says nothing of Kalshi
            raise
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return refusal(502, "network", "Kalshi can't be reached; nothing was sent")
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            late = isinstance(error, TimeoutError)
            return refusal(504 if late else 502, "outcome_unknown", "Kalshi didn't answer; it may have done the work")
        finally:
            if status is not None:
                self._metrics.answered(status).observe(time.perf_counter() - started)
        return answer

    async def get(self, path: str, sign: Sign) -> tuple[int, bytes]:
        """Send a request of the proxy's own, signed when there is a connection; return Kalshi's status and the body.

        Raises:
            aiohttp.ClientError: If Kalshi can't be reached, or doesn't answer.
            HsmKeysError: Whatever signing raises; nothing was sent then.
        """
        _sign.set(sign)
        async with self._opened().request("GET", self._url(path), allow_redirects=False) as answer:
            return answer.status, await answer.read()

    async def relay(self, request: web.BaseRequest, signing: RequestSigning) -> web.StreamResponse:
        """Open a WebSocket at Kalshi, then the client's, and relay messages until either side closes.

        Args:
            request: The client's handshake.
            signing: Signs Kalshi's, when there is a connection.

        Raises:
            ClientGoneError: If the client has gone; nothing was sent then.
            HsmKeysError: Whatever signing raises; the same.
        """
        there = await self._opened_there(request, signing)
        while isinstance(there, int) and await signing.is_worth_another(there):
            there = await self._opened_there(request, signing)
        if isinstance(there, int):
            status = there if there >= 400 else 502  # noqa: PLR2004 - the classes of HTTP's statuses
            return refusal(status, "websocket", f"Kalshi refused the WebSocket with status {there}")
        if isinstance(there, web.Response):
            return there
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

    async def _opened_there(
        self, request: web.BaseRequest, signing: RequestSigning
    ) -> aiohttp.ClientWebSocketResponse | web.Response | int:
        """Return Kalshi's WebSocket, the status with which Kalshi refuses one, or a refusal of the proxy's own."""
        _sign.set(signing.headers)
        headers = to_kalshi(request.headers.items())
        for name in _WS_OWN:
            headers.popall(name, None)
        protocols = [
            name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()
        ]
        try:
            return await self._opened().ws_connect(
                self._websocket_url(request.raw_path),
                headers=headers,
                protocols=protocols,
                autoping=False,
                max_msg_size=_LARGEST_MESSAGE,
            )
        except aiohttp.WSServerHandshakeError as error:
            return error.status
        except _RedirectedError:
            return refusal(502, "websocket", "Kalshi redirects the WebSocket, which isn't followed")
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
            return refusal(502, "network", "Kalshi can't be reached")

    async def _keep_warm(self) -> None:
        """Keep one connection open, so that the first order doesn't wait for TLS."""
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with self._opened().get(self._url(_WARMING), allow_redirects=False) as answer:
                    await answer.read()
            await asyncio.sleep(_WARM_S)

    def _url(self, target: str) -> URL:
        return URL(self._origin + target, encoded=True)

    def _websocket_url(self, target: str) -> URL:
        path = target.partition("?")[0]
        origin = self._websocket_origins.get(path, self._websocket_origins[WEBSOCKET_PATH])
        return URL(origin + target, encoded=True)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the upstream isn't open")
        return self._session


async def _pass_on(request: web.BaseRequest, answer: aiohttp.ClientResponse, stalled_s: float) -> web.StreamResponse:
    headers = from_kalshi(answer.headers.items())
    length = headers.get("Content-Length", "")
    try:
        if length.isdecimal() and int(length) <= _SMALL:  # one write for head and body
            return web.Response(status=answer.status, reason=answer.reason, headers=headers, body=await answer.read())
    except (aiohttp.ClientError, TimeoutError, ConnectionError):
        return refusal(502, "outcome_unknown", "Kalshi's answer was cut off; it may have done the work")
    passed = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    try:
        await passed.prepare(request)
        async for chunk in answer.content.iter_any():
            async with asyncio.timeout(stalled_s):  # a client that takes nothing
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
    """Relay each message when the last one has been taken, and then the close with its code and reason."""
    reason = b""
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
                if message.type is WSMsgType.CLOSE and isinstance(message.extra, str):
                    reason = message.extra.encode()
                break
    except (ConnectionError, aiohttp.ClientError) as error:
        _log.debug("a WebSocket ended: %s", error)
    with suppress(ConnectionError, aiohttp.ClientError):
        await sink.close(code=_sent_code(source.close_code), message=reason)


def _sent_code(code: int | None) -> int:
    """Return the close code to send on: not all of those that tell how it ended can be sent (RFC 6455, section 7.4)."""
    if code in {0, _NO_CODE}:
        return aiohttp.WSCloseCode.OK
    sendable = (range(1000, 1004), range(1007, 1015), range(3000, 5000))
    return code if code is not None and any(code in codes for codes in sendable) else aiohttp.WSCloseCode.GOING_AWAY
