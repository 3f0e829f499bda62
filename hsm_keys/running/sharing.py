"""One proxy for all programs that run with a key: the first run starts it, others join, and it ends with the last.

Each run holds a shared lock as long as it lives. The proxy waits for the exclusive lock: the kernel grants it
when no run is left, however they ended. The first run is the proxy's parent, but may end before the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Self

from hsm_keys.errors import HsmKeysError, KeyBusyError, UsageError, WrongEnvironmentError
from hsm_keys.files import open_private, try_lock
from hsm_keys.proxy.controlling import ProxyChoice, ask_one
from hsm_keys.proxy.locations import control_socket
from hsm_keys.running.joining import find_proxy
from hsm_keys.signing.environments import environment_name
from hsm_keys.values import NAME, describe

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["DEFAULT_CLIENT", "Share", "Terms"]

DEFAULT_CLIENT: Final = "run"

_LOCK: Final = "lock"
_STARTING: Final = "starting"
_TERMS: Final = "proxy.json"
_CLIENTS: Final = "clients"
_PATIENCE_S: Final = 20.0
_BACKLOG: Final = 2048
_TOKEN_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings with which a proxy was started; a run that joins it has to have the same.

    Args:
        base_url: Kalshi's.
        ws_url: The WebSocket's, where the base URL doesn't tell it.
        policy: Path of the policy; empty without one.
        api_key_id: The API key id that was given for the key; empty for its own.
    """

    base_url: str
    ws_url: str
    policy: str
    api_key_id: str = ""


class Share:
    """A run's share in the proxy of a key, to be used with ``with``.

    Args:
        name: The key's name.
        client: The client that the run's program is to the proxy; None if nobody has said.
        terms: What the proxy is to be started with; one that runs is joined if it was started with the same.

    Attributes:
        port: Where the proxy listens, or will.
        token: The program's; it ends with the share.
        listener: The socket, for the proxy that this run is to start; None if it has joined one.
        process: The process of a proxy that was joined; 0 otherwise.
        clients: The folder with the clients' tokens; None for a proxy at a Unix socket, which has none.
        client: The client that the program is.
        socket: The Unix socket of a proxy that was joined, to which a port has to lead; None if the proxy has a port.
        is_frozen: Whether a proxy that was joined signs nothing.
        proxy: Which proxy it is, to be asked.
        name: The key's name.
        folder: The runs' folder.
        terms: What the proxy is to be started with, or was.

    Raises:
        UsageError: If the client's name is none, or it has a token already; or a proxy runs that can't be joined.
        WrongEnvironmentError: If the proxy that runs is for another environment.
        KeyBusyError: If other runs are starting or ending for too long.
        HsmKeysError: As of ``find_proxy``.
    """

    port: int
    token: str
    listener: socket.socket | None
    process: int
    clients: Path | None

    def __init__(self, name: str, client: str | None, terms: Terms) -> None:
        if client is not None and not NAME.fullmatch(client):
            raise UsageError(
                f"{describe(client)} isn't a name for a client",
                hint="use letters, digits, dots, dashes and underscores, such as: --client maker",
            )
        self.name = name
        self.proxy = ProxyChoice(socket=control_socket(name))
        self._named = client
        self.client = client or DEFAULT_CLIENT
        self.socket: Path | None = None
        self.is_frozen = False
        self.terms = terms
        self.folder = _private(control_socket(name).with_name(f"{name}.run"))
        self._lock = -1

    def __enter__(self) -> Self:
        starting = open_private(self.folder / _STARTING)
        try:
            _wait_for(starting, fcntl.LOCK_EX, self.name)
            self._lock = open_private(self.folder / _LOCK)
            self._begin()
            self._write_token()
        except BaseException:
            self._close()
            raise
        finally:
            os.close(starting)
        return self

    def _begin(self) -> None:
        """Take a share: of the proxy of other runs, of one that somebody started, or of one that is to be started."""
        self.token, self.listener, self.process = os.urandom(_TOKEN_BYTES).hex(), None, 0
        while not try_lock(self._lock):
            _wait_for(self._lock, fcntl.LOCK_SH, self.name)
            if os.path.exists(self.folder / _TERMS):
                return self._join_run()
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # that proxy was just ending: it isn't there any more
        if not self._join_another():
            self._prepare()
        return fcntl.flock(self._lock, fcntl.LOCK_SH)

    def _join_run(self) -> None:
        known = json.loads((self.folder / _TERMS).read_text(encoding="utf-8"))
        self.port, self.process, self.clients = known.pop("port"), 0, self.folder / _CLIENTS
        if known != asdict(self.terms):
            raise UsageError(
                f"a proxy for {self.name!r} runs already, for another program, with another policy, environment or "
                "API key id",
                hint="give the same --policy, --env and --api-key-id, or end that program: one key has one proxy",
            )

    def find_process(self) -> bool:
        """Learn which process the proxy is that was joined; tell whether it answers: it may still be starting."""
        with suppress(HsmKeysError):
            self.process = int(ask_one(self.proxy, "GET", "/identity")["pid"])
        return bool(self.process)

    def _join_another(self) -> bool:
        """Join a proxy that no run has started, if there is one."""
        found = find_proxy(self.name)
        if found is None:
            return False
        ours, others = environment_name(self.terms.base_url), environment_name(found.base_url)
        if ours != others:
            raise WrongEnvironmentError(
                f"a proxy for {self.name!r} runs already, for {others}, and the program is to trade on {ours}",
                hint=f"give that proxy's environment (--env or --base-url: {found.base_url}), or end the proxy",
            )
        for option, what in (("policy", "policy"), ("api_key_id", "API key id")):
            if getattr(self.terms, option):
                raise UsageError(
                    f"a proxy for {self.name!r} runs already, with a {what} of its own",
                    hint=f"leave out --{option.replace('_', '-')}",
                )
        if found.socket is None:
            self.port, self.clients = found.port, found.tokens
        else:
            self._be_client_of_socket(found.client)
            self.port, self.clients = 0, None
        self.proxy, self.process = ProxyChoice(name=self.name), found.process
        self.socket, self.is_frozen = found.socket, found.is_frozen
        return True

    def _be_client_of_socket(self, client: str) -> None:
        """Be the client that a policy knows this user as: at a Unix socket it goes by users."""
        if self._named not in {None, client}:
            raise UsageError(
                f"at the socket of the proxy for {self.name!r} this user's programs are the client {client!r}",
                hint=f"give --client {client}, or none; `uids` in the proxy's policy says which user is which client",
            )
        self.client = client

    def _prepare(self) -> None:
        """Make what a new proxy needs; clients' tokens that a kill left behind go."""
        self.clients = _private(self.folder / _CLIENTS)
        for left in self.clients.iterdir():
            left.unlink()
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(_BACKLOG)
        self.port = self.listener.getsockname()[1]
        text = json.dumps({**asdict(self.terms), "port": self.port})
        (self.folder / _TERMS).write_text(text, encoding="utf-8")

    def _write_token(self) -> None:
        """Put the program's token where the proxy looks for it, if it goes by tokens."""
        if self.clients is None:
            return
        try:
            descriptor = os.open(self.clients / self.client, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise UsageError(
                f"the proxy has a token of the client {self.client!r} already",
                hint="give another client: --client NAME; or, if no program uses it, remove its file from the proxy's "
                "folder of clients",
            ) from None
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(self.token)

    def serve(self) -> None:
        """Be the proxy's process, right after it was forked: end in good order when no run is left."""
        os.close(self._lock)  # the run's own, which would hold the lock for it
        self._lock = descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)

        def wait() -> None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # from now on until this process has ended
            with suppress(FileNotFoundError):
                (self.folder / _TERMS).unlink()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, name="hsm-keys-run", daemon=True).start()

    def revoke(self) -> None:
        """End the program's token."""
        if self.token and self.clients is not None:
            with suppress(FileNotFoundError):
                (self.clients / self.client).unlink()
        self.token = ""

    def is_last(self) -> bool:
        """Tell whether no other run shares the proxy; from then on none joins it."""
        if not try_lock(self._lock):
            return False
        with suppress(FileNotFoundError):
            (self.folder / _TERMS).unlink()
        return True

    def _close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.revoke()
        if self.listener is not None:
            self.listener.close()
        self._close()


def _wait_for(descriptor: int, kind: int, name: str) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise KeyBusyError(
                    f"another `run` is starting or ending the proxy for {name!r}", hint="try again in a moment"
                ) from None
            time.sleep(0.02)


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
