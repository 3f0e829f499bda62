"""The HTTP side: every request is recorded, judged, hit by its faults, and answered."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from hsm_keys.kalshi.operations import WEBSOCKETS, Operation
from hsm_keys.sandbox import control
from hsm_keys.sandbox.auth import KEY_HEADER, TIMESTAMP_HEADER, authenticate, authorise
from hsm_keys.sandbox.faults import Fault, FaultKind
from hsm_keys.sandbox.routes import HANDLERS, SERVED
from hsm_keys.sandbox.websocket import Sessions
from hsm_keys.sandbox.wire import Call, SandboxAnswer, WireError, of_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

    from hsm_keys.sandbox.faults import Faults, Plan
    from hsm_keys.sandbox.recording import RecordedRequest, Recorder
    from hsm_keys.sandbox.state import SandboxKey, SandboxState

__all__ = ["SandboxParts", "build_apps"]

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SandboxParts:
    """What the application works on."""

    state: SandboxState
    faults: Faults
    recorder: Recorder
    clock_ms: Callable[[], int]
    ping_every_s: float


def build_apps(exchange: SandboxParts) -> tuple[web.Application, web.Application]:
    """Return two aiohttp applications: of the REST API, with the control endpoints beside it, and of the WebSockets.

    At Kalshi they have hosts of their own; here they have ports, so that a mix-up is found out.
    """
    front = _Front(exchange)
    rest, sockets = (web.Application(middlewares=[front.catch_unknown]) for _ in range(2))
    for operation in sorted(SERVED, key=lambda served: served.path.count("{")):  # literal segments come first
        app = sockets if operation in WEBSOCKETS else rest
        app.router.add_route(operation.method, operation.route, front.handler(operation))
    control.add_routes(rest.router, exchange.faults, exchange.recorder)
    sockets.on_shutdown.append(front.sessions.close)
    return rest, sockets


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A request that has come in: which operation it is for, who sent it, and what is to go wrong."""

    request: web.Request
    operation: Operation | None
    caller: SandboxKey | WireError | None
    plan: Plan
    record: RecordedRequest

    @property
    def hit_by(self) -> FaultKind | None:
        """The kind of fault that hits it, latencies apart."""
        return self.plan.fault.kind if self.plan.fault is not None else None


class _Front:
    """Takes requests as they come off the wire."""

    def __init__(self, exchange: SandboxParts) -> None:
        self._exchange = exchange
        self.sessions = Sessions(exchange.clock_ms, exchange.ping_every_s)

    def handler(self, operation: Operation) -> Handler:
        """Return the aiohttp handler for one operation."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._serve(request, operation if _is_meant(operation, request.path) else None)

        return handle

    @property
    def catch_unknown(self) -> Middleware:
        """The middleware that gives requests for what isn't served the same treatment."""

        @web.middleware
        async def catch(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.match_info.http_exception is None:
                return await handler(request)
            return await self._serve(request, None)

        return catch

    async def _serve(self, request: web.Request, operation: Operation | None) -> web.StreamResponse:
        arrival = self._receive(request, operation)
        return await self._deliver(arrival, await self._respond(arrival))

    def _receive(self, request: web.Request, operation: Operation | None) -> _Arrival:
        """Record a request, judge its signature on arrival, and see what is to go wrong with it."""
        # raw_path is the request target as it came: rel_url has been through a parser that normalises.
        path, _, query = request.raw_path.partition("?")
        record = self._exchange.recorder.record(
            request.method, path, query, request.headers.get(KEY_HEADER), request.headers.get(TIMESTAMP_HEADER)
        )
        caller = self._identify(request, path, record) if _is_signed(operation) else None
        plan = self._exchange.faults.take(operation.name if operation is not None else "")
        record.fault = None if plan.fault is None else str(plan.fault.kind)
        return _Arrival(request, operation, caller, plan, record)

    def _identify(self, request: web.Request, path: str, record: RecordedRequest) -> SandboxKey | WireError:
        now_ms = self._exchange.clock_ms()
        try:
            key = authenticate(request.headers, request.method, path, now_ms, self._exchange.state.find_key)
        except WireError as refusal:
            record.refusal = refusal.reason
            return refusal
        record.verified = True
        return key

    async def _respond(self, arrival: _Arrival) -> web.StreamResponse | None:
        """Return the answer; None if the connection is to end before any work."""
        try:
            # The body is taken before the wait: what has arrived gets done, also for a client that gives up.
            body = await arrival.request.read()
            await asyncio.sleep(arrival.plan.latency_ms / 1000)
            match arrival.plan.fault:
                case Fault(kind=FaultKind.DROP_BEFORE):
                    return None
                case Fault(kind=FaultKind.STATUS, value=int(status)):
                    raise of_status(status)
            if isinstance(arrival.caller, WireError):
                raise arrival.caller
            return await self._work(arrival, arrival.caller, body)
        except WireError as error:
            return _response(error.answer)
        except web.RequestPayloadError:
            return _response(of_status(400).answer)
        except web.HTTPException as error:  # what aiohttp finds wrong, as 404, 405 and 413, in Kalshi's shape
            response = _response(of_status(error.status).answer)
            if hdrs.ALLOW in error.headers:
                response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
            return response

    async def _work(self, arrival: _Arrival, key: SandboxKey | None, body: bytes) -> web.StreamResponse:
        request, operation, state = arrival.request, arrival.operation, self._exchange.state
        if operation is None:
            raise _refusal(request)
        if key is not None:
            authorise(key, operation, state.tier)
        if operation in WEBSOCKETS:
            arrival.record.status = 101
            only = None if key is None else key.subaccount
            head: dict[str, str] = {hdrs.DATE: self._date()}
            return await self.sessions.serve(request, head, state, perps=operation.perps, subaccount=only)
        call = Call(
            state=state,
            now_ms=self._exchange.clock_ms(),
            key=key,
            path=request.match_info,
            query=request.query,
            content_type=request.content_type,
            body=body,
        )
        try:
            return _response(await HANDLERS[operation.name](call))
        except WireError:
            raise
        except Exception as error:
            _LOG.exception("the sandbox has a defect: %s failed", operation.name)
            raise of_status(500) from error

    async def _deliver(self, arrival: _Arrival, response: web.StreamResponse | None) -> web.StreamResponse:
        if response is None or arrival.hit_by is FaultKind.DROP_AFTER:
            return _drop(arrival.request)
        if not response.prepared:  # a WebSocket session is over by now
            response.headers[hdrs.DATE] = self._date()
            arrival.record.status = response.status
        if arrival.hit_by is FaultKind.TRUNCATE:
            return await _truncate(arrival.request, response)
        return response

    def _date(self) -> str:
        """The Date header by the sandbox's own clock: a client may measure its skew with it."""
        return formatdate(self._exchange.clock_ms() / 1000, usegmt=True)


def _is_signed(operation: Operation | None) -> bool:
    """Tell whether a signature is looked at: not for what is public, and not for what Kalshi took away."""
    return operation is not None and operation.signed and operation.instead is None


_LITERAL: Final[dict[str, set[str]]] = {}
for _operation in SERVED:
    if "{" not in _operation.path:
        _LITERAL.setdefault(_operation.route, set()).add(_operation.method)
"""The methods of each path without a parameter."""


def _is_meant(operation: Operation, path: str) -> bool:
    """Tell whether a path is meant for an operation: one without a parameter is never for one that has some.

    So says OpenAPI 3.0 of its Paths Object: ``/api_keys/generate`` is no API key.
    """
    return operation.route == path or path not in _LITERAL


def _refusal(request: web.Request) -> web.HTTPException:
    """Return 404 or 405, with the methods that are allowed."""
    refusal = request.match_info.http_exception
    if request.path in _LITERAL and (refusal is None or isinstance(refusal, web.HTTPMethodNotAllowed)):
        return web.HTTPMethodNotAllowed(request.method, sorted(_LITERAL[request.path]))
    return refusal or web.HTTPNotFound()


def _response(answer: SandboxAnswer) -> web.Response:
    if answer.body is None:
        return web.Response(status=answer.status)
    return web.json_response(answer.body, status=answer.status)


def _drop(request: web.Request) -> web.Response:
    """End the connection; what is returned can't be sent any more."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _truncate(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send the head and half of the body, then end the connection."""
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return _drop(request)
    cut = web.StreamResponse(status=response.status, headers=response.headers)
    cut.content_length = len(response.body)
    await cut.prepare(request)
    await cut.write(response.body[: len(response.body) // 2])
    if request.transport is not None:
        request.transport.close()  # sends what is buffered first
    return cut
