"""The control socket: freeze, thaw, status, health and metrics; only for the user who runs the proxy."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from hsm_keys.proxy.audit import AuditError
from hsm_keys.proxy.remaining import left_dollars, remaining
from hsm_keys.proxy.running import Stop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.proxy.allowance import AllowanceWatch
    from hsm_keys.proxy.attestation import AttestationWatch
    from hsm_keys.proxy.audit import AuditTrail
    from hsm_keys.proxy.cancelling import Cancelling
    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.marker import FreezeMarker
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.proxy.running import RunningRequests
    from hsm_keys.proxy.signing import ProxySigner
    from hsm_keys.proxy.silence import SilenceWatch

__all__ = ["Control"]

_CANCEL_ALL: Final = "/cancel-all"
_CHANGES: Final = ("/freeze", f"/freeze{_CANCEL_ALL}", _CANCEL_ALL, "/thaw")
_PROGRAMS: Final = "/programs"
_OF_A_PROGRAM: Final = ("client", "program", "relayed_to")
_NUMBERS_OF_A_PROGRAM: Final = ("arguments", "uid", "pid", "exit_code")
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
        marker: Keeps over a restart whether signing is frozen.
        running: The requests that are under way.

    Attributes:
        serves_at: Where clients are served; empty until they are.
        token_folder: The folder with the clients' tokens; empty at a Unix socket.
        base_url: Kalshi's.
        attestation: Learns when the account's location attestation ends; None while Kalshi can't be asked.
        cancelling: Cancels all orders; None while Kalshi can't be asked.
        silence: Watches for clients that are silent; None likewise.
        allowance: Learns what calls cost and what the account's limits are; None likewise.
    """

    def __init__(
        self,
        name: str,
        judge: Judge,
        signs: ProxySigner,
        trail: AuditTrail,
        *,
        metrics: Metrics,
        marker: FreezeMarker,
        running: RunningRequests,
    ) -> None:
        self._name = name
        self._judge = judge
        self._signs = signs
        self._trail = trail
        self._metrics = metrics
        self._marker = marker
        self._running = running
        self._unsaved = ""
        self._freezes = 0
        self._saving = asyncio.Lock()
        self.serves_at = ""
        self.token_folder = ""
        self.base_url = ""
        self.attestation: AttestationWatch | None = None
        self.allowance: AllowanceWatch | None = None
        self.cancelling: Cancelling | None = None
        self.silence: SilenceWatch | None = None
        self._started = time.time()
        self._proving = asyncio.Lock()
        metrics.frozen.set(judge.frozen)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer on the control socket."""
        if request.method == "POST" and request.path in _CHANGES:
            return await self._changed(request.path)
        if request.method == "POST" and request.path == _PROGRAMS:
            return self._write_program(request.query)
        if (request.method, request.path) == ("GET", "/limits"):
            rates = self._judge.left(time.monotonic())
            return _json({"name": self._name, "limits": self._remaining(), "rates": rates})
        if (request.method, request.path) == ("GET", "/identity"):
            return _json(self.identity())
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

    def _stop(self) -> None:
        """Stop all signing."""
        self._freezes += 1
        self._judge.frozen = True
        self._running.stop(_FROZEN)
        self._metrics.frozen.set(1)

    async def _keep_frozen(self) -> None:
        """Keep it over a restart; what can't be kept is frozen all the same, and ``status`` says so."""
        async with self._saving:
            await asyncio.sleep(0)  # the cancel is sent before a thread is started, which takes long on a busy machine
            self._signs.freeze()
            await asyncio.to_thread(self._save, frozen=True)  # a slow disk doesn't delay the cancel
            if self._unsaved:
                _log.error("frozen, but a restart would thaw: %s", self._unsaved)
            self._write("frozen")

    async def _thaw(self) -> None:
        """Sign again, unless a restart would freeze: then it stays frozen, and ``status`` says so."""
        before = self._freezes
        async with self._saving:
            if self._freezes != before:  # frozen again meanwhile
                return
            if not self._save(frozen=False):
                _log.error("not thawed: %s", self._unsaved)
                return
            self._judge.frozen = False
            self._signs.thaw()
            self._metrics.frozen.set(0)
            self._write("thawed")

    def identity(self) -> dict[str, Any]:
        """Return which proxy this is: what is known without a look at the store or at Kalshi."""
        return {
            "name": self._name,
            "pid": os.getpid(),
            "serves_at": self.serves_at,
            "token_folder": self.token_folder,
            "client_of_user": "" if self.token_folder else self._judge.policy.client_of_uid(os.geteuid()),
            "base_url": self.base_url,
            "frozen": self._judge.frozen,
        }

    def status(self) -> dict[str, Any]:
        """Return what a person wants to know at a glance."""
        return {
            **self.identity(),
            "not_saved": self._unsaved,
            "api_key_id": self._signs.api_key_id,
            "uptime_s": round(time.time() - self._started),
            **self._metrics.summary(),
            **(self.allowance.status() if self.allowance is not None else {}),
            "caps": self._left(),
            "silence": self.silence.status() if self.silence is not None else {},
            "clients": sorted(self._judge.policy.clients),
            "audit_lines": self._trail.seq,
            "audit_head": self._trail.head,
            "audit_problem": self._trail.failed,
        }

    def _write_program(self, program: Mapping[str, str]) -> web.Response:
        """Write what `hsm-keys run` says of a program; without it in the trail none is to go on."""
        texts = {name: program[name] for name in _OF_A_PROGRAM if name in program}
        numbers = {name: int(program[name]) for name in _NUMBERS_OF_A_PROGRAM if program.get(name, "").isdecimal()}
        kinds = {"relayed_to": "relayed", "exit_code": "program_ended"}
        kind = next((kind for name, kind in kinds.items() if name in program), "program")
        try:
            self._trail.append(kind, **texts, **numbers)
        except AuditError as error:
            return _json({"not_saved": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json(self.identity())

    async def _changed(self, path: str) -> web.Response:
        freezes, cancels = path.startswith("/freeze"), path.endswith(_CANCEL_ALL)
        cancelling = asyncio.create_task(self._cancelled()) if cancels else None  # before what is stopped
        if freezes:
            self._stop()
        if freezes:
            await self._keep_frozen()
        elif path == "/thaw":
            await self._thaw()
        unsaved = self._unsaved and path != _CANCEL_ALL
        cancelled = {"cancelled": await cancelling} if cancelling is not None else {}
        return _json({**self.status(), **cancelled}, HTTPStatus.INSUFFICIENT_STORAGE if unsaved else HTTPStatus.OK)

    async def _cancelled(self) -> dict[str, Any]:
        if self.cancelling is None:
            return {"status": None, "problem": "the proxy isn't connected to Kalshi yet", "resting": None}
        return await self.cancelling.cancel_all()

    def _remaining(self) -> list[dict[str, Any]]:
        return remaining(self._judge.policy, self._judge.reservations)

    def _left(self) -> dict[str, dict[str, str]]:
        """Return what is left of the caps in dollars, at a glance."""
        left: dict[str, dict[str, str]] = {}
        for row in self._remaining():
            if "left" in row:
                left.setdefault(row["client"] or "all", {})[row["cap"]] = f"{row['left']} of {row['most']}"
        return left

    async def _look(self) -> None:
        self._metrics.tell_left(left_dollars(self._judge.policy, self._judge.reservations))
        if self.silence is not None:
            self._metrics.tell_to_cancel(self.silence.status())
        if self.attestation is not None:
            await self.attestation.look()

    async def _problem(self) -> str:
        async with self._proving:  # one signature answers all requests that come at the same time
            return await self._signs.problem() or self._trail.failed

    def _save(self, *, frozen: bool) -> bool:
        """Keep it over a restart; tell whether that could be done."""
        try:
            self._marker.write(frozen=frozen)
            self._unsaved = ""
        except OSError as error:
            self._unsaved = error.strerror or str(error)
        return not self._unsaved

    def _write(self, kind: str) -> None:
        try:
            self._trail.append(kind)
        except AuditError as error:
            _log.warning("%s", error)


def _json(content: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(text=json.dumps(content), status=status, content_type="application/json")
