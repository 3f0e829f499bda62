"""The proxy as a program: assembles, starts, reloads and stops it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import HsmKeysError, UsageError
from hsm_keys.proxy.allowance import AllowanceWatch
from hsm_keys.proxy.asking import OwnRequests
from hsm_keys.proxy.attestation import AttestationWatch
from hsm_keys.proxy.audit import AuditTrail
from hsm_keys.proxy.callers import Callers
from hsm_keys.proxy.cancelling import Cancelling
from hsm_keys.proxy.control import Control
from hsm_keys.proxy.endpoints import serve_clients, serve_control, serve_metrics
from hsm_keys.proxy.handler import Handler
from hsm_keys.proxy.journal import Journal
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.locations import state_folder
from hsm_keys.proxy.marker import FreezeMarker
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.policy import load_policy
from hsm_keys.proxy.reconciling import Reconciler
from hsm_keys.proxy.reservations import Reservations
from hsm_keys.proxy.running import RunningRequests, Stop
from hsm_keys.proxy.signing import ProxySigner
from hsm_keys.proxy.silence import SilenceWatch
from hsm_keys.proxy.upstream import Upstream
from hsm_keys.signing.presign import presign_cost
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.access import TokenFolder
    from hsm_keys.proxy.options import Options, ProxySettings
    from hsm_keys.signing.signer import RequestSigner

__all__ = ["freeze_objects", "run"]

_WATCH_S: Final = 0.2
_SWITCH_S: Final = 0.0002
"""After how long a thread that waits for the interpreter gets it: threads that sign wait for it on every return."""

_RELOADED: Final = Stop(403, "policy", "the client's rules were changed meanwhile")
_REVOKED: Final = Stop(401, "token", "the client's token was revoked meanwhile")

_log: Final = logging.getLogger(__name__)


def run(
    signer: RequestSigner,
    base_url: str,
    settings: ProxySettings,
    report: Callable[[str], None],
    *,
    ws_url: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP reads the policy again.

    Args:
        signer: Signs with the key.
        base_url: Kalshi's, as ``resolve`` gives it.
        settings: What ``check_options`` made of the command line.
        report: Hears what people should know.
        ws_url: The WebSocket's URL, where that isn't told by the base URL.

    Raises:
        UsageError: If a socket or folder can't be had.
        AuditError: If the audit trail can't be written.
    """
    options = settings.options
    sys.setswitchinterval(_SWITCH_S)
    state = state_folder(options.name)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker = FreezeMarker(state / "frozen")
    except OSError as error:
        raise UsageError(f"{shown_path(state)} can't be used: {error.strerror}", hint="set XDG_STATE_HOME") from None
    journal = Journal(state / "caps")
    judge = Judge(settings.policy, reservations=Reservations(journal))
    judge.frozen = marker.frozen
    metrics = Metrics()
    signs = ProxySigner(signer, judge, metrics, ahead=options.ahead, rate=options.presign_rate)
    trail = AuditTrail(options.audit or state / "audit", key=lambda: signs.key)
    try:
        running = RunningRequests()
        control = Control(options.name, judge, signs, trail, metrics=metrics, marker=marker, running=running)
        control.token_folder = str(options.clients.absolute()) if options.clients else ""
        control.base_url = base_url
        proxy = _Proxy(options, judge, signs, trail, control, metrics, running, settings.tokens, journal)
        asyncio.run(proxy.serve(base_url, ws_url, signer.environment, report))
    finally:
        trail.close()
        signs.close()
        marker.close()
        journal.close()


def freeze_objects() -> None:
    """Have the garbage collector leave alone what is there now: to look through it again and again holds up requests.

    It looks through what has grown old once that is a quarter of what it found the last time. So it looks once more,
    at nothing: otherwise it would wait for the remains of thousands of WebSocket sessions, 5 KB each.
    """
    gc.collect()
    gc.freeze()
    gc.collect()


class _Proxy:
    """A proxy that serves."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        options: Options,
        judge: Judge,
        signs: ProxySigner,
        trail: AuditTrail,
        control: Control,
        metrics: Metrics,
        running: RunningRequests,
        tokens: TokenFolder | None,
        journal: Journal,
    ) -> None:
        self._options = options
        self._judge = judge
        self._signs = signs
        self._trail = trail
        self._control = control
        self._metrics = metrics
        self._running = running
        self._tokens = tokens
        self._journal = journal

    async def serve(
        self, base_url: str, ws_url: str | None, environment: str | None, report: Callable[[str], None]
    ) -> None:
        options = self._options
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(Upstream(base_url, self._metrics, ws_url=ws_url))
            own = OwnRequests(upstream, self._signs, self._judge)
            self._control.attestation = AttestationWatch(own, self._metrics)
            allowance = AllowanceWatch(own, self._judge, self._metrics, environment=environment)
            self._control.allowance = allowance
            cancelling = Cancelling(upstream, self._signs, self._judge, self._trail)
            stack.push_async_callback(cancelling.close)
            self._control.cancelling = cancelling
            callers = Callers(self._judge, self._tokens, options.allow_uids)
            handler = Handler(
                callers.of_request,
                self._judge,
                self._signs,
                upstream,
                self._running,
                order_sent=cancelling.order_sent,
                trail=self._trail,
                metrics=self._metrics,
                audit_may_fail=options.audit_may_fail,
            )
            stack.callback(handler.decisions.write_omitted)
            silence = SilenceWatch(self._judge, own, self._trail, self._metrics)
            self._control.silence = silence
            self._running.hear = silence.hear
            stack.callback(asyncio.create_task(silence.run()).cancel)
            self._reconcile(stack, silence)
            await serve_control(stack, options.name, self._control)
            if options.metrics:
                await serve_metrics(stack, options.metrics, self._control)
            where = self._control.serves_at = await serve_clients(stack, options, handler, callers)
            stack.push_async_callback(upstream.close_relays)
            if self._tokens is not None:
                watching = asyncio.create_task(self._watch_tokens(self._tokens))
                stack.callback(watching.cancel)
            serving = asyncio.Event()
            stack.callback((await allowance.start(serving)).cancel)
            numbers = allowance.summary()
            report(f"serving {options.name!r} at {where}, for {base_url}; {numbers}")
            serving.set()
            freeze_objects()
            if options.ahead:
                cost = presign_cost(routes=options.ahead, rate=options.presign_rate).signatures_per_hour
                report(f"signing ahead makes up to {cost:,.0f} unused signatures an hour")
            if self._judge.frozen:
                report("signing is still frozen from before: `hsm-keys proxy thaw` resumes it")
            await stop.wait()
            report("stopping: requests under way are finished first")

    def _reconcile(self, stack: AsyncExitStack, silence: SilenceWatch) -> None:
        """Look in the background for what became of orders under caps."""
        judge = self._judge
        reconciler = Reconciler(judge.reservations, silence.get, self._journal, lambda: judge.policy.is_capped)
        for work in (reconciler.run(), reconciler.keep_synced()):
            stack.callback(asyncio.create_task(work).cancel)

    async def _watch_tokens(self, tokens: TokenFolder) -> None:
        """Stop what is under way for clients whose tokens are gone: their WebSockets, above all."""
        while True:
            await asyncio.sleep(_WATCH_S)
            self._running.stop(_REVOKED, of=lambda caller: not tokens.has(caller))

    def _reload(self) -> None:
        """Read the policy again; one that can't be used changes nothing."""
        if self._options.policy is None:
            return
        before = self._judge.policy
        try:
            self._judge.replace(load_policy(self._options.policy, in_force=True))
        except UsageError as error:
            _log.error("the policy wasn't reloaded, the old one stays in force: %s", error)
            return
        after = self._judge.policy
        self._running.stop(_RELOADED, of=lambda caller: before.client(caller.client) != after.client(caller.client))
        _log.warning("the policy was reloaded")
        with suppress(HsmKeysError):
            self._trail.append("reloaded")
