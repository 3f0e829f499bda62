"""The handler of requests: who asks, may they, sign, forward, and write down what became of it."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from hsm_keys.errors import HsmKeysError
from hsm_keys.proxy.access import Refused
from hsm_keys.proxy.audit import AuditError
from hsm_keys.proxy.client_requests import BODY_LIMIT, BodyError
from hsm_keys.proxy.decisions import DecisionLog
from hsm_keys.proxy.headers import is_plain_json
from hsm_keys.proxy.journal import JournalError
from hsm_keys.proxy.orders import JUDGED_LIMIT
from hsm_keys.proxy.replies import ClientGoneError, Reply, refusal
from hsm_keys.proxy.running import StoppedError
from hsm_keys.proxy.sessions import JudgedSession
from hsm_keys.proxy.sign_targets import header_lines
from hsm_keys.proxy.signing import FrozenError
from hsm_keys.proxy.subjects import subject_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.access import Caller
    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.client_requests import ClientRequest
    from hsm_keys.proxy.judge import Judge, Verdict
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.proxy.running import Running, RunningRequests, Stop
    from hsm_keys.proxy.settling import Hold
    from hsm_keys.proxy.signing import ProxySigner, RequestSigning
    from hsm_keys.proxy.subjects import Subject
    from hsm_keys.proxy.upstream import Upstream

__all__ = ["Handler"]

_QUICK: Final = 2048
"""Bytes of a body that is judged in no time."""

_CLIENT_GONE: Final = 499
"""What a status of the audit trail means that no client saw: it went away before anything was signed."""

_PLAIN: Final = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}

_log: Final = logging.getLogger(__name__)


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

    Attributes:
        decisions: What is written down of each request.
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
        self.decisions: Final = DecisionLog(trail, metrics, may_fail=audit_may_fail)
        self._one_a_round = asyncio.Lock()  # however many long bodies there are, a freeze comes in between

    async def answer(self, request: ClientRequest) -> Reply:
        """Answer one request."""
        started = time.perf_counter()
        caller = subject = None
        try:
            caller = self._identify(request)
            request.client = caller.client
            with self._running.counted(caller, request) as running:
                subject = subject_of(request)
                return await self._judged(request, subject, caller, running, started)
        except Refused as refused:
            return self._deny(request, caller, subject, refused)

    async def _judged(
        self, request: ClientRequest, subject: Subject, caller: Caller, running: Running, started: float
    ) -> Reply:
        body = await self._body(request, caller, subject) if subject.is_sent else None
        if body is not None and len(body) > _QUICK:
            async with self._one_a_round:
                await asyncio.sleep(0)
                verdict = self._verdict(caller, subject, body)
        else:
            verdict = self._verdict(caller, subject, body)
        if not verdict.allowed:
            self.decisions.write_denied(request, caller, subject, verdict.rule, verdict.status, orders=verdict.request)
            return refusal(verdict.status, verdict.rule, verdict.message, retry_after=verdict.retry_after)
        try:
            decision = self.decisions.write_allowed(request, caller, subject, verdict.request)
        except AuditError as error:
            if verdict.hold is not None:
                verdict.hold.end(was_sent=False)
            return refusal(503, error.code, f"nothing was signed: {error}")
        if verdict.trades:
            self._order_sent()
        answer: Reply | None = None
        try:
            answer = await self._signed(request, subject, caller, body, running, hold=verdict.hold)
        finally:
            status = answer.status if answer is not None else 0
            latency_us = round((time.perf_counter() - started) * 1e6)
            is_alone = request.has_begun and self._running.are_one
            self.decisions.add_outcome(decision, status, latency_us, at_once=is_alone)
        return answer

    def _verdict(self, caller: Caller, subject: Subject, body: bytes | None) -> Verdict:
        at, now = datetime.now(UTC), time.monotonic()
        if not subject.is_sent:
            return self._judge.judge_headers(caller.client, subject.method, subject.path, at=at, now=now)
        try:
            return self._judge.judge(
                caller.client, subject.method, subject.path, body, at=at, now=now, query=subject.query
            )
        except JournalError as error:
            raise Refused(503, error.code, f"nothing was signed: {error}") from None

    async def _body(self, request: ClientRequest, caller: Caller, subject: Subject) -> bytes | None:
        """Return the whole body, before it is judged and signed: what comes late was judged by a policy of the past."""
        if not request.body_is_whole:  # what is refused anyhow isn't waited for
            self._check_route(caller, subject)
        try:
            return await self._read_body(request, caller, subject)
        except Refused:
            self._check_route(caller, subject)  # what is against it whatever its body is comes first
            raise

    def _check_route(self, caller: Caller, subject: Subject) -> None:
        """Refuse what is refused whatever its body is."""
        refused = self._judge.judge_route(caller.client, subject.method, subject.path, at=datetime.now(UTC))
        if refused is not None:
            raise Refused(refused.status, refused.rule, refused.message)

    async def _read_body(self, request: ClientRequest, caller: Caller, subject: Subject) -> bytes | None:
        judged = self._is_judged(request, caller, subject)
        if not judged and not request.body_exists:
            return None
        try:
            body = await request.whole_body(JUDGED_LIMIT if judged else BODY_LIMIT)
            if not judged and self._is_judged(request, caller, subject):  # by a policy that came meanwhile
                body = await request.whole_body(JUDGED_LIMIT)
        except BodyError as error:
            raise Refused(error.status, "body", error.message) from None
        return body

    def _is_judged(self, request: ClientRequest, caller: Caller, subject: Subject) -> bool:
        """Tell whether the body is judged, and refuse one that may be read in another way than it is judged."""
        judged = self._judge.needs_body(caller.client, subject.method, subject.path)
        head = request.head
        if judged and head.has_plain_json is None:
            head.has_plain_json = is_plain_json(head.headers)
        if judged and not head.has_plain_json:
            raise Refused(403, "body", "an order that is judged is JSON in UTF-8, and not compressed")
        return judged

    async def _signed(
        self,
        request: ClientRequest,
        subject: Subject,
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
            with running:
                if not subject.is_sent:
                    handed_out = _handed_out(await signing.headers())
                    request.answer(handed_out)
                    return handed_out
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
            unclear = Refused(status, "malformed", "the request isn't HTTP that can be read in one way")
            return self._deny(request, caller, None, unclear)
        _log.error("a request failed, which is a defect: %s", type(error).__name__, exc_info=error)
        return self._deny(request, caller, None, Refused(status, "defect", "the proxy failed; its log says more"))

    def _deny(self, request: ClientRequest, caller: Caller | None, subject: Subject | None, refused: Refused) -> Reply:
        self.decisions.write_denied(request, caller, subject, refused.reason, refused.status)
        return refusal(refused.status, refused.reason, refused.message)


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


def _handed_out(headers: dict[str, str]) -> Reply:
    """Answer with a request's headers: nobody but who asked may ever have them."""
    return Reply(200, headers=CIMultiDict(_PLAIN), body=header_lines(headers).encode())
