"""The options of a proxy, and which of them can be combined."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsm_keys.errors import UsageError
from hsm_keys.files import check_folder_to_be, check_nobody_else_reads
from hsm_keys.proxy.access import TokenFolder
from hsm_keys.proxy.judge import ALLOW_ALL
from hsm_keys.proxy.listening import check_loopback, check_unix, parse_address, started_by_a_socket
from hsm_keys.proxy.policy import load_policy
from hsm_keys.signing.presign import presign_cost
from hsm_keys.signing.signer import DEFAULT_RATE
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from hsm_keys.proxy.policy import Policy

    Listener = socket.socket  # the options have a "socket" of their own

__all__ = ["Options", "ProxySettings", "check_options", "server_tls"]


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
        ahead: For how many routes headers are signed ahead.
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

    @property
    def presign_rate(self) -> float:
        """Signatures a second that are made ahead, at most."""
        return DEFAULT_RATE if self.ahead_rate is None else self.ahead_rate


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Options that go together, and what they name: the policy, and for TCP the clients' tokens."""

    options: Options
    policy: Policy
    tokens: TokenFolder | None


def check_options(options: Options) -> ProxySettings:
    """Look at what the options say and what goes together, before a store is opened for it.

    Raises:
        UsageError: If an option can't be used.
    """
    policy = load_policy(options.policy, in_force=True) if options.policy else ALLOW_ALL
    if options.ahead_rate is not None and not options.ahead:
        raise UsageError("--presign-rate needs --presign", hint="give --presign too")
    presign_cost(routes=options.ahead, rate=options.presign_rate)  # refuses what is no rate
    if started_by_a_socket() and (options.listen is not None or options.socket is not None):
        raise UsageError(
            "systemd gives the proxy a socket, and --listen or --socket names another one",
            hint="leave the option out, or start the proxy without its socket unit",
        )
    _check_places(options)
    if options.listen is None:
        if options.clients or options.tls or options.unsafe_listen:
            raise UsageError("--clients, --tls-cert and --unsafe-listen need --listen", hint="give --listen too")
        return ProxySettings(options, policy, None)
    if options.socket is not None or options.allow_uids:
        raise UsageError(
            "--socket and --allow-uid can't be combined with --listen", hint="run a second proxy for the other"
        )
    server_tls(options.tls)
    if options.unsafe_listen and options.tls is None:
        raise UsageError("--unsafe-listen needs TLS", hint="give --tls-cert and --tls-key")
    host, _ = parse_address(options.listen)
    if not options.unsafe_listen:
        check_loopback(host)
    if options.clients is None:
        raise UsageError("--listen needs the clients' tokens", hint="give the folder of the tokens: --clients")
    return ProxySettings(options, policy, TokenFolder(options.clients))


def _check_places(options: Options) -> None:
    """Make sure that what is to be made or listened at can be."""
    if options.audit is not None:
        check_folder_to_be(options.audit, "--audit")
    if options.socket is not None:
        check_unix(options.socket)
    if options.metrics is not None:
        check_loopback(parse_address(options.metrics)[0])


def server_tls(files: tuple[Path, Path] | None) -> ssl.SSLContext | None:
    """Return what TLS is served with; None without.

    Args:
        files: Certificate and key files.

    Raises:
        UsageError: If they can't be used, or others can read the key.
    """
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
