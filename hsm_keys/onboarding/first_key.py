"""The first key of a store: its type and why, what has to be right before, and registered by API or by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import KalshiError, KeyNotFoundError, KeyNotRegisteredError
from hsm_keys.inspecting.custody import prove_custody
from hsm_keys.inspecting.doctor import check_bootstrap, check_clock, check_network
from hsm_keys.inspecting.proof_of_possession import balance_path, prove_registration
from hsm_keys.kalshi.account import Account
from hsm_keys.kalshi.api_keys import new_key_fields
from hsm_keys.kalshi.errors import TierError
from hsm_keys.lifecycle.enroll import Enrollment, adopt, enroll, enroll_offline
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.signing.environments import check_environment
from hsm_keys.signing.pem import PemKey
from hsm_keys.stores.base import KeyState
from hsm_keys.stores.key_names import check_new_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.inspecting.proof_of_possession import Connect
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.person import Person
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["WantedKey", "check_kalshi", "choose_key_type", "find_key", "first_key", "send_first_request"]

_BY_HAND: Final = "Kalshi's account page takes it: API keys, create, own public key"


@dataclass(frozen=True, slots=True)
class WantedKey:
    """What key there is to be.

    Args:
        name: Its name.
        key_type: Its type; None takes what an earlier run made, else RSA-2048.
        scopes: What the API key may do; None is Kalshi's default.
        subaccount: Restricts it to one subaccount.

    Raises:
        UsageError: If the name, a scope or the subaccount can't be.
    """

    name: str
    key_type: KeyType | None
    scopes: Sequence[str] | None
    subaccount: int | None

    def __post_init__(self) -> None:
        """Refuse what Kalshi or a store would refuse later, when a token or a key is there already."""
        check_new_name(self.name)
        new_key_fields(self.name, self.scopes, self.subaccount)


def choose_key_type(choice: KeyType | None, bootstrap: RequestSigner | None) -> tuple[KeyType, str]:
    """Return which type of key to make, and why, in words.

    Args:
        choice: What a person asked for.
        bootstrap: What signs with the bootstrap key; its type is one that the programs at hand can use.
    """
    if choice is not None:
        return choice, "as asked for"
    pem = bootstrap.key if bootstrap is not None else None
    if isinstance(pem, PemKey) and pem.key_type is KeyType.ED25519:
        return KeyType.ED25519, "as your bootstrap key is: what uses that one can use this one; it signs fastest, too"
    return KeyType.RSA_2048, "every token and every client of Kalshi's takes it; --key-type ed25519 signs faster"


def check_kalshi(
    base_url: str,
    bootstrap: RequestSigner | None,
    connect: Connect,
    report: Callable[[str], None],
    *,
    exchange: str | None,
) -> None:
    """Look, before anything is made, whether Kalshi answers, the clock is right and the bootstrap key is taken.

    Raises:
        NetworkError: If Kalshi can't be reached.
        KalshiError: If something else answers, the clock is off, or the bootstrap key is refused.
    """
    checks = [*check_network([base_url]), *check_clock(base_url), *check_bootstrap(bootstrap, connect, exchange)]
    for check in checks:
        if check.verdict == "problem":
            raise KalshiError(f"{check.name}: {check.message}", hint=check.remedy)
        report(f"{'WARNING: ' if check.verdict == 'warning' else ''}{check.name}: {check.message}")


def find_key(store: KeyStore, name: str) -> StoredKey | None:
    """Return the key of that name; None if there is none."""
    try:
        return store.key(name)
    except KeyNotFoundError:
        return None


def first_key(
    store: KeyStore,
    wanted: WantedKey,
    *,
    environment: str,
    connect: Connect,
    management: KalshiClient | None,
    api_key_id: str | None,
    person: Person,
) -> Enrollment:
    """Take the key from nothing, or from where an earlier run stopped, to registered and proved.

    Args:
        store: Where the private half lives.
        wanted: The key.
        environment: The environment of Kalshi.
        connect: Makes a client of that environment for a signer.
        management: Signs the registration; None where no key could: then it is registered by hand.
        api_key_id: The id that Kalshi's account page showed for a key that was registered by hand.
        person: Hears what goes on, and is asked for the id.

    Raises:
        KeyNotRegisteredError: If it has to be registered by hand, and nobody gave the id.
        HsmKeysError: As ``enroll`` and ``adopt`` do; run again, it goes on from there.
    """
    key = find_key(store, wanted.name)
    if key is not None and key.state is KeyState.REGISTERED:
        check_environment(key.name, key.environment, environment)
        prove_registration(connect, key, str(key.api_key_id))
        person.report(f"the key {key.name!r} exists already, as API key {key.api_key_id}; Kalshi accepts its signature")
        return Enrollment(key, prove_custody(key), key.api_key_id)
    if management is not None and api_key_id is None:
        try:
            return enroll(
                store,
                wanted.name,
                key_type=wanted.key_type,
                scopes=wanted.scopes,
                subaccount=wanted.subaccount,
                account=Account(management, connect),
                report=person.report,
            )
        except TierError as error:
            person.report(f"{error.message}: so the key is registered by hand")
    minted = enroll_offline(store, wanted.name, wanted.key_type, person.report, environment=environment)
    api_key_id = api_key_id or _registered_by_hand(minted.key, person)
    return adopt(store, wanted.name, api_key_id, environment=environment, connect=connect, report=person.report)


def send_first_request(connect: Connect, enrollment: Enrollment, report: Callable[[str], None]) -> None:
    """Send a signed request, as the program will that uses the key.

    Raises:
        NetworkError: If there is no answer.
    """
    signer = enrollment.key.signer(api_key_id=None if enrollment.key.api_key_id else enrollment.api_key_id)
    with connect(signer) as client:
        path = balance_path(client.exchange)
        response = client.request("GET", path)
    report(f"sent a signed request: GET {path}, and Kalshi answered {response.status_code}")


def _registered_by_hand(key: StoredKey, person: Person) -> str:
    if person.answers:
        person.report(f"This is the public half. {_BY_HAND}; then the page shows an API key id.")
        for line in key.public_pem().splitlines():
            person.report(line)
        api_key_id = person.text("API key id")
        if api_key_id:
            return api_key_id
    raise KeyNotRegisteredError(
        f"the key {key.name!r} is made, and not registered yet: there is no bootstrap key that may register it",
        hint=f"`hsm-keys public-key {key.name}` prints the public half. {_BY_HAND}; with the API key id from there, "
        f"run the same command again: hsm-keys init {key.name} --api-key-id ID",
    )
