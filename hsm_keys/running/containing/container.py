"""Prepares a contained program's environment: files, namespaces, the bridge to the proxy."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Self

from hsm_keys.processes import be_private, die_with_parent
from hsm_keys.running.containing import kernel
from hsm_keys.running.containing.authority import certificates_for
from hsm_keys.running.containing.hiding import View, bundles, hidden_paths, show
from hsm_keys.running.containing.hosts import Place, hosts_file, kalshi_hosts, places
from hsm_keys.running.containing.relay import relay
from hsm_keys.running.keeping import keep
from hsm_keys.running.throwaway import Throwaway

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

__all__ = ["Container", "check_system"]

_LEFT_OUT: Final = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
    *("SSL_CERT_DIR", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "GPG_AGENT_INFO"),
)
"""Variables that lead where a contained program doesn't get."""

_TRUSTING: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE")
_BACKLOG: Final = 512
_DONE: Final = b"+"
_LONGEST: Final = 65536


def check_system() -> None:
    """Refuse a system that can't contain programs.

    Raises:
        ContainmentError: If it isn't Linux.
    """
    if sys.platform != "linux":
        raise kernel.ContainmentError(
            "--contain works only on Linux; the program was not started", hint="leave out --contain"
        )


class Container:
    """The surroundings of one program; to be used with ``with``.

    Args:
        folder: A folder of this user alone, for its files.
        base_url: Kalshi's.
        proxy_port: Where the proxy listens.
        allowed: Hosts that the program may reach besides, ``HOST`` or ``HOST:PORT``.
        hidden: Files and folders that it isn't to see, besides those that are known to open a store.
        note: Writes in the audit trail that a connection to an allowed host is opened.
    """

    def __init__(
        self,
        folder: Path,
        base_url: str,
        proxy_port: int,
        allowed: Sequence[str],
        *,
        hidden: Sequence[str | os.PathLike[str]],
        note: Callable[[str], None],
    ) -> None:
        self._places = places(proxy_port, allowed)
        self._hosts = kalshi_hosts(base_url)
        self._proxy_port = proxy_port
        self._parent = folder
        self._hidden = hidden
        self._note = note
        self._view = View([])

    def __enter__(self) -> Self:
        self._ours, self._theirs = socket.socketpair()
        self._folder = Path(tempfile.mkdtemp(prefix="contained-", dir=self._parent))
        self._shown = self._folder / "shown"
        self._shown.mkdir()
        authority, self._certificate = certificates_for(self._hosts)
        trusted = "".join(_text(path) for path in bundles("", {})[:1])
        files = {"ca.pem": trusted + authority, "hosts": hosts_file(self._hosts, self._places), "resolv.conf": ""}
        for name, text in files.items():
            (self._shown / name).write_text(text, encoding="utf-8")
        return self

    def prepare(self, program: str, environment: Mapping[str, str], throwaway: Throwaway) -> Throwaway:
        """Decide what a program sees, and return the throwaway in a file that it does.

        Args:
            program: Its file.
            environment: This process's.
            throwaway: The PEM in the place of a key.
        """
        pem = self._shown / throwaway.path.name
        pem.touch(mode=0o600)
        pem.write_text(throwaway.pem, encoding="ascii")
        replaced = dict.fromkeys(bundles(program, environment), self._shown / "ca.pem")
        replaced |= {Path("/etc/hosts"): self._shown / "hosts", Path("/etc/resolv.conf"): self._shown / "resolv.conf"}
        hidden = hidden_paths(environment, [*self._hidden, self._parent])
        self._view = View(hidden, [self._shown], replaced)
        return Throwaway(pem, throwaway.pem)

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a contained program: whom to trust is said, and nothing of what isn't there."""
        kept = {name: value for name, value in given.items() if name not in _LEFT_OUT}
        return kept | dict.fromkeys(_TRUSTING, str(self._shown / "ca.pem"))

    def keep(self, run: socket.socket, become: Callable[[], NoReturn]) -> NoReturn:
        """Be the keeper of the contained program, in a process of its own: it is the namespaces' first process.

        Args:
            run: As for ``keeping.keep``.
            become: Turns a process into the program.
        """
        try:
            self._ours.close()
            kernel.leave_namespaces()
            kernel.raise_loopback()
            listeners = [_listening(place) for place in self._places]
            socket.send_fds(self._theirs, [_DONE], [listener.fileno() for listener in listeners])
            for listener in listeners:
                listener.close()
            first = os.fork()
            if first == 0:
                self._be_first(run, become)
            run.close()
            self._theirs.close()
            os.waitpid(first, 0)
        except BaseException as error:  # noqa: BLE001 - the run reports any error, and nothing runs uncontained
            self._tell(error)
        finally:
            os._exit(0)

    def _be_first(self, run: socket.socket, become: Callable[[], NoReturn]) -> NoReturn:
        try:
            die_with_parent()
            show(self._view)
            kernel.drop_privileges()
            kernel.filter_calls()
            be_private()
            self._theirs.sendall(_DONE)
            self._theirs.close()
            keep(run, become)
        except BaseException as error:  # noqa: BLE001 - as above
            self._tell(error)
        finally:
            os._exit(0)

    def _tell(self, error: BaseException) -> None:
        message = getattr(error, "message", "") or f"{type(error).__name__}: {getattr(error, 'strerror', '')}"
        self._theirs.sendall(json.dumps([message, getattr(error, "hint", "")]).encode())

    def open(self) -> None:
        """Wait until the program is contained, and build its bridge; it may be starting then.

        Raises:
            ContainmentError: If it can't be contained.
        """
        self._theirs.close()
        told, descriptors, _, _ = socket.recv_fds(self._ours, _LONGEST, len(self._places))
        listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if listeners:
            self._bridge(listeners)
            told = told[1:] or self._ours.recv(_LONGEST)
        if told != _DONE:
            message, hint = json.loads(told) if told else ("it ended before it had begun", "")
            raise kernel.ContainmentError(f"the program can't be contained: {message}", hint=hint)

    def _bridge(self, listeners: Sequence[socket.socket]) -> None:
        certificate = self._folder / "server.pem"
        certificate.touch(mode=0o600)
        certificate.write_text(self._certificate, encoding="ascii")
        if os.fork() == 0:
            relay(list(zip(self._places, listeners, strict=True)), self._proxy_port, str(certificate), self._note)
        for listener in listeners:
            listener.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _listening(place: Place) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((place.address, place.listens_at))
    listener.listen(_BACKLOG)
    return listener


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
