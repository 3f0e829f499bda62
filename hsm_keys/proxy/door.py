"""The door itself: who asks, may they, sign, forward, and write down what became of it."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aiohttp import web

from hsm_keys.errors import HsmKeysError
from hsm_keys.proxy.access import API_KEY_HEADER, Refused
from hsm_keys.proxy.audit import AuditError
from hsm_keys.proxy.orders import BODY_LIMIT
from hsm_keys.proxy.paths import UnclearPathError, split_target
from hsm_keys.proxy.signing import FrozenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.access import Caller
    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.proxy.signing import SignsForDoor
    from hsm_keys.proxy.upstream import Upstream

__all__ = ["Door", "refusal"]

_BODY_S: Final = 30.0
_log: Final = logging.getLogger(__name__)


def refusal(status: int, reason: str, message: str, *, retry_after: int = 0) -> web.Response:
    """Return an answer of the proxy's own, in the shape of Kalshi's errors."""
    answer = web.json_response(
        {"error": {"code": reason, "message": message, "service": "hsm-keys proxy"}}, status=status
    )
    if retry_after:
        answer.headers["Retry-After"] = str(retry_after)
    return answer


class Door:
    """Answers requests.

    Args:
        identify: Tells who asks; raises ``Refused``.
        judge: Tells whether they may.
        signs: Signs.
        upstream: Forwards.
        trail: Where it is written down.
        metrics: What is counted.
        audit_may_fail: Sign also when the trail can't be written.
    """

    def __init__(
        self,
        identify: Callable[[web.BaseRequest], Caller],
        judge: Judge,
        signs: SignsForDoor,
        upstream: Upstream,
        *,
        trail: AuditTrail,
        metrics: Metrics,
        audit_may_fail: bool = False,
    ) -> None:
        self._identify = identify
        self._judge = judge
        self._signs = signs
        self._upstream = upstream
        self._trail = trail
        self._metrics = metrics
        self._audit_may_fail = audit_may_fail

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = time.perf_counter()
        try:
            caller = self._identify(request)
        except Refused as refused:
            return self._deny(request, None, refused.status, refused.reason, refused.message)
        try:
            path, _ = split_target(request.raw_path)
        except UnclearPathError as error:
            return self._deny(request, caller, 400, "path", f"the request target is refused: {error}")
        if "Transfer-Encoding" in request.headers and "Content-Length" in request.headers:
            return self._deny(request, caller, 400, "framing", "the body has two lengths")
        body = None
        if self._judge.needs_body(caller.client, request.method, path):
            body = await _read(request)
            if body is None:
                return self._deny(request, caller, 413, "body", f"a body that is judged has at most {BODY_LIMIT} bytes")
        at, now = datetime.now(UTC), time.monotonic()
        verdict = self._judge.judge(caller.client, request.method, path, body, at=at, now=now)
        if not verdict.allowed:
            wait = verdict.retry_after
            return self._deny(request, caller, verdict.status, verdict.rule, verdict.message, retry_after=wait)
        return await self._allowed(request, caller, path, body, started)

    async def _allowed(
        self, request: web.BaseRequest, caller: Caller, path: str, body: bytes | None, started: float
    ) -> web.StreamResponse:
        try:
            decision = self._write_decision(request, caller, "allowed", "allowed", None)
        except AuditError as error:
            self._metrics.verdicts.labels("denied", "audit").inc()
            return refusal(503, error.code, f"nothing was signed: {error}")
        self._metrics.verdicts.labels("allowed", "allowed").inc()
        answer: web.StreamResponse | None = None
        try:
            answer = await self._signed(request, path, body)
        finally:
            self._write_outcome(decision, answer.status if answer is not None else 0, started)
        return answer

    async def _signed(self, request: web.BaseRequest, path: str, body: bytes | None) -> web.StreamResponse:
        try:
            signed = await self._signs.headers(request.method, path)
        except FrozenError:
            return refusal(403, "frozen", "signing is frozen")
        except HsmKeysError as error:
            _log.warning("the store can't sign: %s", error)
            return refusal(503, error.code, f"nothing was sent: the store can't sign: {error}")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._upstream.relay(request, signed)
        answer = await self._upstream.forward(request, body, signed)
        if answer.status == 401:  # noqa: PLR2004 - Unauthorized: the key may have been rotated
            await self._signs.refused(signed[API_KEY_HEADER])
        return answer

    def _deny(
        self,
        request: web.BaseRequest,
        caller: Caller | None,
        status: int,
        reason: str,
        message: str,
        *,
        retry_after: int = 0,
    ) -> web.Response:
        self._metrics.verdicts.labels("denied", reason.partition(" ")[0]).inc()
        try:
            self._write_decision(request, caller, reason, "denied", status)
        except AuditError as error:
            _log.warning("%s", error)
        return refusal(status, reason, message, retry_after=retry_after)

    def _write_decision(
        self, request: web.BaseRequest, caller: Caller | None, rule: str, verdict: str, status: int | None
    ) -> int:
        """Write a decision; return its number, 0 if it couldn't be written and may be missing."""
        try:
            return self._trail.append(
                "decision",
                client=caller.client if caller else None,
                uid=caller.uid if caller else None,
                pid=caller.pid if caller else None,
                method=request.method,
                path=request.raw_path.partition("?")[0][:2000],
                verdict=verdict,
                rule=rule,
                status=status,
            )
        except AuditError:
            if self._audit_may_fail and verdict == "allowed":
                return 0
            raise

    def _write_outcome(self, decision: int, status: int, started: float) -> None:
        latency_us = round((time.perf_counter() - started) * 1e6)
        try:
            if decision:
                self._trail.append("outcome", of=decision, status=status or None, latency_us=latency_us)
        except AuditError as error:
            _log.warning("%s", error)


async def _read(request: web.BaseRequest) -> bytes | None:
    """Return the body; None if it is too long, or takes too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_LIMIT:
                    return None
    except TimeoutError:
        return None
    return bytes(body)
