"""Refusals and lost answers of OpenBao or Vault mapped to errors of this package. A server's text isn't repeated."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import httpx2

from hsm_keys.errors import HsmKeysError, NetworkError, OutcomeUnknownError
from hsm_keys.network_errors import why_not_reached
from hsm_keys.stores.vault.errors import (
    VaultDownError,
    VaultError,
    VaultGarbledAnswerError,
    VaultSealedError,
    VaultStandbyError,
    VaultThrottledError,
)

__all__ = ["VaultAnswer", "VaultCall", "failure_of", "field_of", "garbled_answer", "read_answer", "refusal_of"]

_NOT_SENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
_READ: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
_LONGEST_ANSWER: Final = 8 << 20
"""Bytes: the names of a hundred thousand keys."""

_NO_ACTIVE_NODE: Final = "active cluster node not found"
_NO_ENGINE: Final = "no handler for route"
"""What a 404 says where no engine is mounted; it says nothing of a key, and a token without rights there gets a 403."""


@dataclass(frozen=True, slots=True)
class VaultCall:
    """A call of the server's HTTP API.

    Args:
        what: What it is for, after "to": such as ``sign with the key 'prod'``.
        method: The HTTP method; ``LIST`` is one of Vault's own.
        path: The path below ``/v1/``.
        changes: Whether it changes something there.
    """

    what: str
    method: str
    path: str
    changes: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}, to {self.what}"


@dataclass(frozen=True, slots=True)
class VaultAnswer:
    """An answer of the server.

    Args:
        status: The HTTP status.
        body: The JSON object; empty where there is none.
        address: The server that gave it.
    """

    status: int
    body: dict[str, Any] = field(repr=False)
    address: str

    @property
    def data(self) -> dict[str, Any]:
        """What the engine answered; empty where that is nothing."""
        data = self.body.get("data")
        return data if isinstance(data, dict) else {}

    def says(self, words: str) -> bool:
        """Tell whether an error of the server holds these words."""
        return words in json.dumps(self.body.get("errors") or [])


def read_answer(response: httpx2.Response, call: VaultCall, address: str) -> VaultAnswer | HsmKeysError:
    """Read the answer that a response holds; one that isn't JSON has an empty body, and one without end is an error."""
    content = bytearray()
    try:
        for piece in response.iter_bytes():
            content += piece
            if len(content) > _LONGEST_ANSWER:
                return VaultGarbledAnswerError(
                    f"the answer of {address} to the request to {call.what} is longer than any of Vault's",
                    hint="it wasn't used; check that the address is really OpenBao's or Vault's",
                )
    finally:
        response.close()
    try:
        body = json.loads(content) if content else {}
    except ValueError:
        body = {}
    return VaultAnswer(response.status_code, body if isinstance(body, dict) else {}, address)


def failure_of(error: Exception, call: VaultCall, address: str) -> HsmKeysError:
    """Return what stands for an exception of the HTTP client; request and token hang on its frames."""
    if isinstance(error, _NOT_SENT):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return NetworkError(
                f"Vault at {address} isn't trusted: its certificate can't be verified; nothing was sent",
                hint="name the authority that signed it in BAO_CACERT or VAULT_CACERT, and check the address",
            )
        why = why_not_reached(error)
        how = f"can't be reached ({why})" if why else "can't be reached"
        if isinstance(error, httpx2.TimeoutException):
            how = "didn't accept a connection in time"
        return NetworkError(
            f"Vault at {address} {how}; nothing was sent",
            hint="check BAO_ADDR, VAULT_ADDR or address= in the store's URI, and the network",
        )
    if not isinstance(error, httpx2.HTTPError):
        return VaultError(f"the request to {call.what} failed: {type(error).__name__}", hint="check the store's URI")
    how = (
        "didn't answer in time"
        if isinstance(error, httpx2.TimeoutException)
        else "closed the connection without an answer"
    )
    if call.changes:
        return OutcomeUnknownError(
            f"Vault at {address} {how}; whether it did what was asked ({call.what}) isn't known",
            hint="run the same command again: it looks before it changes anything",
        )
    return NetworkError(f"Vault at {address} {how} (asked to {call.what})", hint="try again")


def refusal_of(answer: VaultAnswer, call: VaultCall) -> HsmKeysError | None:
    """Return the error that an answer stands for; None for one that the caller reads: 2xx, 400, 403 and 404."""
    where = f"Vault at {answer.address}"
    status = answer.status
    if status in _READ or HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return _no_engine(answer, call)
    if status < HTTPStatus.BAD_REQUEST or answer.says(_NO_ACTIVE_NODE):
        return VaultStandbyError(
            f"{where} is a standby, and passes nothing on to the active server",
            hint="name the active server or the load balancer in address=, or several servers, separated by commas",
        )
    if status == HTTPStatus.PRECONDITION_FAILED:  # Vault Enterprise: nothing was done, and it says to ask again
        return VaultStandbyError(
            f"{where} hasn't got the active server's newest data yet (412)",
            hint="try again; or name the active server or the load balancer in address=",
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return VaultThrottledError(
            f"{where} throttles: a rate limit quota is used up (asked to {call.what})",
            hint="slow down, or have the quota raised: sys/quotas/rate-limit",
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _down(answer, call)
    return VaultError(
        f"{where} refuses to {call.what} ({status})", hint="check the mounts and the namespace in the store's URI"
    )


def _no_engine(answer: VaultAnswer, call: VaultCall) -> VaultError | None:
    if answer.status != HTTPStatus.NOT_FOUND or not answer.says(_NO_ENGINE):
        return None
    return VaultError(
        f"Vault at {answer.address} has no engine at {call.path} (asked to {call.what})",
        hint="check namespace, mount and kv= in the store's URI: `bao secrets list`; `bao secrets enable transit`",
    )


def _down(answer: VaultAnswer, call: VaultCall) -> VaultDownError:
    where = f"Vault at {answer.address}"
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and answer.says("sealed"):
        return VaultSealedError(
            f"{where} is sealed: it can't read its own storage",
            hint="have its operators unseal it (bao operator unseal), or name another server in address=",
        )
    return VaultDownError(f"{where} itself failed ({answer.status}; asked to {call.what})", hint="try again")


def field_of(answer: VaultAnswer, name: str, kind: type, call: VaultCall) -> Any:
    """Return a field of what an engine answered.

    Raises:
        VaultGarbledAnswerError: If it isn't there, or of another kind.
    """
    value = answer.data.get(name)
    if not isinstance(value, kind):
        raise garbled_answer(call, answer, f"has no {name}")
    return value


def garbled_answer(call: VaultCall, answer: VaultAnswer, what: str) -> VaultGarbledAnswerError:
    """Return the error for an answer that can't be used."""
    return VaultGarbledAnswerError(
        f"the answer of {answer.address} to the request to {call.what} {what}",
        hint="it wasn't used; check that the address is really OpenBao's or Vault's, then try again",
    )
