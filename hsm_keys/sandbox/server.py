"""A sandbox in this process: aiohttp on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, Self

from hsm_keys.errors import NetworkError, UsageError
from hsm_keys.kalshi.operations import REST_PREFIX, WEBSOCKETS
from hsm_keys.sandbox.api_keys import check_scopes, check_subaccount
from hsm_keys.sandbox.faults import Faults
from hsm_keys.sandbox.keys import KEY_TYPES, generate_pair, parse_public_key
from hsm_keys.sandbox.recording import RecordedRequest, Recorder
from hsm_keys.sandbox.state import TIERS, SandboxState
from hsm_keys.values import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from aiohttp import web

    from hsm_keys.sandbox.state import SandboxKey

__all__ = ["SandboxServer"]

_HOST: Final = "127.0.0.1"
_SHUTDOWN_S: Final = 0.2
"""How long requests that wait in a latency fault keep a stop waiting."""


def _system_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class SandboxServer:
    """A strict stand-in for Kalshi on 127.0.0.1, for one account.

    A context manager; ``start`` and ``stop`` do the same by hand. Stopped and started again it has the same port,
    keys, orders and faults.

    Args:
        tier: The account's API usage level: ``premier``, or ``basic``, which can't register public keys by API.
        port: The TCP port of the REST API; 0 takes a free one.
        ws_port: The TCP port of the WebSockets, which Kalshi serves on another host; 0 takes a free one.
        key_type: Kind of the bootstrap key: ``rsa`` (2048 bits) or ``ed25519``.
        null_lists: Send ``null`` for lists that are empty or were left out, and for absent optional fields.
        clock_ms: The server's clock, in milliseconds since 1970.
        ping_every_s: How often WebSockets get a ping, in seconds; Kalshi's do every 10.

    Attributes:
        state: Keys and orders of the account.
        faults: The fault switches.
        bootstrap_key_id: Id of a key with the scopes ``read`` and ``write``, as made on the account page.
        bootstrap_pem: Its private key as unencrypted PEM: a secret of the sandbox alone.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        tier: str = "premier",
        port: int = 0,
        ws_port: int = 0,
        key_type: str = "rsa",
        null_lists: bool = False,
        clock_ms: Callable[[], int] = _system_clock_ms,
        ping_every_s: float = 10.0,
    ) -> None:
        if tier not in TIERS:
            raise UsageError(f"there is no tier {describe(tier)}", hint=f"choose {' or '.join(TIERS)}")
        for number in (port, ws_port):
            if not 0 <= number <= 65535:  # noqa: PLR2004 - TCP's ports
                raise UsageError(f"there is no port {number}", hint="choose one from 1 to 65535, or 0 for a free one")
        chosen = next((choice for choice in KEY_TYPES if choice == key_type), None)
        if chosen is None:
            raise UsageError(f"there is no key type {describe(key_type)}", hint=f"choose {' or '.join(KEY_TYPES)}")
        self.state = SandboxState(tier=tier, null_lists=null_lists)
        self.faults = Faults()
        self.bootstrap_pem, public_key = generate_pair(chosen)
        self.bootstrap_key_id = self.state.register("bootstrap", public_key, scopes=["read", "write"]).api_key_id
        self._recorder = Recorder()
        self._clock_ms = clock_ms
        self._ping_every_s = ping_every_s
        self._ports = [port, ws_port]
        self._running: _Running | None = None

    def __repr__(self) -> str:
        where = f"port={self._ports[0]}" if self._running else "stopped"
        return f"<SandboxServer {where} tier={self.state.tier}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """What ``KALSHI_API_BASE_URL`` is set to."""
        return f"http://{_HOST}:{self._bound_port(0)}{REST_PREFIX}"

    @property
    def ws_url(self) -> str:
        """The WebSocket's URL, which ``KALSHI_WS_URL`` is set to; that of the perpetuals is below it (``/margin``)."""
        return f"ws://{_HOST}:{self._bound_port(1)}{WEBSOCKETS[0].path}"

    @property
    def control_url(self) -> str:
        """Where ``/faults`` and ``/requests`` are, for other processes."""
        return f"http://{_HOST}:{self._bound_port(0)}/_sandbox"

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """What reached the server, in the order of arrival; the last ten thousand."""
        return self._recorder.requests

    def _bound_port(self, which: int) -> int:
        if not self._ports[which]:
            raise UsageError("the sandbox has no port before it is started")
        return self._ports[which]

    def add_key(
        self,
        name: str,
        public_pem: str,
        *,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
        fcm_subtrader_id: str | None = None,
    ) -> SandboxKey:
        """Register a public key by hand, as on the account page: at any tier.

        Args:
            name: The key's name.
            public_pem: A SubjectPublicKeyInfo PEM, RSA or Ed25519.
            scopes: By default ``read`` and ``write``.
            subaccount: Restricts the key to this subaccount, 0 to 63.
            fcm_subtrader_id: Binds the key to an FCM subtrader: it is denied everywhere.

        Returns:
            The key, with its new id.

        Raises:
            UsageError: If Kalshi's rules are broken.
        """
        if subaccount is not None and fcm_subtrader_id is not None:
            raise UsageError("subaccount and fcm_subtrader_id exclude each other")
        try:
            return self.state.register(
                name,
                parse_public_key(public_pem),
                scopes=None if scopes is None else check_scopes(list(scopes)),
                subaccount=None if subaccount is None else check_subaccount(subaccount),
                fcm_subtrader_id=fcm_subtrader_id,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    def start(self) -> None:
        """Bind the two ports and serve, on a thread of its own.

        Raises:
            UsageError: If aiohttp is missing, the sandbox runs already, or the port can't be had.
        """
        if self._running is not None:
            raise UsageError("the sandbox runs already")
        apps = self._build_apps()
        listeners: list[socket.socket] = []
        try:
            for port in self._ports:
                listeners.append(_bind(port))  # noqa: PERF401 - those that were bound are closed if one can't be
        except UsageError:
            for listener in listeners:
                listener.close()
            raise
        self._ports = [listener.getsockname()[1] for listener in listeners]
        self._running = _Running(list(zip(apps, listeners, strict=True)))

    def _build_apps(self) -> tuple[web.Application, web.Application]:
        try:
            from hsm_keys.sandbox.app import SandboxParts, build_apps
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "aiohttp":
                raise
            raise UsageError("the sandbox needs aiohttp", hint="pip install 'hsm-keys[sandbox]'") from None
        return build_apps(SandboxParts(self.state, self.faults, self._recorder, self._clock_ms, self._ping_every_s))

    def stop(self) -> None:
        """Close the port and every connection; nothing happens if it doesn't run."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run don't block it
        listener.bind((_HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} of {_HOST} can't be had: {error.strerror}",
            hint="stop what listens there (another sandbox?), or choose another one: --port P, where 0 is any free one",
        ) from error
    return listener


class _Running:
    """One run of the server: a thread with its own event loop, from construction to ``stop``."""

    def __init__(self, sites: list[tuple[web.Application, socket.socket]]) -> None:
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, args=(sites,), name="hsm-keys-sandbox", daemon=True)
        self._thread.start()
        try:
            self._loop, self._stopping = self._started.result()
        except Exception as error:
            self._thread.join()
            for _, listener in sites:
                listener.close()
            raise NetworkError(f"the sandbox doesn't start: {error}") from error

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self, sites: list[tuple[web.Application, socket.socket]]) -> None:
        try:
            asyncio.run(self._serve(sites))
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self, sites: list[tuple[web.Application, socket.socket]]) -> None:
        from aiohttp import web

        # Its errors quote the header line that couldn't be parsed, which may be a signature.
        silent = logging.getLogger("hsm_keys.sandbox.http")
        silent.disabled = True
        runners = [web.AppRunner(app, access_log=None, logger=silent, shutdown_timeout=_SHUTDOWN_S) for app, _ in sites]
        try:
            for runner, (_, listener) in zip(runners, sites, strict=True):
                await runner.setup()
                await web.SockSite(runner, listener).start()
            stopping = asyncio.Event()
            self._started.set_result((asyncio.get_running_loop(), stopping))
            await stopping.wait()
        finally:
            for runner in runners:
                await runner.cleanup()
