"""The process's connections to the servers of one store: one budget of time for all of them, and one token.

A signature has two seconds for all attempts together, because an order that is late is worth nothing. Reading and
changing have more. Servers are tried in order; a server that answered is asked first until it fails.

The timeouts of connections and answers keep the budget. Two things can take longer: the system's name resolution, and
a server that sends its answer byte by byte.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx2

from hsm_keys._version import __version__
from hsm_keys.errors import HsmKeysError, NetworkError, OutcomeUnknownError
from hsm_keys.forks import fork_generation
from hsm_keys.logs import log_request
from hsm_keys.network_proxies import httpx_proxy
from hsm_keys.stores.vault.environment import trusted_authorities
from hsm_keys.stores.vault.error_mapping import VaultAnswer, VaultCall, failure_of, read_answer, refusal_of
from hsm_keys.stores.vault.errors import (
    VaultAccessDeniedError,
    VaultDownError,
    VaultError,
    VaultGarbledAnswerError,
    VaultTokenError,
)
from hsm_keys.stores.vault.tokens import SteadyToken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.stores.vault.uri import VaultUri
    from hsm_keys.values import Secret

__all__ = ["VaultConnection"]

_T = TypeVar("_T")

_POOL: Final = 256
"""Connections kept a server: with fewer than threads, each further signature would pay for a new TLS handshake."""

_KEPT_S: Final = 240.0
"""Servers close idle connections after 300 s by default (``http_idle_timeout``)."""

_ATTEMPTS: Final = 2
_SIGNING_S: Final = 2.0
_SHARE: Final = 0.9
"""Of the budget that attempts may take; the rest is for pauses, and for what is done around the socket."""

_PAUSE_S: Final = 0.08

_HEADERS: Final = (
    (b"User-Agent", f"hsm-keys/{__version__}".encode()),
    (b"Content-Type", b"application/json"),
    (b"X-Vault-Request", b"true"),  # an agent between here and the server may require it
)

_PASSING: Final = (NetworkError, VaultDownError, VaultGarbledAnswerError)
"""What may be different with another server, or a moment later."""

_LOOK_UP: Final = VaultCall("look its token up", "GET", "auth/token/lookup-self")
_CAPABILITIES: Final = VaultCall("tell what the token may do", "POST", "sys/capabilities-self")
_HEALTH: Final = VaultCall("tell how it is", "GET", "sys/health")
_RENEW: Final = VaultCall("renew its token", "POST", "auth/token/renew-self")


@dataclass(frozen=True)
class _Budget:
    """How long a call may take.

    Args:
        total_s: Seconds for all attempts together.
        attempts: How often it is tried at most.
        connect_s: Seconds for a connection.
        read_s: Seconds for an answer.
    """

    total_s: float
    attempts: int
    connect_s: float
    read_s: float

    @cached_property
    def timeouts(self) -> dict[str, float]:
        """The timeouts as httpx2's transports take them."""
        return {"connect": self.connect_s, "read": self.read_s, "write": self.read_s, "pool": self.connect_s}


class _Server:
    """The way to one server.

    Args:
        address: Its origin.
        authorities: Whom to trust.
    """

    def __init__(self, address: str, authorities: Any) -> None:
        self.address: Final = address
        self.transport: Final = httpx2.HTTPTransport(
            verify=authorities,
            proxy=httpx_proxy(address),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=_POOL, keepalive_expiry=_KEPT_S),
        )
        self.client: Final = httpx2.Client(transport=self.transport, trust_env=False, follow_redirects=False)
        self._urls: dict[str, httpx2.URL] = {}

    def url(self, path: str) -> httpx2.URL:
        """Return the URL of a path below ``/v1/``; one that was parsed before, since that takes a tenth of a call."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx2.URL(f"{self.address}/v1/{path}")
        return url


class VaultConnection:
    """The connections of one process for one store.

    Args:
        uri: Says the addresses and the namespace.

    Raises:
        UsageError: If the file of authorities can't be read.
        VaultTokenError: If there is no token.
    """

    def __init__(self, uri: VaultUri) -> None:
        self.generation: Final = fork_generation()
        self._token = SteadyToken(self)
        self._namespace = uri.namespace
        authorities = trusted_authorities()
        self._servers = tuple(_Server(address, authorities) for address in uri.addresses)
        """In the order in which they are tried; replaced as a whole."""
        count = len(self._servers)
        tries = max(_ATTEMPTS, count)
        attempt_s = _SIGNING_S * _SHARE / tries
        self._signing = _Budget(_SIGNING_S, tries, attempt_s / 3, attempt_s * 2 / 3)
        self._looking = _Budget(30.0, tries, 3.0, 10.0)
        self._changing = _Budget(60.0, count, 3.0, 20.0)  # RSA-4096 takes a server its time

    def sign(self, call: VaultCall, content: bytes, read: Callable[[VaultAnswer], _T]) -> _T:
        """Return what a call for a signature gives, within two seconds.

        Args:
            call: The call.
            content: Its body, JSON.
            read: Reads the answer; a VaultGarbledAnswerError from it has the call tried once more.

        Raises:
            VaultError: If the server refuses.
            NetworkError: If none answers.
        """
        self._token.keep()
        return self._run(call, content, self._signing, read)

    def ask(self, call: VaultCall, body: dict[str, Any] | None = None) -> VaultAnswer:
        """Return the answer to a call that reads or changes something: 2xx, 400 or 404.

        A call that changes something is sent to the next server only if it certainly wasn't carried out.

        Raises:
            VaultError: If the server refuses.
            NetworkError: If none answers.
            OutcomeUnknownError: If the answer to a call that changes something was lost.
        """
        content = b"" if body is None else json.dumps(body).encode()
        return self._run(call, content, self._changing if call.changes else self._looking, _as_it_is)

    def _run(self, call: VaultCall, content: bytes, budget: _Budget, read: Callable[[VaultAnswer], _T]) -> _T:
        started = time.monotonic()
        attempts = 0
        while True:
            server = self._servers[0]
            token = self._token.current
            attempts += 1
            try:
                return read(self._answer(server, call, content, budget, token))
            except _PASSING as error:
                failure = error
            except VaultTokenError:  # nothing was done
                if attempts > budget.attempts or not self._token.read_again(token):
                    raise
                continue
            if isinstance(failure, OutcomeUnknownError):
                raise failure
            elapsed_s = time.monotonic() - started
            spare_s = budget.total_s - elapsed_s - (budget.connect_s + budget.read_s)
            if attempts >= budget.attempts or spare_s < 0:
                raise _counted(failure, attempts, elapsed_s)
            if len(self._servers) > 1:
                self._put_behind(server)
            else:
                time.sleep(min(spare_s, _PAUSE_S * random.uniform(0.5, 1.0)))  # noqa: S311 - jitter

    def _put_behind(self, server: _Server) -> None:
        servers = self._servers
        if servers[0] is server:  # otherwise another thread had the same failure
            self._servers = (*servers[1:], server)

    def _answer(self, server: _Server, call: VaultCall, content: bytes, budget: _Budget, token: Secret) -> VaultAnswer:
        """Return the answer of one server: 2xx, 400 or 404.

        Raises:
            VaultError: If it refuses.
            NetworkError: If it doesn't answer.
        """
        answer = self._exchange(server, call, content, budget, token)
        if isinstance(answer, HsmKeysError):
            raise answer
        refusal = refusal_of(answer, call)
        if refusal is None and answer.status == HTTPStatus.FORBIDDEN:
            refusal = self._denied(server, call, budget, token)
        if refusal is not None:
            raise refusal
        return answer

    def _exchange(
        self, server: _Server, call: VaultCall, content: bytes, budget: _Budget, token: Secret | None
    ) -> VaultAnswer | HsmKeysError:
        """Send one request; what the client raises is let go here, since request and token hang on its frames.

        Without a token no namespace is named either: what is asked then is about the whole server.
        """
        log_request("Vault", call)
        try:
            request = httpx2.Request(
                call.method,
                server.url(call.path),
                headers=self._headers(token),
                content=content,
                extensions={"timeout": budget.timeouts},
            )
            # The client's own work around its transport would take a tenth of a signature's time.
            if budget is self._signing:
                response = server.transport.handle_request(request)
            else:
                response = server.client.send(request, stream=True)
            return read_answer(response, call, server.address)
        except Exception as error:  # noqa: BLE001 - the HTTP client may raise anything
            return failure_of(error, call, server.address)

    def _headers(self, token: Secret | None) -> list[tuple[bytes, bytes]]:
        headers = list(_HEADERS)
        if token is not None:
            headers.append((b"X-Vault-Token", token.reveal().encode("ascii")))
            if self._namespace:
                headers.append((b"X-Vault-Namespace", self._namespace.encode("ascii")))
        return headers

    def _denied(self, server: _Server, call: VaultCall, budget: _Budget, token: Secret) -> VaultError:
        """Return what a 403 means: the server answers alike where the token is bad and where a policy forbids."""
        answer = self._exchange(server, _LOOK_UP, b"", budget, token)
        if isinstance(answer, VaultAnswer) and answer.status == HTTPStatus.FORBIDDEN:
            return VaultTokenError(
                f"Vault at {server.address} doesn't take the token: it is wrong, has expired, or mayn't look itself up",
                hint="log in again (bao login, vault login), or set BAO_TOKEN; programs that run for long need a token "
                "that can be renewed, or a file that an agent keeps fresh",
            )
        return VaultAccessDeniedError(
            f"Vault at {server.address} denies {call.method} on {call.path} to this token (asked to {call.what})",
            hint="`hsm-keys vault policy --for PURPOSE --name NAME` prints what a policy has to allow",
        )

    def look_up_token(self, token: Secret) -> dict[str, Any]:
        """Return what the server says of a token: ``ttl`` in seconds (0: no end), ``renewable``, ``policies``.

        Raises:
            VaultError: If it refuses, or doesn't take it.
            NetworkError: If it doesn't answer.
        """
        return self._answer(self._servers[0], _LOOK_UP, b"", self._looking, token).data

    def renew_token(self, token: Secret) -> float:
        """Have the token renewed, and return the seconds that it lives from now on.

        Raises:
            VaultError: If the server refuses.
            NetworkError: If it doesn't answer.
        """
        answer = self._answer(self._servers[0], _RENEW, b"{}", self._looking, token)
        lease = (answer.body.get("auth") or {}).get("lease_duration")
        return float(lease) if isinstance(lease, int) else 0.0

    def token(self) -> dict[str, Any]:
        """Return what the server says of the token at hand; see ``look_up_token``."""
        return self.look_up_token(self._token.current)

    def capabilities(self, paths: Sequence[str]) -> dict[str, list[str]] | None:
        """Return what the token may do on these paths; None where the server doesn't say.

        Raises:
            NetworkError: If no server answers.
        """
        try:
            data = self.ask(_CAPABILITIES, {"paths": list(paths)}).data
        except VaultAccessDeniedError:
            return None
        if not all(isinstance(data.get(path), list) for path in paths):
            return None
        return {path: [str(capability) for capability in data[path]] for path in paths}

    def health(self) -> list[tuple[str, VaultAnswer | HsmKeysError]]:
        """Return what each server says of itself, asked without a token; or why it said nothing."""
        return [(server.address, self._exchange(server, _HEALTH, b"", self._looking, None)) for server in self._servers]

    def close(self) -> None:
        """Close all connections; those of a parent process are left alone."""
        if self.generation == fork_generation():
            self._token.close()
            for server in self._servers:
                server.client.close()


def _as_it_is(answer: VaultAnswer) -> VaultAnswer:
    return answer


def _counted(failure: HsmKeysError, attempts: int, elapsed_s: float) -> HsmKeysError:
    if attempts == 1:
        return failure
    return failure.amend(message=f"{failure.message}; tried {attempts} times in {elapsed_s * 1000:.0f} ms")
