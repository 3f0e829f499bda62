"""The proxy as a program: put together, started, reloaded, stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web

from hsm_keys.errors import HsmKeysError, UsageError
from hsm_keys.files import check_nobody_else_reads
from hsm_keys.proxy.access import Caller, Refused, TokenFolder, check_page, local_caller
from hsm_keys.proxy.allowance import AllowanceWatch
from hsm_keys.proxy.asking import OwnRequests
from hsm_keys.proxy.attestation import AttestationWatch
from hsm_keys.proxy.audit import AuditTrail
from hsm_keys.proxy.cancelling import Cancelling
from hsm_keys.proxy.control import Control
from hsm_keys.proxy.handler import Handler
from hsm_keys.proxy.journal import Journal
from hsm_keys.proxy.judge import ALLOW_ALL, Judge
from hsm_keys.proxy.listening import (
    BACKLOG,
    bind_tcp,
    bind_unix,
    check_loopback,
    from_systemd,
    parse_address,
    started_by_a_socket,
)
from hsm_keys.proxy.locations import control_link, control_socket, default_socket, state_folder
from hsm_keys.proxy.marker import FreezeMarker
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.policy import load_policy
from hsm_keys.proxy.reconciling import Reconciler
from hsm_keys.proxy.replies import error_body
from hsm_keys.proxy.reservations import Reservations
from hsm_keys.proxy.running import RunningRequests, Stop
from hsm_keys.proxy.serving import ACCEPTED_AT_ONCE, ClientServer, raise_file_limit
from hsm_keys.proxy.signing import ProxySigner
from hsm_keys.proxy.silence import SilenceWatch
from hsm_keys.proxy.upstream import Upstream
from hsm_keys.signing.presign import presign_cost
from hsm_keys.signing.signer import DEFAULT_RATE
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from hsm_keys.proxy.client_requests import ClientRequest
    from hsm_keys.proxy.policy import Policy
    from hsm_keys.signing.signer import RequestSigner

    Listener = socket.socket  # the options have a "socket" of their own

__all__ = ["Checked", "Options", "check_options", "run"]

_DRAIN_S: Final = 10.0
_WATCH_S: Final = 0.2
_RELOADED: Final = Stop(403, "policy", "the client's rules were changed meanwhile")
_REVOKED: Final = Stop(401, "token", "the client's token was revoked meanwhile")
_ROOT: Final = 0

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    Args:
        name: The key's name.
        socket: Path of the Unix socket; None for the default, unless ``listen`` is given.
        listen: ``HOST:PORT`` to listen at instead.
        clients: Folder with the clients' tokens, for TCP.
        policy: The policy's file.
        allow_uids: Users beside this one that may use the Unix socket.
        tls: Certificate and key files.
        unsafe_listen: Listen elsewhere than on loopback; needs ``tls``.
        audit: Folder of the audit trail.
        audit_may_fail: Sign also when the trail can't be written.
        ahead: For how many routes headers are kept in hand.
        ahead_rate: Signatures a second that are made ahead, at most; None for the default.
        metrics: ``HOST:PORT`` for Prometheus.
        hosts: Further names that clients may call the proxy by over TCP.
        listener: A socket that listens at ``listen`` already; None to make one.
    """

    name: str
    socket: Path | None = None
    listen: str | None = None
    clients: Path | None = None
    policy: Path | None = None
    allow_uids: frozenset[int] = frozenset()
    tls: tuple[Path, Path] | None = None
    unsafe_listen: bool = False
    audit: Path | None = None
    audit_may_fail: bool = False
    ahead: int = 0
    ahead_rate: float | None = None
    metrics: str | None = None
    hosts: frozenset[str] = frozenset()
    listener: Listener | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """Options that go together, and what they name: the policy, and for TCP the clients' tokens."""

    options: Options
    policy: Policy
    tokens: TokenFolder | None


def run(
    signer: RequestSigner,
    base_url: str,
    checked: Checked,
    report: Callable[[str], None],
    *,
    ws_url: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP reads the policy again.

    Args:
        signer: Signs with the key.
        base_url: Kalshi's, as ``resolve`` gives it.
        checked: What ``check_options`` made of the command line.
        report: Hears what people should know.
        ws_url: The WebSocket's URL, where that isn't told by the base URL.

    Raises:
        UsageError: If a socket or folder can't be had.
        AuditError: If the audit trail can't be written.
    """
    options = checked.options
    state = state_folder(options.name)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker = FreezeMarker(state / "frozen")
    except OSError as error:
        raise UsageError(f"{state} can't be used: {error.strerror}", hint="set XDG_STATE_HOME") from None
    journal = Journal(state / "caps")
    judge = Judge(checked.policy, reservations=Reservations(journal))
    judge.frozen = marker.frozen
    metrics = Metrics()
    signs = ProxySigner(signer, judge, metrics, ahead=options.ahead, rate=_rate(options))
    trail = AuditTrail(options.audit or state / "audit", key=lambda: signs.key)
    try:
        running = RunningRequests()
        control = Control(options.name, judge, signs, trail, metrics=metrics, marker=marker, running=running)
        control.token_folder = str(options.clients.absolute()) if options.clients else ""
        proxy = _Proxy(options, judge, signs, trail, control, metrics, running, checked.tokens, journal)
        asyncio.run(proxy.serve(base_url, ws_url, signer.environment, report))
    finally:
        trail.close()
        signs.close()
        marker.close()
        journal.close()


def check_options(options: Options) -> Checked:
    """Look at what the options say and what goes together, before a store is opened for it.

    Raises:
        UsageError: If an option can't be used.
    """
    policy = load_policy(options.policy, in_force=True) if options.policy else ALLOW_ALL
    if options.ahead_rate is not None and not options.ahead:
        raise UsageError("--presign-rate is for --presign", hint="give --presign too")
    presign_cost(routes=options.ahead, rate=_rate(options))  # refuses what is no rate
    if started_by_a_socket() and (options.listen is not None or options.socket is not None):
        raise UsageError(
            "systemd hands a socket over, and --listen or --socket names another place",
            hint="leave the option out, or start the proxy without its socket unit",
        )
    if options.metrics is not None:
        check_loopback(parse_address(options.metrics)[0])
    if options.listen is None:
        if options.clients or options.tls or options.unsafe_listen:
            raise UsageError("--clients, --tls-cert and --unsafe-listen are for --listen", hint="give --listen too")
        return Checked(options, policy, None)
    if options.socket is not None or options.allow_uids:
        raise UsageError("--socket and --allow-uid don't go with --listen", hint="run a second proxy for the other")
    _tls(options.tls)
    if options.unsafe_listen and options.tls is None:
        raise UsageError("--unsafe-listen needs TLS", hint="give --tls-cert and --tls-key")
    host, _ = parse_address(options.listen)
    if not options.unsafe_listen:
        check_loopback(host)
    if options.clients is None:
        raise UsageError("--listen needs the clients' tokens", hint="give their folder: --clients")
    return Checked(options, policy, TokenFolder(options.clients))


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
        self._hosts: frozenset[str] | None = None
        self._uids = options.allow_uids | {os.geteuid()}

    async def serve(
        self, base_url: str, ws_url: str | None, environment: str | None, report: Callable[[str], None]
    ) -> None:
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
            handler = Handler(
                self._identify,
                self._judge,
                self._signs,
                upstream,
                self._running,
                order_sent=cancelling.order_sent,
                trail=self._trail,
                metrics=self._metrics,
                audit_may_fail=self._options.audit_may_fail,
            )
            stack.callback(handler.tell_omitted)
            silence = SilenceWatch(self._judge, own, self._trail, self._metrics)
            self._control.silence = silence
            self._running.hear = silence.hear
            stack.callback(asyncio.create_task(silence.run()).cancel)
            self._reconcile(stack, silence)
            where = self._control.serves_at = await self._listen(stack, handler)
            stack.push_async_callback(upstream.close_relays)
            if self._tokens is not None:
                watching = asyncio.create_task(self._watch_tokens(self._tokens))
                stack.callback(watching.cancel)
            serving = asyncio.Event()
            stack.callback((await allowance.start(serving)).cancel)
            numbers = allowance.summary()
            report(f"serving {self._options.name!r} at {where}, for {base_url}; {numbers}")
            serving.set()
            if self._options.ahead:
                cost = presign_cost(routes=self._options.ahead, rate=_rate(self._options)).signatures_per_hour
                report(f"signing ahead makes up to {cost:,.0f} signatures an hour that nobody uses")
            if self._judge.frozen:
                report("signing is frozen, as it was before: `hsm-keys proxy thaw` resumes it")
            await stop.wait()
            report("stopping: requests under way are finished first")

    def _reconcile(self, stack: AsyncExitStack, silence: SilenceWatch) -> None:
        """Look in the background for what became of orders under caps."""
        judge = self._judge
        reconciler = Reconciler(judge.reservations, silence.get, self._journal, lambda: judge.policy.is_capped)
        for work in (reconciler.run(), reconciler.keep_synced()):
            stack.callback(asyncio.create_task(work).cancel)

    async def _listen(self, stack: AsyncExitStack, handler: Handler) -> str:
        options = self._options
        path = control_socket(options.name)
        await _serve(stack, bind_unix(path, mode=0o600), web.Server(self._control_answer, access_log=None), path)
        _link(control_link(options.name), path)
        if options.metrics:
            host, port = parse_address(options.metrics)
            hosts = _own_hosts(host, port)

            async def answer_metrics(request: web.BaseRequest) -> web.StreamResponse:
                try:
                    check_page(request.headers, hosts)
                except Refused as refused:
                    return _refusal(refused)
                return await self._control.answer_metrics(request)

            await _serve(stack, bind_tcp(host, port), web.Server(answer_metrics, access_log=None))
        clients = ClientServer(handler.answer, handler.refuse_unanswered, self._client_of, files=raise_file_limit())
        if options.listen:
            host, port = parse_address(options.listen)
            listener = self._options.listener or bind_tcp(host, port)
            port = listener.getsockname()[1]
            if not options.unsafe_listen:
                self._hosts = _own_hosts(host, port) | options.hosts
            await _serve_clients(stack, listener, clients, tls=_tls(options.tls))
            return f"http{'s' if options.tls else ''}://{_in_url(host)}:{port}/trade-api/v2"
        handed = from_systemd()
        if handed is not None:
            await _serve_clients(stack, handed, clients)
            return f"the socket {handed.getsockname()}"
        path = options.socket or default_socket(options.name)
        listener = bind_unix(path, mode=0o666 if options.allow_uids else 0o600)
        await _serve_clients(stack, listener, clients, path)
        return f"the socket {path.resolve()}"

    def _identify(self, request: ClientRequest) -> Caller:
        if self._tokens is not None:
            check_page(request.headers, self._hosts)
            return self._tokens.caller(request.headers)
        check_page(request.headers, None)
        return local_caller(_connection(request), self._uids, self._judge.policy.client_of_uid)

    def _client_of(self, transport: asyncio.Transport) -> str:
        """Return whose a connection is; empty over TCP, where each request says so, and for strangers."""
        if self._tokens is not None:
            return ""
        with suppress(Refused):
            peer = cast("socket.socket | None", transport.get_extra_info("socket"))
            return local_caller(peer, self._uids, self._judge.policy.client_of_uid).client
        return ""

    async def _control_answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            local_caller(_connection(request), frozenset({os.geteuid(), _ROOT}), str)
        except Refused as refused:
            return _refusal(refused)
        return await self._control.answer(request)

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
            _log.error("the policy wasn't reloaded, the old one stays: %s", error)
            return
        after = self._judge.policy
        self._running.stop(_RELOADED, of=lambda caller: before.client(caller.client) != after.client(caller.client))
        _log.warning("the policy was reloaded")
        with suppress(HsmKeysError):
            self._trail.append("reloaded")


def _link(link: Path, path: Path) -> None:
    """Leave word of the control socket where whoever has another XDG_RUNTIME_DIR looks too."""
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    except OSError as error:
        _log.warning("the control socket is found by --socket alone from elsewhere: %s", error.strerror)


def _rate(options: Options) -> float:
    return DEFAULT_RATE if options.ahead_rate is None else options.ahead_rate


def _refusal(refused: Refused) -> web.Response:
    return web.json_response(error_body(refused.reason, refused.message), status=refused.status)


def _connection(request: web.BaseRequest | ClientRequest) -> socket.socket | None:
    """Return the socket that a request came over; None if it is closed."""
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    return cast("socket.socket | None", connection)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _own_hosts(host: str, port: int) -> frozenset[str]:
    """Return the Hosts that a client on this machine sends; it leaves out the port that is its scheme's own."""
    names = ("localhost", "127.0.0.1", "[::1]", _in_url(host))
    return frozenset(f"{name}:{port}" for name in names) | (frozenset(names) if port in {80, 443} else frozenset())


async def _serve(
    stack: AsyncExitStack,
    listener: socket.socket,
    server: web.Server,
    path: Path | None = None,
) -> None:
    """Serve on a socket until the stack ends, which drains it and removes its path."""
    runner = web.ServerRunner(server, shutdown_timeout=_DRAIN_S)
    await runner.setup()
    if path is not None:
        stack.callback(path.unlink, missing_ok=True)
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener).start()


async def _serve_clients(
    stack: AsyncExitStack,
    listener: socket.socket,
    clients: ClientServer,
    path: Path | None = None,
    *,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve clients on a socket until the stack ends, which finishes what is under way and removes its path."""
    loop = asyncio.get_running_loop()
    if path is not None:
        stack.callback(path.unlink, missing_ok=True)
    stack.push_async_callback(clients.stop, _DRAIN_S)
    server = await loop.create_server(clients, sock=listener, ssl=tls, backlog=ACCEPTED_AT_ONCE)
    stack.callback(server.close)
    listener.listen(BACKLOG)  # asyncio has one number for how many wait, and how many it accepts at once


def _tls(files: tuple[Path, Path] | None) -> ssl.SSLContext | None:
    if files is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    check_nobody_else_reads(files[1])
    try:
        context.load_cert_chain(*files)
    except (OSError, ssl.SSLError):
        raise UsageError(
            f"{shown_path(files[0])} and {shown_path(files[1])} aren't a certificate and its key",
            hint="give both as PEM files",
        ) from None
    return context
