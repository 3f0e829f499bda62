"""Cancels all resting orders by a request of the proxy's own, which waits neither for a client nor for the token."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from hsm_keys.errors import HsmKeysError
from hsm_keys.kalshi.operations import REST_PREFIX
from hsm_keys.proxy.audit import AuditError
from hsm_keys.proxy.reaching import reason_of

if TYPE_CHECKING:
    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.signing import ProxySigner
    from hsm_keys.proxy.upstream import Upstream

__all__ = ["Cancelling"]

_PATHS: Final = {
    False: (f"{REST_PREFIX}/portfolio/events/orders", f"{REST_PREFIX}/portfolio/orders?status=resting&limit=200"),
    True: (f"{REST_PREFIX}/margin/orders", f"{REST_PREFIX}/margin/orders?status=resting&limit=200"),
}
"""What cancels, and what lists; for perpetual futures or not."""

_ANSWER_S: Final = 5.0
_LATE_S: Final = 60.0
"""Kalshi cancels what comes within a minute as well; so long an order that was under way may still come."""

_LOOK_EVERY_S: Final = 2.0
_QUIET_S: Final = 3600.0
"""Seconds without an order after which no request to cancel is signed ahead any more."""

_log: Final = logging.getLogger(__name__)


class Cancelling:
    """Cancels all orders of the account.

    While orders are sent, the request is kept signed in advance, so that a token that hangs can't delay it.

    Args:
        upstream: Connects to Kalshi.
        signs: Signs with the proxy's key, also while frozen.
        judge: Tells whether signing is frozen.
        trail: Where it is written down.
    """

    def __init__(self, upstream: Upstream, signs: ProxySigner, judge: Judge, trail: AuditTrail) -> None:
        self._upstream = upstream
        self._signs = signs
        self._judge = judge
        self._trail = trail
        self._quiet: asyncio.TimerHandle | None = None
        self._sent_at = 0.0
        self._following: asyncio.Task[None] | None = None
        self._follows_until = 0.0

    @property
    def _paths(self) -> tuple[str, str]:
        environment = getattr(self._signs.key, "environment", None) or ""
        return _PATHS[environment.endswith("-perps")]

    def order_sent(self) -> None:
        """Keep the request signed in advance from now on, until there was no order for an hour."""
        self._sent_at = time.monotonic()
        if self._quiet is None:
            self._signs.keep("DELETE", self._paths[0])
            self._quiet = asyncio.get_running_loop().call_later(_QUIET_S, self._look_whether_quiet)

    def _look_whether_quiet(self) -> None:
        """Keep none any more if the last order was so long ago; one timer serves many orders."""
        left = self._sent_at + _QUIET_S - time.monotonic()
        if left > 0:
            self._quiet = asyncio.get_running_loop().call_later(left, self._look_whether_quiet)
        else:
            self._quiet = None
            self._signs.keep_none()

    async def cancel_all(self) -> dict[str, Any]:
        """Cancel everything, look whether anything rests, and go on with both for a minute while signing is frozen.

        Returns:
            ``status`` of Kalshi's answer (None without one), the ``problem`` if it isn't known to be done, and how many
            orders are ``resting`` (None if that isn't known).
        """
        report = await self._cancel()
        self._follows_until = asyncio.get_running_loop().time() + _LATE_S
        if self._judge.frozen and self._following is None:
            self._following = asyncio.create_task(self._follow())
            self._following.add_done_callback(lambda _: setattr(self, "_following", None))
        return report

    async def _cancel(self) -> dict[str, Any]:
        status, problem = await self._sent("DELETE", self._paths[0])
        self._judge.reservations.on_doubt()
        resting = await self._resting()
        problem = problem or _doubt(status, resting, frozen=self._judge.frozen)
        report = {"status": status, "problem": problem, "resting": resting}
        rest = "not known" if resting is None else resting
        if problem:
            _log.error("it isn't confirmed that all orders are cancelled: %s; resting now: %s", problem, rest)
        else:
            _log.warning("Kalshi cancelled all orders; resting now: %s", rest)
        try:
            self._trail.append("cancel_all", status=status, resting=resting)
        except AuditError as error:
            _log.warning("%s", error)
        return report

    async def _follow(self) -> None:
        """Look for orders that came late, and cancel them."""
        while self._judge.frozen and asyncio.get_running_loop().time() < self._follows_until:
            await asyncio.sleep(_LOOK_EVERY_S)
            if await self._resting() != 0 and self._judge.frozen:
                await self._cancel()

    async def _resting(self) -> int | None:
        body = bytearray()
        status, _ = await self._sent("GET", self._paths[1], body)
        if status != HTTPStatus.OK:
            return None
        return _count_of(body)

    async def _sent(self, method: str, target: str, body: bytearray | None = None) -> tuple[int | None, str]:
        """Send a request; return the status, or None and why there is none. The answer goes to the body.

        It is sent once more if a connection breaks: to cancel all twice does no harm.
        """
        path = target.partition("?")[0]
        signed: dict[str, str] = {}

        async def sign() -> dict[str, str]:
            if not signed:
                headers = self._signs.kept(method, path)
                if headers is None:
                    headers = await self._signs.in_thread(self._signs.sign_frozen, method, path)
                signed.update(headers)
            return signed

        try:
            async with asyncio.timeout(_ANSWER_S):
                try:
                    status, text = await self._upstream.own(method, target, sign, urgent=True)
                except aiohttp.ClientError:
                    status, text = await self._upstream.own(method, target, sign)
        except HsmKeysError as error:
            return None, f"nothing was sent: the store can't sign: {error}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return None, f"Kalshi didn't answer ({reason_of(error)})"
        if body is not None:
            body += text
        return status, ""

    async def close(self) -> None:
        """End what goes on by itself."""
        if self._quiet is not None:
            self._quiet.cancel()
        if self._following is not None:
            self._following.cancel()


def _count_of(body: bytearray) -> int | None:
    """Return how many orders Kalshi's list has; None if it isn't one, or none of them is on its first page."""
    try:
        answer = json.loads(body)
        orders = answer["orders"]
        if not isinstance(orders, list) or (not orders and answer.get("cursor")):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return len(orders)


def _doubt(status: int | None, resting: int | None, *, frozen: bool) -> str:
    """Return why it isn't known that everything is cancelled; empty if it is. A status alone may be a gateway's."""
    if status is not None and status >= HTTPStatus.MULTIPLE_CHOICES:
        return f"Kalshi refused to cancel, with status {status}"
    if resting is None:
        return f"the answer had status {status}, and Kalshi's list of what rests can't be had"
    if resting and frozen:  # else clients go on, and place new ones
        return f"after an answer with status {status}, Kalshi lists orders that rest: {resting}"
    return ""
