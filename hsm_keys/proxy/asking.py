"""The proxy's own requests to Kalshi, signed with its key."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from hsm_keys.kalshi.operations import REST_PREFIX, find_operation
from hsm_keys.signing.flow import after, signing_flow

if TYPE_CHECKING:
    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.signing import ProxySigner
    from hsm_keys.proxy.upstream import Upstream

__all__ = ["OwnRequests"]

_PATIENCE_S: Final = 10.0


class OwnRequests:
    """Sends the proxy's own requests; while frozen only those that stop orders are signed.

    Args:
        upstream: Connects to Kalshi.
        signs: Signs with the proxy's key.
        judge: Counts them among the account's requests.
    """

    def __init__(self, upstream: Upstream, signs: ProxySigner, judge: Judge) -> None:
        self._upstream = upstream
        self._signs = signs
        self._judge = judge

    async def get(self, path: str, query: str = "") -> tuple[int, bytes]:
        """Ask for something; see ``send``."""
        return await self.send("GET", path, query)

    async def send(self, method: str, path: str, query: str = "", *, stops_orders: bool = False) -> tuple[int, bytes]:
        """Return the status and the body of Kalshi's answer.

        Args:
            method: HTTP method.
            path: Below ``/trade-api/v2``.
            query: What stands behind the question mark; it isn't signed.
            stops_orders: Whether it is part of cancelling orders, and signed also while frozen.

        Raises:
            aiohttp.ClientError: If Kalshi can't be reached, or its answer is none.
            TimeoutError: If there is none within 10 seconds.
            HsmKeysError: Whatever signing raises; nothing was sent then.
        """
        whole = REST_PREFIX + path
        target = f"{whole}?{query}" if query else whole
        flow = signing_flow(_SignsAtOnce(self._signs, even_frozen=stops_orders), method, whole)

        async def sign() -> dict[str, str]:
            return await self._signs.in_thread(next, flow)

        async def sign_again() -> dict[str, str]:
            return again or {}

        async with asyncio.timeout(_PATIENCE_S):
            status, body = await self._upstream.own(method, target, sign)
            self._count(method, path)
            again = await self._signs.in_thread(after, flow, status)
            if again is not None:
                status, body = await self._upstream.own(method, target, sign_again)
                self._count(method, path)
        return status, body

    def _count(self, method: str, path: str) -> None:
        self._judge.tier.spend(method, self._judge.costs.of(find_operation(method, path)), time.monotonic())


class _SignsAtOnce:
    """Signs without what is made ahead: routes that the proxy asks for once an hour aren't busy."""

    def __init__(self, signs: ProxySigner, *, even_frozen: bool) -> None:
        self.headers = signs.sign_frozen if even_frozen else signs.headers_at_once
        self.moved_on = signs.moved_on
