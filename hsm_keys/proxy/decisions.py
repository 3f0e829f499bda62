"""The audit trail's lines for a request: the decision before anything is signed, the outcome after the answer.

Outcomes of one turn of the event loop are written together, or with the next decision if that comes first.

The number of lines for callers who may not use the proxy is limited: a full disk stops signing, and they must not be
able to fill the disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from hsm_keys.proxy.audit import AuditError, SpelledMembers
from hsm_keys.proxy.limits import MinuteCap

if TYPE_CHECKING:
    from hsm_keys.proxy.access import Caller
    from hsm_keys.proxy.audit import AuditTrail, Members
    from hsm_keys.proxy.client_requests import ClientRequest
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.proxy.orders import Request
    from hsm_keys.proxy.subjects import Subject

__all__ = ["DecisionLog"]

_STRANGERS_A_MINUTE: Final = 120
_OMITTED_EVERY_S: Final = 60.0
_LONGEST_PATH: Final = 2000

_Further: TypeAlias = "tuple[tuple[str, str | int | None], ...]"
_HANDED_OUT: Final[_Further] = (("sent_by", "client"),)
"""What a line says besides of a request whose headers were asked for."""

_log: Final = logging.getLogger(__name__)


class DecisionLog:
    """Writes decisions and outcomes to the audit trail, and counts the decisions.

    Args:
        trail: The audit trail.
        metrics: What is counted.
        may_fail: Whether a request goes on when its decision can't be written.
    """

    def __init__(self, trail: AuditTrail, metrics: Metrics, *, may_fail: bool) -> None:
        self._trail = trail
        self._metrics = metrics
        self._may_fail = may_fail
        self._strangers = MinuteCap(_STRANGERS_A_MINUTE)
        self._omitted = 0
        self._outcomes: list[tuple[str, Members]] = []

    def write_allowed(self, request: ClientRequest, caller: Caller, subject: Subject, orders: Request | None) -> int:
        """Write that a request is allowed.

        Args:
            request: The request.
            caller: Whose it is.
            subject: What it is about.
            orders: Its body, if that was read.

        Returns:
            The line's number, 0 if it couldn't be written and may be missing.

        Raises:
            AuditError: If it can't be written.
        """
        try:
            number = self._write(request, caller, subject, "allowed", "allowed", None, orders)
        except AuditError:
            if not self._may_fail:
                self._metrics.verdict("denied", "audit").inc()
                raise
            number = 0
        self._metrics.allowed += 1
        return number

    def write_denied(
        self,
        request: ClientRequest,
        caller: Caller | None,
        subject: Subject | None,
        rule: str,
        status: int,
        *,
        orders: Request | None = None,
    ) -> None:
        """Write that a request is denied; the denial stands also where that can't be written.

        Args:
            request: The request.
            caller: Whose it is; None for a stranger's.
            subject: What it is about; None where that can't be read.
            rule: What denies it, beginning with a stable word.
            status: The answer's.
            orders: Its body, if that was read.
        """
        self._metrics.verdict("denied", rule.partition(" ")[0]).inc()
        if caller is None and self._is_one_too_many():
            return
        try:
            self._write(request, caller, subject, "denied", rule, status, orders)
        except AuditError as error:
            _log.warning("%s", error)

    def add_outcome(self, decision: int, status: int, latency_us: int, *, at_once: bool = False) -> None:
        """Have it written what became of an allowed request, at the latest in the loop's next turn.

        Args:
            decision: The number of its decision's line; 0 for none.
            status: The answer's; 0 for none.
            latency_us: Microseconds from the request to its answer.
            at_once: Whether to write it now: a turn of the loop costs more than a line that has company.
        """
        if not decision:
            return
        if not (self._outcomes or at_once):
            asyncio.get_running_loop().call_soon(self._write_outcomes)  # the answers go out first
        self._outcomes.append(("outcome", {"of": decision, "status": status or None, "latency_us": latency_us}))
        if at_once:
            self._write_outcomes()

    def _write_outcomes(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        if not outcomes:  # they were written together with a decision
            return
        try:
            self._trail.append_lines(outcomes)
        except AuditError as error:
            _log.warning("%s", error)

    def write_omitted(self) -> None:
        """Write how many lines of strangers were left out, if some were."""
        count, self._omitted = self._omitted, 0
        if not count:
            return
        try:
            self._trail.append("omitted", count=count)
        except AuditError as error:
            _log.warning("%s", error)

    def _is_one_too_many(self) -> bool:
        """Count a stranger's line, and tell whether it is left out."""
        now = time.monotonic()
        if not self._strangers.wait_for(1, now):
            self._strangers.take(1, now)
            return False
        self._omitted += 1
        if self._omitted == 1:
            asyncio.get_running_loop().call_later(_OMITTED_EVERY_S, self.write_omitted)
        return True

    def _write(  # noqa: PLR0917 - called twice, above
        self,
        request: ClientRequest,
        caller: Caller | None,
        subject: Subject | None,
        verdict: str,
        rule: str,
        status: int | None,
        orders: Request | None,
    ) -> int:
        who = (caller.client, caller.uid, caller.pid) if caller else (None, None, None)
        method = subject.method if subject else request.method
        path = subject.path if subject else request.raw_path.partition("?")[0]
        further: _Further = ()
        if subject is not None and not subject.is_sent:
            further = _HANDED_OUT
        elif orders is not None and orders.exposures:
            further = _money(orders)
        decision = _decision(*who, method, path[:_LONGEST_PATH], verdict, rule, status, further)
        outcomes, self._outcomes = self._outcomes, []
        outcomes.append(("decision", decision))
        return self._trail.append_lines(outcomes)


@lru_cache(maxsize=1024)  # a client's next request mostly has all that the last one had
def _decision(  # noqa: PLR0917 - called in one place
    client: str | None,
    uid: int | None,
    pid: int | None,
    method: str,
    path: str,
    verdict: str,
    rule: str,
    status: int | None,
    further: _Further,
) -> SpelledMembers:
    """Return the members of a decision."""
    return SpelledMembers({
        "client": client, "uid": uid, "pid": pid, "method": method, "path": path,
        "verdict": verdict, "rule": rule, "status": status, **dict(further),
    })  # fmt: skip


def _money(orders: Request) -> _Further:
    """Return what a line says of the orders of a body that was read."""
    return (
        ("orders", len(orders.exposures)),
        ("hundredths_of_contracts", orders.contracts),
        ("hundredths_of_cents", orders.worst_case),
    )
