"""The handler of requests: who asks, may they, sign, forward, and write down what became of it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from hsm_keys.errors import HsmKeysError
from hsm_keys.proxy.access import Refused
from hsm_keys.proxy.audit import AuditError
from hsm_keys.proxy.client_requests import BODY_LIMIT, BodyError
from hsm_keys.proxy.headers import is_plain_json
from hsm_keys.proxy.journal import JournalError
from hsm_keys.proxy.limits import MinuteCap
from hsm_keys.proxy.orders import JUDGED_LIMIT
from hsm_keys.proxy.paths import UnclearPathError, split_target
from hsm_keys.proxy.replies import ClientGoneError, Reply, refusal
from hsm_keys.proxy.running import StoppedError
from hsm_keys.proxy.sessions import JudgedSession
from hsm_keys.proxy.sign_targets import header_lines, read_sign_target
from hsm_keys.proxy.signing import FrozenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.access import Caller
    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.client_requests import ClientRequest
    from hsm_keys.proxy.judge import Judge, Verdict
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.proxy.orders import Request
    from hsm_keys.proxy.running import Running, RunningRequests, Stop
    from hsm_keys.proxy.settling import Hold
    from hsm_keys.proxy.signing import ProxySigner, RequestSigning
    from hsm_keys.proxy.upstream import Upstream

__all__ = ["Handler"]

_QUICK: Final = 2048
"""Bytes of a body that is judged in no time."""

_STRANGERS_A_MINUTE: Final = 120
_TOLD_AFTER_S: Final = 60.0

_CLIENT_GONE: Final = 499
"""What a status of the audit trail means that no client saw: it went away before anything was signed."""

_PLAIN: Final = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
_HANDED_OUT: Final = {"sent_by": "client"}
"""What an audit line says besides of a request whose headers were asked for."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is judged, signed and written down: the request itself, or the one that it asks headers for.

    Attributes:
        method: Its method.
        path: Its path, without the query.
        query: The query; empty for none.
        is_sent: Whether the proxy sends it; else its headers are handed out, and whoever has them sends it.
    """

    method: str
    path: str
    query: str = ""
    is_sent: bool = True


class Handler:
    """Answers requests.

    Args:
        identify: Tells who asks; raises ``Refused``.
        judge: Tells whether they may.
        signs: Signs.
        upstream: Forwards.
        running: The requests that are under way.
        order_sent: Hears of each request that may add an order.
        trail: Where it is written down.
        metrics: What is counted.
        audit_may_fail: Sign also when the trail can't be written.
    """

    def __init__(
        self,
        identify: Callable[[ClientRequest], Caller],
        judge: Judge,
        signs: ProxySigner,
        upstream: Upstream,
        running: RunningRequests,
        *,
        order_sent: Callable[[], None],
        trail: AuditTrail,
        metrics: Metrics,
        audit_may_fail: bool = False,
    ) -> None:
        self._identify = identify
        self._judge = judge
        self._signs = signs
        self._upstream = upstream
        self._running = running
        self._order_sent = order_sent
        self._trail = trail
        self._metrics = metrics
        self._audit_may_fail = audit_may_fail
        self._strangers = MinuteCap(_STRANGERS_A_MINUTE)
        self._omitted = 0
        self._one_a_round = asyncio.Lock()  # however many long bodies there are, a freeze comes in between

    async def answer(self, request: ClientRequest) -> Reply:
        """Answer one request."""
        started = time.perf_counter()
        caller = None
        try:
            caller = self._identify(request)
            request.client = caller.client
            with self._running.counted(caller) as running:
                return await self._answered(request, caller, running, started)
        except Refused as refused:
            return self._deny(request, caller, refused.status, refused.reason, refused.message)

    async def _answered(self, request: ClientRequest, caller: Caller, running: Running, started: float) -> Reply:
        subject = _subject_of(request)
        try:
            return await self._judged(request, subject, caller, running, started)
        except Refused as refused:
            return self._deny(request, caller, refused.status, refused.reason, refused.message, subject=subject)

    async def _judged(
        self, request: ClientRequest, subject: _Subject, caller: Caller, running: Running, started: float
    ) -> Reply:
        if request.method != "GET" or request.body_exists:  # what is refused anyhow isn't waited for
            refused = self._judge.judge_route(caller.client, subject.method, subject.path, at=datetime.now(UTC))
            if refused is not None:
                raise Refused(refused.status, refused.rule, refused.message)
        body = await self._body(request, caller, subject)
        slow = body is not None and len(body) > _QUICK
        async with self._one_a_round if slow else nullcontext():
            if slow:
                await asyncio.sleep(0)
            verdict = self._verdict(caller, subject, body)
        if not verdict.allowed:
            wait = verdict.retry_after
            return self._deny(
                request,
                caller,
                verdict.status,
                verdict.rule,
                verdict.message,
                retry_after=wait,
                asked=verdict.request,
                subject=subject,
            )
        try:
            decision = self._write_decision(
                request, caller, "allowed", "allowed", None, asked=verdict.request, subject=subject
            )
        except AuditError as error:
            if verdict.hold is not None:
                verdict.hold.end(was_sent=False)
            self._metrics.verdict("denied", "audit").inc()
            return refusal(503, error.code, f"nothing was signed: {error}")
        self._metrics.verdict("allowed", "allowed").inc()
        if verdict.trades:
            self._order_sent()
        answer: Reply | None = None
        try:
            answer = await self._signed(request, subject, caller, body, running, hold=verdict.hold)
        finally:
            status = answer.status if answer is not None else 0
            latency_us = round((time.perf_counter() - started) * 1e6)
            # In the loop's next round: the answer goes out first.
            asyncio.get_running_loop().call_soon(self._write_outcome, decision, status, latency_us)
        return answer

    def _verdict(self, caller: Caller, subject: _Subject, body: bytes | None) -> Verdict:
        at, now = datetime.now(UTC), time.monotonic()
        if not subject.is_sent:
            return self._judge.judge_headers(caller.client, subject.method, subject.path, at=at, now=now)
        try:
            return self._judge.judge(
                caller.client, subject.method, subject.path, body, at=at, now=now, query=subject.query
            )
        except JournalError as error:
            raise Refused(503, error.code, f"nothing was signed: {error}") from None

    async def _body(self, request: ClientRequest, caller: Caller, subject: _Subject) -> bytes | None:
        """Return the whole body, before it is judged and signed: what comes late was judged by a policy of the past."""
        if not subject.is_sent:
            return None
        judged = self._judge.needs_body(caller.client, subject.method, subject.path)
        if judged and not is_plain_json(request.headers):
            raise Refused(403, "body", "an order that is judged is JSON in UTF-8, and not compressed")
        if not judged and not request.body_exists:
            return None
        try:
            return await request.whole_body(JUDGED_LIMIT if judged else BODY_LIMIT)
        except BodyError as error:
            raise Refused(error.status, "body", error.message) from None

    async def _signed(
        self,
        request: ClientRequest,
        subject: _Subject,
        caller: Caller,
        body: bytes | None,
        running: Running,
        *,
        hold: Hold | None,
    ) -> Reply:
        def check() -> None:
            if request.transport is None:
                raise ClientGoneError
            running.check()
            if self._identify(request).client != caller.client:
                raise Refused(401, "token", "the token is another client's now; nothing was sent")

        signing = self._signs.request(subject.method, subject.path, check)
        try:
            async with running:
                if not subject.is_sent:
                    return _handed_out(await signing.headers())
                if request.is_websocket:
                    return await self._upstream.relay(request, signing, running, self._session(caller, subject.path))
                return await self._upstream.forward(request, body, signing, hold.hear if hold else None)
        except (TimeoutError, StoppedError, ClientGoneError, Refused, HsmKeysError) as error:
            if running.stopped is not None:
                return _stopped(request, signing, running.stopped)
            return _unsent(error)
        finally:
            if hold is not None:
                hold.end(was_sent=signing.is_done)

    def _session(self, caller: Caller, path: str) -> JudgedSession | None:
        """Return what judges the commands of a client's WebSocket; None for a client whose rules don't narrow."""
        rules = self._judge.policy.client(caller.client)
        if rules is not None and not rules.narrows:
            return None
        return JudgedSession(caller, path, hear=self._running.hear, trail=self._trail, metrics=self._metrics)

    def refuse_unanswered(self, request: ClientRequest, status: int, error: BaseException | None) -> Reply:
        """Answer what isn't HTTP that can be read in one way, and write it down; or what this program failed at.

        Args:
            request: The request; without method and path if it couldn't be read.
            status: 400, or 500.
            error: What was raised. Its words may quote the request.
        """
        try:
            caller = self._identify(request)
            request.client = caller.client
        except Refused:  # over TCP, a token that couldn't be read
            caller = None
        if status != HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._deny(
                request, caller, status, "malformed", "the request isn't HTTP that can be read in one way"
            )
        _log.error("a request failed, which is a defect: %s", type(error).__name__, exc_info=error)
        return self._deny(request, caller, status, "defect", "the proxy failed; its log says more")

    def _deny(
        self,
        request: ClientRequest,
        caller: Caller | None,
        status: int,
        reason: str,
        message: str,
        *,
        retry_after: int = 0,
        asked: Request | None = None,
        subject: _Subject | None = None,
    ) -> Reply:
        self._metrics.verdict("denied", reason.partition(" ")[0]).inc()
        if caller is None and self._is_one_too_many():
            return refusal(status, reason, message)
        try:
            self._write_decision(request, caller, reason, "denied", status, asked=asked, subject=subject)
        except AuditError as error:
            _log.warning("%s", error)
        return refusal(status, reason, message, retry_after=retry_after)

    def _is_one_too_many(self) -> bool:
        """Tell whether a stranger's line is left out: a full disk stops signing, and strangers must not fill it."""
        now = time.monotonic()
        if not self._strangers.wait_for(1, now):
            self._strangers.take(1, now)
            return False
        self._omitted += 1
        if self._omitted == 1:
            asyncio.get_running_loop().call_later(_TOLD_AFTER_S, self.tell_omitted)
        return True

    def tell_omitted(self) -> None:
        """Write down how many lines of strangers were left out, if some were."""
        count, self._omitted = self._omitted, 0
        if not count:
            return
        try:
            self._trail.append("omitted", count=count)
        except AuditError as error:
            _log.warning("%s", error)

    def _write_decision(
        self,
        request: ClientRequest,
        caller: Caller | None,
        rule: str,
        verdict: str,
        status: int | None,
        *,
        asked: Request | None,
        subject: _Subject | None,
    ) -> int:
        """Write a decision; return its number, 0 if it couldn't be written and may be missing."""
        try:
            return self._trail.append(
                "decision",
                client=caller.client if caller else None,
                uid=caller.uid if caller else None,
                pid=caller.pid if caller else None,
                method=subject.method if subject else request.method,
                path=(subject.path if subject else request.raw_path.partition("?")[0])[:2000],
                verdict=verdict,
                rule=rule,
                status=status,
                **_money(asked),
                **({} if subject is None or subject.is_sent else _HANDED_OUT),
            )
        except AuditError:
            if self._audit_may_fail and verdict == "allowed":
                return 0
            raise

    def _write_outcome(self, decision: int, status: int, latency_us: int) -> None:
        try:
            if decision:
                self._trail.append("outcome", of=decision, status=status or None, latency_us=latency_us)
        except AuditError as error:
            _log.warning("%s", error)


def _money(asked: Request | None) -> dict[str, int | None]:
    """Return what an audit line says of the orders of a body that was read; nothing where none are made or changed."""
    if asked is None or not asked.exposures:
        return {}
    return {
        "orders": len(asked.exposures),
        "hundredths_of_contracts": asked.contracts,
        "hundredths_of_cents": asked.worst_case,
    }


def _unsent(error: Exception) -> Reply:
    """Answer a request that wasn't sent."""
    match error:
        case ClientGoneError():
            return refusal(_CLIENT_GONE, "gone", "the client has gone; nothing was signed")
        case Refused(status=status, reason=reason, message=message):
            return refusal(status, reason, message)
        case FrozenError():
            return refusal(403, "frozen", "signing is frozen; nothing was sent")
        case HsmKeysError(code=code):
            _log.warning("the store can't sign: %s", error)
            return refusal(503, code, f"nothing was sent: the store can't sign: {error}")
    raise error


def _stopped(request: ClientRequest, signing: RequestSigning, stop: Stop) -> Reply:
    """Answer a request that was stopped on its way."""
    if request.has_begun and request.transport is not None:  # the answer had begun: it must not look whole
        request.transport.abort()
    if signing.is_done:
        return refusal(502, "outcome_unknown", f"{stop.message}; it was on its way, and Kalshi may have done the work")
    return refusal(stop.status, stop.code, f"{stop.message}; nothing was sent")


def _subject_of(request: ClientRequest) -> _Subject:
    """Return what a request that can be read in one way is about; raise ``Refused`` for another one."""
    try:
        wanted = read_sign_target(request.raw_path) if request.method == "GET" else None
        subject = _Subject(*wanted, is_sent=False) if wanted else None
        path, query = ("", "") if subject else split_target(request.raw_path)
    except UnclearPathError as error:
        raise Refused(400, "path", f"the request target is refused: {error}") from None
    if request.headers.get("Upgrade", "").lower() == "websocket" and not request.is_websocket:
        raise Refused(400, "framing", "the WebSocket's handshake isn't one (RFC 6455, section 4.1)")
    if subject is not None and (request.body_exists or "Upgrade" in request.headers):
        raise Refused(400, "framing", "headers are asked for by a plain GET without a body")
    return subject or _Subject(request.method, path, query)


def _handed_out(headers: dict[str, str]) -> Reply:
    """Answer with a request's headers: nobody but who asked may ever have them."""
    return Reply(200, headers=CIMultiDict(_PLAIN), body=header_lines(headers).encode())
