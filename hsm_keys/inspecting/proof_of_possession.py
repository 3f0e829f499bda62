"""Proving possession: Kalshi lists no public keys, so an id is matched to a key by signing with it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

import stamina

from hsm_keys.errors import (
    KalshiError,
    KeyUnusableError,
    NetworkError,
    PinError,
    SigningError,
    StoreError,
    StoreUnavailableError,
)
from hsm_keys.kalshi.errors import ClockError, ForbiddenError, UnauthorizedError
from hsm_keys.signing.environments import PERPS
from hsm_keys.stores.condition import Condition, Usability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores.base import StoredKey

    Connect: TypeAlias = "Callable[[RequestSigner], KalshiClient]"

__all__ = [
    "Standing",
    "accepts",
    "balance_path",
    "can_sign",
    "find_registration",
    "find_registrations",
    "is_arriving",
    "is_going",
    "prove_registration",
    "public_half",
    "says_unknown",
    "signs",
    "standing_of",
    "why_not",
]

_PROOFS: Final = {None: ("/portfolio/balance", "balance"), PERPS: ("/margin/balance", "subaccount_balances")}
"""By exchange: what every key that may read may read, also one that is bound to a subaccount; and a field of it."""

_TRIAL: Final = b"hsm-keys trial\0"  # Kalshi's messages begin with a digit: this can't be taken for a request

_ATTEMPTS: Final = 4  # a key that was registered a moment ago may not be known everywhere yet
_PATIENCE_S: Final = 10.0
_UNKNOWN_ID: Final = ("authentication_error", "NOT_FOUND")
"""Code and details of Kalshi's 401 for an API key id that it doesn't know."""


class Standing(StrEnum):
    """What Kalshi makes of a key's signature for an API key id."""

    TAKEN = "taken"
    REFUSED = "refused"
    """401, and Kalshi doesn't say that it doesn't know the id: it may well live, and belong to another pair."""
    UNKNOWN = "unknown"
    """401, as for an API key id that Kalshi doesn't know here and now."""


class _NotYet(Exception):  # noqa: N818 - a state, not an error
    """Kalshi doesn't accept the key (yet)."""


class _Garbled:
    """Signs something else than it is asked to: what Kalshi must answer with 401 if it checks signatures."""

    def __init__(self, key: StoredKey) -> None:
        self.name = key.name
        self.api_key_id = key.api_key_id
        self._key = key

    def sign(self, message: bytes, /) -> bytes:
        """Return a good signature of another message."""
        return self._key.sign(b"hsm-keys control\0" + message)


def can_sign(key: StoredKey) -> bool:
    """Tell whether the key's state lets it sign: one that is disabled or about to be deleted doesn't.

    Raises:
        StoreError: If the store can't be reached.
        SigningError: If it refuses for another reason.
        CloudError: If a cloud's service does.
    """
    try:
        key.sign(_TRIAL)
    except KeyUnusableError:
        return False
    return True


def signs(key: StoredKey) -> bool:
    """Tell whether the key signs: one of another program may be there for something else.

    Raises:
        StoreUnavailableError: If the store can't be reached.
        CloudError: If a cloud's service refuses for another reason than the key's state.
    """
    return why_not(key) is None


def why_not(key: StoredKey) -> Condition | None:
    """Return why a key doesn't sign: its state, or its store's refusal; None if it does.

    A refusal is about this key, and hides no other; that the store can't be reached is about all.

    Raises:
        StoreUnavailableError: If the store can't be reached.
        CloudError: If a cloud's service refuses for another reason than the key's state.
    """
    try:
        return None if can_sign(key) else key.condition()
    except StoreUnavailableError:
        raise
    except (SigningError, StoreError, PinError) as error:
        return Condition(Usability.UNUSABLE, error.message)


def is_going(key: StoredKey) -> bool:
    """Tell whether the key's deletion is scheduled, so that it signs nothing any more."""
    return not can_sign(key) and key.condition().usability is Usability.ENDING


def is_arriving(key: StoredKey) -> bool:
    """Tell whether the key was made elsewhere and isn't in the store yet: an import was begun, and not ended."""
    return not can_sign(key) and key.condition().usability is Usability.ARRIVING


def public_half(key: StoredKey) -> PublicKey | None:
    """Return a key's public half; None if its store hides it: KMS does that while the key can't be used."""
    try:
        return key.public_key()
    except KeyUnusableError:
        return None


def says_unknown(error: UnauthorizedError) -> bool:
    """Tell whether a 401 means that there is no such API key, rather than that signature or clock are wrong."""
    return error.from_kalshi and (error.kalshi_code, error.details) == _UNKNOWN_ID


def standing_of(connect: Connect, key: StoredKey, api_key_id: str) -> Standing:
    """Return what Kalshi makes of this key's signature for this API key id; one or two GET requests.

    A 403 can mean that the key is known and may not read, or that Kalshi refuses before it looks at the
    signature. A second request with a signature that can't be right tells the two apart.

    Raises:
        KalshiError: If Kalshi's answer says nothing about the key: the clock is off, too many requests.
        NetworkError: If there is no answer, or something else than Kalshi answered.
    """
    try:
        _get(connect, key.signer(api_key_id=api_key_id))
    except ClockError:
        raise
    except UnauthorizedError as error:
        return Standing.UNKNOWN if says_unknown(error) else Standing.REFUSED
    except ForbiddenError as refusal:
        from hsm_keys.signing.signer import RequestSigner

        try:
            _get(connect, RequestSigner(_Garbled(key), api_key_id=api_key_id))
        except UnauthorizedError:
            return Standing.TAKEN
        except ForbiddenError:
            raise refusal from None
        return Standing.REFUSED
    return Standing.TAKEN


def accepts(connect: Connect, key: StoredKey, api_key_id: str) -> bool:
    """Tell whether Kalshi takes this key's signature for this API key id. That it doesn't, proves no end.

    Raises:
        KalshiError: If Kalshi's answer says nothing about the key.
        NetworkError: If there is no answer, or something else than Kalshi answered.
    """
    return standing_of(connect, key, api_key_id) is Standing.TAKEN


def balance_path(exchange: str | None) -> str:
    """Return the path of what every key that may read may read, by exchange."""
    return _PROOFS[exchange][0]


def _get(connect: Connect, signer: RequestSigner) -> None:
    with connect(signer) as client:
        path, field = _PROOFS[client.exchange]
        answer = client.get_json(path)
    if not (isinstance(answer, dict) and field in answer):
        raise NetworkError(
            f"the answer to GET {path} has no balance: it may not be Kalshi's",
            hint="check the base URL (KALSHI_API_BASE_URL, --base-url), and a proxy on the way",
        )


def prove_registration(connect: Connect, key: StoredKey, api_key_id: str) -> None:
    """Make sure that Kalshi takes requests signed by this key; patient with a key registered a moment ago.

    Raises:
        KalshiError: If it doesn't.
        NetworkError: If there is no answer.
    """
    try:
        for attempt in stamina.retry_context(on=_NotYet, attempts=_ATTEMPTS, timeout=_PATIENCE_S, wait_max=2.0):
            with attempt:
                if not accepts(connect, key, api_key_id):
                    raise _NotYet
    except _NotYet:
        raise KalshiError(
            f"Kalshi refuses the signature of {key.name!r} for the API key id {api_key_id} (401)",
            hint="check that the id belongs to this key's public half and to this environment (prod or demo)",
        ) from None


def find_registration(connect: Connect, key: StoredKey, candidates: Iterable[ApiKey]) -> str | None:
    """Return the id under which Kalshi knows this key; None if it is none of the candidates.

    Those that carry the key's name are tried first: a request whose answer was lost used it.

    Raises:
        KalshiError: If Kalshi's answers say nothing about the key.
        NetworkError: If there is no answer.
    """
    return next(find_registrations(connect, key, candidates), None)


def find_registrations(connect: Connect, key: StoredKey, candidates: Iterable[ApiKey]) -> Iterator[str]:
    """Give all ids under which Kalshi knows this key; arguments and errors are those of ``find_registration``."""
    for candidate in sorted(candidates, key=lambda listed: listed.name != key.name):
        if accepts(connect, key, candidate.api_key_id):
            yield candidate.api_key_id
