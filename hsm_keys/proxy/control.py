"""The control socket: freeze, thaw, status, health and metrics; only for the user who runs the proxy."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from hsm_keys.errors import UsageError
from hsm_keys.proxy.audit import AuditError
from hsm_keys.proxy.running import Stop

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.proxy.allowance import AllowanceWatch
    from hsm_keys.proxy.attestation import AttestationWatch
    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.proxy.running import RunningRequests
    from hsm_keys.proxy.signing import SignsForDoor

__all__ = ["Control"]

_FROZEN: Final = Stop(403, "frozen", "signing is frozen")
_log: Final = logging.getLogger(__name__)


class Control:
    """What can be asked of a running proxy.

    Args:
        name: The key's name.
        judge: Holds the kill switch.
        signs: Signs.
        trail: The audit trail.
        metrics: What is counted.
        marker: A file that is there while signing is frozen: a restart doesn't thaw.
        running: The requests that are under way.

    Attributes:
        attestation: Learns when the account's location attestation ends; None while Kalshi can't be asked.
        allowance: Learns what calls cost and what the account's limits are; None likewise.
    """

    def __init__(
        self,
        name: str,
        judge: Judge,
        signs: SignsForDoor,
        trail: AuditTrail,
        *,
        metrics: Metrics,
        marker: Path,
        running: RunningRequests,
    ) -> None:
        self._name = name
        self._judge = judge
        self._signs = signs
        self._trail = trail
        self._metrics = metrics
        self._marker = marker
        self._running = running
        self.attestation: AttestationWatch | None = None
        self.allowance: AllowanceWatch | None = None
        self._started = time.time()
        self._proving = asyncio.Lock()
        metrics.frozen.set(judge.frozen)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer on the control socket."""
        if (request.method, request.path) == ("POST", "/freeze"):
            self.freeze()
            return _json(self.status())
        if (request.method, request.path) == ("POST", "/thaw"):
            self.thaw()
            return _json(self.status())
        if (request.method, request.path) == ("GET", "/status"):
            await self._look()
            return _json({**self.status(), "not_ready": await self._problem()})
        return await self.answer_metrics(request)

    async def answer_metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer where only metrics and health are to be had."""
        if request.method == "GET" and request.path == "/metrics":
            await self._look()
            return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})
        if request.method == "GET" and request.path == "/healthz":
            return web.Response(text="ok\n")
        if request.method == "GET" and request.path == "/readyz":
            problem = await self._problem()
            return web.Response(status=503 if problem else 200, text=f"{problem or 'ready'}\n")
        return web.Response(status=404, text="there are /metrics, /healthz and /readyz\n")

    def freeze(self) -> None:
        """Stop all signing, also over a restart; what can't be written down is frozen all the same."""
        self._judge.frozen = True
        self._signs.freeze()
        self._running.stop(_FROZEN)
        self._metrics.frozen.set(1)
        try:
            self._marker.touch(mode=0o600)
            _sync(self._marker.parent)
        except OSError as error:
            _log.error("frozen, but a restart would thaw: %s", error.strerror)
        self._write("frozen")

    def thaw(self) -> None:
        """Sign again."""
        try:
            self._marker.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{self._marker} can't be removed: {error.strerror}", hint="remove it") from None
        self._judge.frozen = False
        self._signs.thaw()
        self._metrics.frozen.set(0)
        self._write("thawed")

    def status(self) -> dict[str, Any]:
        """Return what a person wants to know at a glance."""
        return {
            "name": self._name,
            "api_key_id": self._signs.api_key_id,
            "frozen": self._judge.frozen,
            "uptime_s": round(time.time() - self._started),
            **self._metrics.summary(),
            **(self.allowance.status() if self.allowance is not None else {}),
            "clients": sorted(self._judge.policy.clients),
            "audit_lines": self._trail.seq,
            "audit_head": self._trail.head,
            "audit_problem": self._trail.failed,
        }

    async def _look(self) -> None:
        if self.attestation is not None:
            await self.attestation.look()

    async def _problem(self) -> str:
        async with self._proving:  # many who ask at once are told of one signature
            return await self._signs.problem() or self._trail.failed

    def _write(self, kind: str) -> None:
        try:
            self._trail.append(kind)
        except AuditError as error:
            _log.warning("%s", error)


def _sync(folder: Path) -> None:
    """Have the disk keep what the folder lists: a power failure doesn't thaw."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _json(content: dict[str, Any]) -> web.Response:
    return web.Response(text=json.dumps(content), content_type="application/json")
