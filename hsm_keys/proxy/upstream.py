"""Forwards a judged request to Kalshi unchanged, and the answer to the client unchanged."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from contextvars import ContextVar
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from hsm_keys.proxy.begun import in_task
from hsm_keys.proxy.frames import FrameError
from hsm_keys.proxy.headers import from_kalshi, to_kalshi
from hsm_keys.proxy.links import Answer, Link, Links, head_begun, request_bytes, with_rest
from hsm_keys.proxy.reaching import network_proxy, reason_of
from hsm_keys.proxy.relay import End, Relay
from hsm_keys.proxy.replies import ClientGoneError, Reply, head_bytes, refusal
from hsm_keys.signing.environments import PERPS, websocket_url
from hsm_keys.signing.message import MARGIN_WEBSOCKET_PATH, WEBSOCKET_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import TracebackType

    from aiohttp.client import ClientTimeout
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from hsm_keys.proxy.client_requests import ClientRequest
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.proxy.running import Running
    from hsm_keys.proxy.sessions import JudgedSession
    from hsm_keys.proxy.signing import RequestSigning

    Sign = Callable[[], Awaitable[dict[str, str]]]
    Hear = Callable[[int, str, bytes], None]

__all__ = ["Upstream"]

_CONNECT_S: Final = 10.0
_READ_S: Final = 30.0
_WARM_S: Final = 20.0
_OWN_LIMIT: Final = 1 << 20
_HEARD_LIMIT: Final = 4 << 20
"""Bytes of an answer that are read for what they say of orders; what a longer one is about is looked up."""

_WARMING: Final = "/trade-api/v2/exchange/status"  # public: it needs no signature
_ADDED_BY_ITSELF: Final = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)
_UPGRADE: Final = {hdrs.CONNECTION: "Upgrade", hdrs.UPGRADE: "websocket"}
_SWITCHING: Final = 101

_NOT_CONNECTED: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
)
"""Errors before anything was sent."""

_log: Final = logging.getLogger(__name__)
_sign: ContextVar[Sign | None] = ContextVar("_sign", default=None)
"""Signs the request that is being sent; None for one that needs no signature."""


class _SigningConnector(aiohttp.TCPConnector):
    """Has a request signed when there is a connection to send it on.

    So the timestamp isn't older for a name that was slow to resolve or a TLS that was slow to open, and nothing is
    signed, or sent after a freeze, for a Kalshi that can't be reached.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - the library's
    ) -> Connection:
        """Return a connection, and sign the request that will be sent on it."""
        sign = _sign.get()
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
        return connection


class Upstream:
    """Connections to Kalshi; an asynchronous context manager.

    Args:
        base_url: Kalshi's, as ``resolve`` gives it.
        ws_url: The WebSocket's URL, where that isn't told by the base URL; see ``websocket_url``.
        metrics: Hears how long Kalshi took.
        read_s: Seconds without a byte after which Kalshi is given up.

    Raises:
        UsageError: If the network's proxy, as the environment names it, can't be used.
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
        self._relays: set[Relay] = set()
        self._proxies = {origin: network_proxy(origin) for origin in (self._origin, *self._websocket_origins.values())}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=_SigningConnector(limit=0, keepalive_timeout=2 * _WARM_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_ADDED_BY_ITSELF,
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=self._read_s),
        )
        # aiohttp repeats PUT and DELETE on a closed connection, and has no public option against it.
        self._session._retry_connection = False  # noqa: SLF001
        proxy = self._proxies[self._origin]
        self._links, self._urgent = (Links(self._origin, proxy, read_s=self._read_s) for _ in range(2))
        self._warming = asyncio.create_task(self._keep_warm())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._warming is not None:
            self._warming.cancel()
        await self.close_relays()
        if self._session is not None:
            await self._links.close()
            await self._urgent.close()
            await self._session.close()

    async def close_relays(self) -> None:
        """Close all WebSocket sessions, for a stop that doesn't wait for them."""
        relays = list(self._relays)
        for relay in relays:
            relay.part()
        await asyncio.gather(*(relay.ended() for relay in relays))

    async def forward(
        self, request: ClientRequest, body: bytes | None, signing: RequestSigning, hear: Hear | None = None
    ) -> Reply:
        """Send the request and answer it with what Kalshi says.

        It is sent once; once more if Kalshi's 401 may be due to its key or its age.

        Args:
            request: The client's.
            body: Its body; None if it has none.
            signing: Signs it, when there is a connection.
            hear: Called with status, Content-Encoding and body of Kalshi's answer once it was passed on, and before
                anybody's next request is read.

        Raises:
            ClientGoneError: If the client has gone; nothing was sent then.
            HsmKeysError: Whatever signing raises; the same.
        """
        while True:
            answer = await self._sent(request, body, signing)
            if isinstance(answer, Reply):
                return answer
            try:
                with answer:
                    if answer.status < HTTPStatus.OK:  # a switch of protocols, for which nobody asked
                        return refusal(502, "outcome_unknown", "Kalshi's answer isn't one")
                    if answer.status == HTTPStatus.UNAUTHORIZED and await signing.is_worth_another(answer.status):
                        continue
                    return await _pass_on(request, answer, self._read_s, hear)
            finally:
                self._metrics.answered(str(answer.status)).observe(answer.at - answer.sent_at)

    async def _sent(self, request: ClientRequest, body: bytes | None, signing: RequestSigning) -> Answer | Reply:
        """Return Kalshi's answer, whose head was read already, or a refusal instead."""
        try:
            link, signed = await self._signed_link(self._links, signing.headers)
        except (aiohttp.ClientError, ConnectionError) as error:
            self._metrics.answered("none").observe(0.0)
            return _unreached(error, "network", "Kalshi can't be reached ({}); nothing was sent")
        started = time.perf_counter()
        begun = request.head.to_kalshi
        if not begun:
            target = request.raw_path.removesuffix("?")
            begun = head_begun(request.method, target, self._links.host, to_kalshi(request.headers))
            request.head.to_kalshi = begun
        try:
            return await link.exchange(with_rest(begun, request.method, signed.items(), body))
        except BaseException as error:
            self._metrics.answered("none").observe(time.perf_counter() - started)
            if isinstance(error, (TimeoutError, aiohttp.ClientError, OSError)):
                return _unreached(error, "outcome_unknown", "Kalshi didn't answer ({}); it may have done the work")
            raise

    @staticmethod
    async def _signed_link(links: Links, sign: Sign) -> tuple[Link, dict[str, str]]:
        """Return a connection, and headers that were signed when it was open."""
        link = await links.get()
        while True:
            try:
                signed = await sign()
            except BaseException:
                links.put(link)
                raise
            if link.is_open:
                return link, signed
            links.put(link)  # closed while it was signed
            link = await links.get()

    async def own(self, method: str, target: str, sign: Sign, *, urgent: bool = False) -> tuple[int, bytes]:
        """Send a request of the proxy's own, signed when there is a connection; return Kalshi's status and the body.

        Args:
            method: Its method.
            target: Its path and query.
            sign: Signs it.
            urgent: Whether it goes on a connection that is kept for such requests alone; on another one that is open,
                if that one is in use.

        Raises:
            aiohttp.ClientError: If Kalshi can't be reached, doesn't answer, or answers with more than 1 MiB.
            HsmKeysError: Whatever signing raises; nothing was sent then.
        """
        apart = urgent and (self._urgent.has_idle or not self._links.has_idle)  # it may be busy being kept warm
        link, signed = await self._signed_link(self._urgent if apart else self._links, sign)
        try:
            with await link.exchange(request_bytes(method, target, self._links.host, signed.items())) as answer:
                body = await answer.read(_OWN_LIMIT)
                if len(body) > _OWN_LIMIT:
                    raise aiohttp.ClientPayloadError("the answer is too long")
                return answer.status, body
        except TimeoutError:
            raise aiohttp.ServerTimeoutError from None
        except OSError as error:
            raise aiohttp.ClientOSError(error.errno, error.strerror) from None

    async def relay(
        self,
        request: ClientRequest,
        signing: RequestSigning,
        running: Running,
        judged: JudgedSession | None = None,
    ) -> Reply:
        """Open a WebSocket at Kalshi, then the client's, and pass everything on until both are closed.

        Args:
            request: The client's handshake.
            signing: Signs it, when there is a connection.
            running: May stop it.
            judged: Judges what the client sends over it; None passes on everything.

        Raises:
            ClientGoneError: If the client has gone; nothing was sent then.
            HsmKeysError: Whatever signing raises; the same.
        """
        answer = await self._handshake(request, signing)
        while isinstance(answer, aiohttp.ClientResponse) and await signing.is_worth_another(answer.status):
            answer.close()
            answer = await self._handshake(request, signing)
        if isinstance(answer, Reply):
            return answer
        async with answer:
            if answer.status != _SWITCHING:
                status = answer.status if answer.status >= HTTPStatus.BAD_REQUEST else HTTPStatus.BAD_GATEWAY
                return refusal(status, "websocket", f"Kalshi refused the WebSocket with status {answer.status}")
            there = _end_of(answer)
            if there is None:
                return refusal(HTTPStatus.BAD_GATEWAY, "websocket", "Kalshi's answer to the handshake isn't one")
            if judged is not None:
                try:
                    judged.begin(", ".join(answer.headers.getall(hdrs.SEC_WEBSOCKET_EXTENSIONS, [])))
                except FrameError as error:
                    return refusal(HTTPStatus.BAD_GATEWAY, "websocket", error.reason)
            if request.transport is None or request.connection is None:
                raise ClientGoneError
            headers = from_kalshi(answer.headers.items())
            headers.update(_UPGRADE)
            request.begin(head_bytes(_SWITCHING, answer.reason or "", headers))
            connection = request.connection
            former = request.transport.get_protocol()
            here = End(request.transport, former, lambda end: connection.hand_over(end.feed_data))
            relay = Relay(here, there, judged)
            running.end_by(relay.part)
            await self._run(relay)
            return Reply(_SWITCHING, is_sent=True)

    async def _run(self, relay: Relay) -> None:
        self._relays.add(relay)
        self._metrics.sessions.inc()
        try:
            await relay.run()
        finally:
            self._metrics.sessions.dec()
            self._relays.discard(relay)

    async def _handshake(self, request: ClientRequest, signing: RequestSigning) -> aiohttp.ClientResponse | Reply:
        """Return Kalshi's answer to the client's handshake, or a refusal in its place."""
        await in_task()
        signs = _sign.set(signing.headers)
        path = request.raw_path.partition("?")[0]
        origin = self._websocket_origins.get(path, self._websocket_origins[WEBSOCKET_PATH])
        headers = CIMultiDict(to_kalshi(request.headers))
        headers.update(_UPGRADE)
        try:
            return await self._request("GET", origin, request.raw_path, headers)
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            return _unreached(error, "network", "Kalshi can't be reached ({})")
        finally:
            _sign.reset(signs)

    async def _request(
        self,
        method: str,
        origin: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the upstream isn't open")
        url, proxy = URL(origin + target, encoded=True), self._proxies[origin]
        return await self._session.request(method, url, headers=headers, data=body, allow_redirects=False, proxy=proxy)

    async def _keep_warm(self) -> None:
        """Keep two connections open: the first order doesn't wait for TLS, nor does what stops all orders."""
        while True:
            for links in (self._links, self._urgent):
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    link = await links.get()
                    with await link.exchange(request_bytes("GET", _WARMING, links.host, ())) as answer:
                        await answer.read(_OWN_LIMIT)
                links.tidy()
            await asyncio.sleep(_WARM_S)


def _end_of(answer: aiohttp.ClientResponse) -> End | None:
    """Return Kalshi's end of a connection that has switched to WebSockets; None if it hasn't."""
    protocol = answer.connection.protocol if answer.connection is not None else None
    if protocol is None or protocol.transport is None or not protocol.upgraded:
        return None
    return End(protocol.transport, protocol, lambda end: protocol.set_parser(end, end))


def _unreached(error: BaseException, code: str, message: str) -> Reply:
    """Answer, and log, that Kalshi wasn't reached, or didn't answer."""
    message = message.format(reason_of(error))
    _log.warning("%s", message)
    late = code != "network" and isinstance(error, TimeoutError)
    return refusal(HTTPStatus.GATEWAY_TIMEOUT if late else HTTPStatus.BAD_GATEWAY, code, message)


async def _after(begun: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if begun:  # an empty piece would end a body in chunks
        yield begun
    async for piece in rest:
        yield piece


async def _pass_on(request: ClientRequest, answer: Answer, stalled_s: float, hear: Hear | None) -> Reply:
    reply = Reply(answer.status, answer.reason.decode("utf-8", "surrogateescape"), from_kalshi(answer.headers))
    begun = b""
    try:
        if hear is not None or answer.is_whole:  # one write for head and body
            begun = await answer.read(_HEARD_LIMIT)
            if len(begun) <= _HEARD_LIMIT:
                reply.body = begun
                request.answer(reply)
                if hear is not None:
                    hear(answer.status, reply.headers.get(hdrs.CONTENT_ENCODING, ""), reply.body)
                return reply
    except (aiohttp.ClientError, TimeoutError, OSError):
        return refusal(502, "outcome_unknown", "Kalshi's answer was cut off; it may have done the work")
    try:
        await request.stream(reply, _after(begun, answer.chunks()), stalled_s)
    except (aiohttp.ClientError, TimeoutError, OSError):
        if request.transport is not None:  # the client must not take the part that it got for the whole answer
            request.transport.abort()
        reply.is_sent = True
    return reply
