"""The key endpoints: list, create, generate, delete. Bad input is refused before anything is sent.

Models of answers load when they are needed, before the request is sent: with pydantic they take a quarter of the
processor time of a command that only signs.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import quote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hsm_keys.arguments import takes_no_private_key
from hsm_keys.errors import UsageError
from hsm_keys.kalshi.bodies import read_json
from hsm_keys.kalshi.errors import error_of, garbled
from hsm_keys.signing.algorithms import key_type_of, public_key_pem
from hsm_keys.values import describe, shown_word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx2
    from pydantic import BaseModel

    from hsm_keys.kalshi.models import CreateApiKeyResponse, GenerateApiKeyResponse, ListApiKeysResponse

__all__ = ["SCOPES", "ApiKeysResource", "AsyncApiKeysResource", "new_key_fields"]

SCOPES: Final = (
    "read",
    "write",
    "read::block_trade_accept",
    "read::portfolio_balance",
    "write::trade",
    "write::transfer",
    "write::fcm_risk",
    "write::block_trade_accept",
)

_DEFAULT_SCOPES: Final = ("read", "write")
_KEY_TYPES: Final = ("rsa", "ed25519")
_MAX_SUBACCOUNT: Final = 63
_PATH: Final = "/api_keys"

_M = TypeVar("_M", bound="BaseModel")


def new_key_fields(
    name: str,
    scopes: Sequence[str] | None = None,
    subaccount: int | None = None,
    fcm_subtrader_id: str | None = None,
    *,
    as_listed: bool = False,
) -> dict[str, Any]:
    """Return the fields that create and generate share, checked.

    Args:
        name: What to call the key.
        scopes: What it may do; None leaves it to Kalshi, which grants read and write, transfers included.
        subaccount: Restricts it to one subaccount, 0 to 63.
        fcm_subtrader_id: Binds it to one FCM subtrader; excludes ``subaccount``.
        as_listed: Whether the scopes are those that Kalshi lists for another key: one that isn't known here is new.

    Raises:
        UsageError: If Kalshi would refuse one of them.
    """
    if not name.strip() or not name.isprintable():
        raise UsageError("an API key needs a name of printable characters", hint="such as prod")
    fields: dict[str, Any] = {"name": name}
    if scopes is not None:
        fields["scopes"] = list(scopes) if as_listed else _checked_scopes(scopes)
    if subaccount is not None:
        if type(subaccount) is not int or not 0 <= subaccount <= _MAX_SUBACCOUNT:
            raise UsageError(
                f"there is no subaccount {describe(str(subaccount))}",
                hint=f"it is a number from 0 to {_MAX_SUBACCOUNT}",
            )
        fields["subaccount"] = subaccount
    if fcm_subtrader_id is not None:
        if subaccount is not None:
            raise UsageError("subaccount and fcm_subtrader_id exclude each other", hint="give one of them")
        fields["fcm_subtrader_id"] = fcm_subtrader_id
    return fields


def _checked_scopes(scopes: Sequence[str]) -> list[str]:
    if isinstance(scopes, str):
        raise UsageError("scopes is a list of strings, not a string", hint='write ["read"]')
    unique = list(dict.fromkeys(scopes))
    unknown = [scope for scope in unique if scope not in SCOPES]
    if unknown:
        raise UsageError(f"Kalshi has no scope {shown_word(unknown[0], SCOPES)}", hint="use " + ", ".join(SCOPES))
    if not unique:
        raise UsageError("a key without any scope can do nothing", hint="leave scopes out for read and write")
    if "write" in unique and "read" not in unique:
        raise UsageError("the scope write needs read", hint="give both, or a child scope such as write::trade alone")
    return unique


def _checked_public_key(public_key: str | bytes) -> str:
    """Return the PEM of the public key, normalised; a private key is refused before it goes anywhere."""
    pem = public_key.encode(errors="replace") if isinstance(public_key, str) else public_key
    if b"PRIVATE KEY" in pem:
        raise UsageError(
            "that is a PRIVATE key; nothing was sent",
            hint="send the public half: openssl pkey -in key.pem -pubout",
        )
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if key is None or b"-----BEGIN PUBLIC KEY-----" not in pem:
        raise UsageError(
            "the public key isn't a SubjectPublicKeyInfo PEM",
            hint="it begins with -----BEGIN PUBLIC KEY-----; see `hsm-keys public-key NAME`",
        )
    key_type_of(key)
    return public_key_pem(key)  # type: ignore[arg-type]  # key_type_of refuses all others


def _key_path(api_key_id: str) -> str:
    if not api_key_id.strip(". ") or not api_key_id.isprintable():
        raise UsageError(
            f"{describe(api_key_id)} isn't an API key id", hint="it is a UUID; `hsm-keys list` shows yours"
        )
    return f"{_PATH}/{quote(api_key_id, safe='')}"


def _create_body(public_key: str | bytes, fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "public_key": _checked_public_key(public_key)}


def _generate_body(key_type: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    if key_type is None:
        return fields
    if key_type not in _KEY_TYPES:
        raise UsageError(
            f"Kalshi generates no keys of the type {describe(key_type)}", hint="use " + " or ".join(_KEY_TYPES)
        )
    return {**fields, "key_type": key_type}


def _list_params(fcm_subtrader_id: str | None) -> dict[str, str] | None:
    return None if fcm_subtrader_id is None else {"fcm_subtrader_id": fcm_subtrader_id}


def _read(model: type[_M], response: httpx2.Response, fields: dict[str, Any] | None = None) -> _M:
    """Return the model in a successful answer; the fields that were asked for fill in what Kalshi doesn't repeat."""
    from pydantic import ValidationError

    if not response.is_success:
        raise error_of(response)
    answer = read_json(response)
    if not isinstance(answer, dict):
        raise garbled(response, "is no JSON object")
    known = {} if fields is None else {"scopes": _DEFAULT_SCOPES, **fields}
    try:
        return model.model_validate({**known, **answer})
    except ValidationError:
        raise garbled(response, "lacks what the API promises") from None


def _check_deleted(response: httpx2.Response) -> None:
    if not response.is_success:
        raise error_of(response)
    if response.status_code != HTTPStatus.NO_CONTENT:  # a login page says 200, too
        raise garbled(response, "isn't the empty one (204) that Kalshi gives")


class _Sender(Protocol):
    """What sends signed requests: ``KalshiClient.request``."""

    def request(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None
    ) -> httpx2.Response: ...

    def prepare(self, method: str, path: str, *, json: Any = None) -> Callable[[], httpx2.Response]: ...


class _AsyncSender(Protocol):
    """The same in an asynchronous program."""

    async def request(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None
    ) -> httpx2.Response: ...


class ApiKeysResource:
    """``client.api_keys``: the key endpoints.

    Every method raises:
        UsageError: If Kalshi would refuse the input; nothing was sent.
        KalshiError: If Kalshi refuses.
        NetworkError: If there was no answer and nothing was changed.
        OutcomeUnknownError: If there was no answer to a request that changes something: list the keys before you send
            it again.
    """

    def __init__(self, client: _Sender) -> None:
        self._client = client

    @takes_no_private_key
    def list(self, *, fcm_subtrader_id: str | None = None) -> ListApiKeysResponse:
        """Return the account's API keys (``GET /api_keys``)."""
        from hsm_keys.kalshi.models import ListApiKeysResponse

        params = _list_params(fcm_subtrader_id)
        return _read(ListApiKeysResponse, self._client.request("GET", _PATH, params=params))

    @takes_no_private_key
    def create(
        self,
        name: str,
        public_key: str | bytes,
        *,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
        fcm_subtrader_id: str | None = None,
        as_listed: bool = False,
    ) -> CreateApiKeyResponse:
        """Register a public key (``POST /api_keys``).

        Args:
            name: The name of the API key.
            public_key: A SubjectPublicKeyInfo PEM (RFC 7468, section 13) of RSA (2048, 3072, 4096 bits) or Ed25519.
            scopes: What the API key may do; None leaves it to Kalshi, which grants read and write.
            subaccount: Restricts it to one subaccount, 0 to 63.
            fcm_subtrader_id: Binds it to one FCM subtrader; excludes ``subaccount``.
            as_listed: Whether to send the scopes unchecked, for scopes that this version doesn't know.
        """
        from hsm_keys.kalshi.models import CreateApiKeyResponse

        fields = new_key_fields(name, scopes, subaccount, fcm_subtrader_id, as_listed=as_listed)
        body = _create_body(public_key, fields)
        return _read(CreateApiKeyResponse, self._client.request("POST", _PATH, json=body), body)

    @takes_no_private_key
    def prepare_create(
        self,
        name: str,
        public_key: str | bytes,
        *,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
        fcm_subtrader_id: str | None = None,
        as_listed: bool = False,
    ) -> Callable[[], CreateApiKeyResponse]:
        """Sign the request of ``create``, and return a function that sends it once and doesn't sign it again.

        Kalshi refuses the request if it is sent much later. Arguments and errors are those of ``create``.
        """
        from hsm_keys.kalshi.models import CreateApiKeyResponse

        fields = new_key_fields(name, scopes, subaccount, fcm_subtrader_id, as_listed=as_listed)
        body = _create_body(public_key, fields)
        send = self._client.prepare("POST", _PATH, json=body)
        return lambda: _read(CreateApiKeyResponse, send(), body)

    @takes_no_private_key
    def generate(
        self,
        name: str,
        *,
        key_type: str | None = None,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
        fcm_subtrader_id: str | None = None,
    ) -> GenerateApiKeyResponse:
        """Let Kalshi make a pair (``POST /api_keys/generate``): the private half then exists outside hardware.

        Args:
            name: The name of the API key.
            key_type: ``rsa`` (2048 bits) or ``ed25519``; None leaves it to Kalshi.
            scopes: As for ``create``; also the others.
            subaccount: As for ``create``.
            fcm_subtrader_id: As for ``create``.

        Returns:
            The answer; ``private_key`` is the PEM of the private half, as a ``SecretStr``.
        """
        from hsm_keys.kalshi.models import GenerateApiKeyResponse

        body = _generate_body(key_type, new_key_fields(name, scopes, subaccount, fcm_subtrader_id))
        return _read(GenerateApiKeyResponse, self._client.request("POST", f"{_PATH}/generate", json=body), body)

    @takes_no_private_key
    def prepare_generate(
        self,
        name: str,
        *,
        key_type: str | None = None,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
    ) -> Callable[[], GenerateApiKeyResponse]:
        """Sign the request of ``generate``, and return a function that sends it once and doesn't sign it again."""
        from hsm_keys.kalshi.models import GenerateApiKeyResponse

        body = _generate_body(key_type, new_key_fields(name, scopes, subaccount))
        send = self._client.prepare("POST", f"{_PATH}/generate", json=body)
        return lambda: _read(GenerateApiKeyResponse, send(), body)

    @takes_no_private_key
    def delete(self, api_key_id: str) -> None:
        """Delete an API key (``DELETE /api_keys/{api_key}``); it is dead at once, and there is no way back."""
        _check_deleted(self._client.request("DELETE", _key_path(api_key_id)))

    @takes_no_private_key
    def prepare_delete(self, api_key_id: str) -> Callable[[], None]:
        """Sign the request of ``delete``, and return a function that sends it once and doesn't sign it again."""
        send = self._client.prepare("DELETE", _key_path(api_key_id))
        return lambda: _check_deleted(send())


class AsyncApiKeysResource:
    """``client.api_keys`` of an ``AsyncKalshiClient``; see ``ApiKeysResource``."""

    def __init__(self, client: _AsyncSender) -> None:
        self._client = client

    @takes_no_private_key
    async def list(self, *, fcm_subtrader_id: str | None = None) -> ListApiKeysResponse:
        """Return the account's API keys (``GET /api_keys``)."""
        from hsm_keys.kalshi.models import ListApiKeysResponse

        params = _list_params(fcm_subtrader_id)
        return _read(ListApiKeysResponse, await self._client.request("GET", _PATH, params=params))

    @takes_no_private_key
    async def create(
        self,
        name: str,
        public_key: str | bytes,
        *,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
        fcm_subtrader_id: str | None = None,
        as_listed: bool = False,
    ) -> CreateApiKeyResponse:
        """Register a public key (``POST /api_keys``).

        Args:
            name: The name of the API key.
            public_key: A SubjectPublicKeyInfo PEM (RFC 7468, section 13) of RSA (2048, 3072, 4096 bits) or Ed25519.
            scopes: What the API key may do; None leaves it to Kalshi, which grants read and write.
            subaccount: Restricts it to one subaccount, 0 to 63.
            fcm_subtrader_id: Binds it to one FCM subtrader; excludes ``subaccount``.
            as_listed: Whether to send the scopes unchecked, for scopes that this version doesn't know.
        """
        from hsm_keys.kalshi.models import CreateApiKeyResponse

        fields = new_key_fields(name, scopes, subaccount, fcm_subtrader_id, as_listed=as_listed)
        body = _create_body(public_key, fields)
        return _read(CreateApiKeyResponse, await self._client.request("POST", _PATH, json=body), body)

    @takes_no_private_key
    async def generate(
        self,
        name: str,
        *,
        key_type: str | None = None,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
        fcm_subtrader_id: str | None = None,
    ) -> GenerateApiKeyResponse:
        """Let Kalshi make a pair (``POST /api_keys/generate``): the private half then exists outside hardware."""
        from hsm_keys.kalshi.models import GenerateApiKeyResponse

        body = _generate_body(key_type, new_key_fields(name, scopes, subaccount, fcm_subtrader_id))
        return _read(GenerateApiKeyResponse, await self._client.request("POST", f"{_PATH}/generate", json=body), body)

    @takes_no_private_key
    async def delete(self, api_key_id: str) -> None:
        """Delete an API key (``DELETE /api_keys/{api_key}``); it is dead at once, and there is no way back."""
        _check_deleted(await self._client.request("DELETE", _key_path(api_key_id)))
