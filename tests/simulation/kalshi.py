"""Kalshi, as its documents describe it: API keys of one account in one environment, and a client of it.

The client stands in for ``KalshiClient``: it signs with the real ``RequestSigner``, as its real flow says, and raises
what the real one raises. What isn't documented is a switch: whether a name or a public half may be there twice.
"""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias
from uuid import UUID

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import SecretStr

from hsm_keys.errors import NetworkError, OutcomeUnknownError
from hsm_keys.kalshi import errors
from hsm_keys.kalshi.api_keys import new_key_fields
from hsm_keys.kalshi.models import ApiKey, CreateApiKeyResponse, GenerateApiKeyResponse, ListApiKeysResponse
from hsm_keys.signing.environments import check_environment
from hsm_keys.signing.flow import send_signed, signing_flow
from hsm_keys.signing.headers import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from tests.simulation.effects import Call
from tests.simulation.pairs import pair_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.signing.signer import RequestSigner
    from tests.simulation.pairs import Pair
    from tests.simulation.world import World

PREFIX = "/trade-api/v2"
BALANCE = "/portfolio/balance"
_TOLERANCE_S = 10.0
_DEFAULT_SCOPES = ("read", "write")


_NEVER: Final = float("inf")
_Answer: TypeAlias = "tuple[int, Any]"


class Listing(ApiKey):
    """What the list says of an API key; the same content is the same object, so that states can be told apart by it."""

    def __hash__(self) -> int:
        return id(self)


@cache
def _listing(
    api_key_id: str, name: str, scopes: tuple[str, ...], subaccount: int | None, subtrader: str | None
) -> Listing:
    return Listing.model_construct(
        api_key_id=api_key_id,
        name=name,
        scopes=list(scopes),
        created_ts=None,
        subaccount=subaccount,
        fcm_subtrader_id=subtrader,
    )


class Registered(NamedTuple):
    """An API key at Kalshi, also after its end.

    Args:
        listing: What the list says of it.
        public: Its public half's bytes.
        since: From when on everybody knows it.
        until: Until when somebody still knows it.
        alive: Whether it lives.
    """

    listing: Listing
    public: bytes
    since: float
    until: float = _NEVER
    alive: bool = True

    @property
    def api_key_id(self) -> str:
        return self.listing.api_key_id

    def seen_from(self, now: float) -> Registered:
        """Return it with times from then on; 0 for what is past."""
        if self.since == 0.0 and self.until in {0.0, _NEVER}:
            return self
        return self._replace(since=_from(now, self.since), until=_from(now, self.until))

    def seen_at(self, now: float) -> Registered:
        """Return it with times, where it has times from then on."""
        if self.since == 0.0 and self.until in {0.0, _NEVER}:
            return self
        return self._replace(since=self.since and now + self.since, until=self.until and now + self.until)


def _from(now: float, time: float) -> float:
    return round(max(0.0, time - now), 6) if time != _NEVER else time


@dataclass
class Kalshi:
    """An account in one environment.

    Args:
        world: Its surroundings.
        environment: Its name.
        lag_s: How long it takes until a change is known everywhere.
        unique_names: Whether a name may be there only once.
        unique_keys: Whether a public half may be there only once.
        premier: Whether public keys may be registered by API.
    """

    world: World
    environment: str
    lag_s: float = 0.0
    unique_names: bool = False
    unique_keys: bool = False
    premier: bool = True
    keys: dict[str, Registered] = field(default_factory=dict)
    on_created: list[Any] = field(default_factory=list)
    on_deleted: list[Any] = field(default_factory=list)

    def add(
        self,
        name: str,
        public: bytes,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
        subtrader: str | None = None,
    ) -> ApiKey:
        """Register a public half."""
        number = len(self.keys) + 1
        origin = 1 if self.environment == "prod" else 2
        listing = _listing(
            str(UUID(int=(origin << 96) + (0x4000 << 64) + (0x8000 << 48) + number)),
            name,
            tuple(scopes or _DEFAULT_SCOPES),
            subaccount,
            subtrader,
        )
        self.keys[listing.api_key_id] = Registered(listing, public, self.world.clock.now + self.lag_s)
        return listing

    def snapshot(self) -> Any:
        now = self.world.clock.now
        return tuple(key.seen_from(now) for key in self.keys.values())

    def restore(self, snapshot: Any) -> None:
        now = self.world.clock.now
        self.keys = {key.api_key_id: key.seen_at(now) for key in snapshot}

    def end(self, api_key_id: str, until: float) -> None:
        """Let it be dead, and known until then."""
        self.keys[api_key_id] = self.keys[api_key_id]._replace(alive=False, until=until)

    def knows(self, api_key_id: str) -> bool:
        """Tell whether it takes requests of that API key now."""
        return self._known(api_key_id) is not None

    def living(self, public: bytes | None = None) -> list[Registered]:
        """Return the API keys that live; with a public half, those that are its."""
        return [key for key in self.keys.values() if key.alive and public in {None, key.public}]

    def _known(self, api_key_id: str) -> Registered | None:
        key = self.keys.get(api_key_id)
        return key if key is not None and key.since <= self.world.clock.now < key.until else None

    # What the routes do. They answer with a status, and Kalshi's own code and details for a refusal.

    def answer(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        """Answer a request as Kalshi does."""
        refusal = self._refusal(method, path, headers)
        if refusal is not None:
            return refusal
        if method == "DELETE":
            return self._delete(path.rpartition("/")[2])
        if method == "POST":
            return self._create(path, body)
        if path != BALANCE and self.world.process is not None:
            self.world.process.listed_s = self.world.clock.now
        return 200, {"balance": 100} if path == BALANCE else [
            self.keys[each].listing for each in self.keys if self._known(each)
        ]

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, Any] | None:
        """Look at who asks: the key, the clock, the signature, the scopes."""
        caller = self._known(headers[KEY_HEADER])
        stamp = headers[TIMESTAMP_HEADER]
        message = f"{stamp}{method}{PREFIX}{path}".encode()
        if caller is None:
            return 401, ("authentication_error", "NOT_FOUND")
        if abs(int(stamp) / 1000 - self.world.clock.now) > _TOLERANCE_S:
            return 401, ("header_timestamp_expired", "")
        if pair_of(caller.public).sign(message) != b64decode(headers[SIGNATURE_HEADER]):
            return 401, ("authentication_error", "INCORRECT_API_KEY_SIGNATURE")
        return None if _may(caller.listing, method, path) else (403, ("forbidden", "scope"))

    def _delete(self, api_key_id: str) -> tuple[int, Any]:
        key = self._known(api_key_id)
        if key is None or not key.alive:
            return 404, ("not_found", "")
        self.end(api_key_id, self.world.clock.now + self.lag_s)
        for hook in self.on_deleted:
            hook(self, key)
        return 204, None

    def _create(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        made: Pair | None = None
        if path.endswith("/generate"):
            made = self.world.pair()
            public = made.public
        elif self.premier:
            public = _public_half(body["public_key"])
        else:
            return 403, ("forbidden", "tier")
        if "fcm_subtrader_id" in body:
            return 403, ("forbidden", "only an FCM member's key may do that")
        names = {key.listing.name for key in self.living()}
        if (self.unique_names and body["name"] in names) or (self.unique_keys and self.living(public)):
            return 400, ("bad_request", "taken")
        listing = self.add(body["name"], public, body.get("scopes"), body.get("subaccount"))
        for hook in self.on_created:
            hook(self, self.keys[listing.api_key_id])
        return 201, (listing, made)


@cache
def _public_half(pem: str) -> bytes:
    return load_pem_public_key(pem.encode()).public_bytes_raw()  # type: ignore[union-attr]  # it is Ed25519


def _may(listing: ApiKey, method: str, path: str) -> bool:
    scopes = set(listing.scopes)
    if listing.fcm_subtrader_id is not None:
        return False
    if path == BALANCE:
        return bool(scopes & {"read", "read::portfolio_balance"})
    if listing.subaccount is not None:
        return False
    return ("read" if method == "GET" else "write") in scopes


_ERRORS: dict[int, type[errors.RefusedError]] = {
    400: errors.BadRequestError,
    401: errors.UnauthorizedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
}


def _error(status: int, code: str, details: str) -> errors.RefusedError:
    kind = _ERRORS[status]
    if "timestamp" in code:
        kind = errors.ClockError
    elif details == "tier":
        kind = errors.TierError
    error = kind(f"Kalshi answered {status}: {code} {details}", hint="")
    error.status, error.from_kalshi, error.kalshi_code, error.details = status, True, code, details
    return error


def _read(said: _Answer) -> Any:
    status, answer = said
    if status >= 400:
        raise _error(status, *answer)
    return answer


@cache
def _call(method: str, what: str, environment: str) -> Call:
    def lost(sent: bool) -> Exception:
        if method == "GET" or not sent:
            return NetworkError(f"no answer to {method}")
        return OutcomeUnknownError(f"no answer to {method}; it may have been carried out")

    promise = (204, None) if method == "DELETE" else None
    return Call(f"{method} {what} of {environment}", method != "GET", lost, twice=True, promise=promise)


class Client:
    """Stands in for ``KalshiClient``.

    Args:
        kalshi: The environment that it is pointed at.
        signer: Signs.
    """

    exchange = None

    def __init__(self, kalshi: Kalshi, signer: RequestSigner) -> None:
        self.signer = signer
        self.environment = kalshi.environment
        self.base_url = f"https://{kalshi.environment}.example{PREFIX}"
        check_environment(signer.key.name, signer.environment, self.environment)
        self.api_keys = self
        self._kalshi = kalshi

    def _sends(self, method: str, path: str, body: dict[str, Any] | None) -> Callable[[dict[str, str]], _Answer]:
        what = path.removeprefix("/") if path.endswith("/generate") else path.split("/")[1]
        call = _call(method, what, self.environment)
        sent = {} if body is None else json.loads(json.dumps(body))
        return lambda headers: self._kalshi.world.effect(call, lambda: self._kalshi.answer(method, path, headers, sent))

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        send = self._sends(method, path, body)
        flow = signing_flow(self.signer, method, PREFIX + path)
        return _read(send_signed(flow, send, lambda said: said[0]))

    def _prepare(self, method: str, path: str, body: dict[str, Any] | None = None) -> Callable[[], Any]:
        headers = self.signer.headers(method, PREFIX + path)
        send = self._sends(method, path, body)
        return lambda: _read(send(headers))

    def _made(self, answer: Any) -> Any:
        process = self._kalshi.world.process
        if process is not None:
            process.made.append(answer[0].api_key_id)
        return answer

    def get_json(self, path: str) -> Any:
        return self._send("GET", path)

    def list(self) -> ListApiKeysResponse:
        listed = self._send("GET", "/api_keys")
        process = self._kalshi.world.process
        if process is not None:
            process.listed.update(listing.api_key_id for listing in listed)
        return ListApiKeysResponse.model_construct(api_keys=listed)

    def create(self, name: str, public_key: str, **rights: Any) -> CreateApiKeyResponse:
        return self.prepare_create(name, public_key, **rights)()

    def prepare_create(
        self,
        name: str,
        public_key: str,
        *,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
        fcm_subtrader_id: str | None = None,
        as_listed: bool = False,
    ) -> Callable[[], CreateApiKeyResponse]:
        fields = new_key_fields(name, scopes, subaccount, fcm_subtrader_id, as_listed=as_listed)
        send = self._prepare("POST", "/api_keys", {**fields, "public_key": public_key})
        return lambda: CreateApiKeyResponse.model_construct(api_key=self._made(send())[0])

    def generate(
        self,
        name: str,
        *,
        key_type: str | None = None,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
    ) -> GenerateApiKeyResponse:
        return self.prepare_generate(name, key_type=key_type, scopes=scopes, subaccount=subaccount)()

    def prepare_generate(
        self,
        name: str,
        *,
        key_type: str | None = None,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
    ) -> Callable[[], GenerateApiKeyResponse]:
        fields = new_key_fields(name, scopes, subaccount)
        send = self._prepare("POST", "/api_keys/generate", {**fields, "key_type": key_type})

        def made() -> GenerateApiKeyResponse:
            listing, pair = self._made(send())
            return GenerateApiKeyResponse.model_construct(
                api_key=listing, private_key=SecretStr(pair.pem), key_type=key_type
            )

        return made

    def delete(self, api_key_id: str) -> None:
        self._send("DELETE", f"/api_keys/{api_key_id}")

    def prepare_delete(self, api_key_id: str) -> Callable[[], None]:
        return self._prepare("DELETE", f"/api_keys/{api_key_id}")

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Connect:
    """Makes clients of one environment, as the command line's ``Connector`` does."""

    kalshi: Kalshi

    def __call__(self, signer: RequestSigner) -> KalshiClient:
        return Client(self.kalshi, signer)  # type: ignore[return-value]  # stands in for it

    @property
    def environment(self) -> str:
        return self.kalshi.environment
