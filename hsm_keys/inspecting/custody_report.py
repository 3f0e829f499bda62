"""The custody report: where the private half of each API key is, what proves it, and which tries to read it failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import HsmKeysError, KeyUnusableError
from hsm_keys.inspecting.custody import CustodyReport, examine_custody
from hsm_keys.inspecting.proof_of_possession import accepts
from hsm_keys.kalshi.account import unclaimed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hsm_keys.inspecting.proof_of_possession import Connect
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import KeyStore, StoredKey, Unusable

__all__ = [
    "ELSEWHERE",
    "CustodyEntry",
    "account_in_custody",
    "examine_account",
    "scopes_against_use",
    "what_scopes_allow",
]

_MILLISECONDS: Final = 10**11  # as seconds, this is the year 5138

ELSEWHERE: Final = "custody unknown: a PEM somewhere"

_ALLOWS: Final = {
    "read": "see everything of the account",
    "write": "trade, transfer money, and make and delete API keys (one made by Kalshi comes as a PEM)",
    "read::portfolio_balance": "see the balance",
    "read::block_trade_accept": "see block trades to accept",
    "write::trade": "trade",
    "write::transfer": "transfer money",
    "write::fcm_risk": "change FCM risk settings",
    "write::block_trade_accept": "accept block trades",
}


@dataclass(frozen=True, slots=True)
class CustodyEntry:
    """One API key, or a key of a store that Kalshi doesn't know.

    Args:
        name: What the store calls it, else Kalshi.
        api_key_id: Kalshi's id; None for a key that was never registered.
        listed: What Kalshi lists of it; None if it doesn't, or wasn't asked.
        location: Where the private half is, for people.
        key_type: The pair's type, if the private half is at hand.
        made: ``in the store``, ``imported``, or ``unknown``.
        created: When, in ISO 8601, where the store tells.
        custody: What the store said and refused; None where no store holds the private half.
        proved_live: Whether Kalshi took a request signed now; None if that wasn't tried.
        problem: Why it isn't in custody; empty if it is.
        age_days: How old it is, in whole days, where ``created`` is known.
        environment: The environment that the store says it belongs to; None where it doesn't say.
        accepted: Whether its private half is elsewhere on purpose, as whoever asked for the report says.
    """

    name: str
    api_key_id: str | None
    listed: ApiKey | None
    location: str
    key_type: str | None
    made: str
    created: str | None
    custody: CustodyReport | None
    proved_live: bool | None
    problem: str
    age_days: int | None = None
    environment: str | None = None
    accepted: bool = False

    @property
    def short_verdict(self) -> str:
        """``in custody``, or why not in a few words."""
        return self.verdict.partition(":")[0] + (" (accepted)" if self.accepted else "")

    @property
    def verdict(self) -> str:
        """``in custody``, or why not."""
        return self.problem or (self.custody.verdict if self.custody else "in custody")

    @property
    def scopes(self) -> list[str] | None:
        """What Kalshi lets it do; None if Kalshi doesn't list it."""
        return None if self.listed is None else list(self.listed.scopes)

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as it goes into JSON output."""
        return {
            "name": self.name,
            "api_key_id": self.api_key_id,
            "environment": self.environment,
            "in_custody": not self.problem,
            "accepted": self.accepted,
            "verdict": self.verdict,
            "location": self.location,
            "key_type": self.key_type,
            "made": self.made,
            "created": self.created,
            "age_days": self.age_days,
            "scopes": self.scopes,
            "allows": what_scopes_allow(self.scopes or []),
            "scope_advice": scopes_against_use(self.scopes or []),
            "subaccount": self.listed.subaccount if self.listed else None,
            "proved_live": self.proved_live,
            "custody": self.custody.as_dict() if self.custody else None,
        }


def what_scopes_allow(scopes: Sequence[str]) -> list[str]:
    """Return what the scopes let a key do, in words; one that nobody knew when this was written as it is."""
    return [_ALLOWS.get(scope, f"{scope} (unknown to this version)") for scope in scopes]


def scopes_against_use(scopes: Sequence[str]) -> str:
    """Return what is wider than programs usually need, in a sentence; empty if nothing is.

    Kalshi doesn't tell which scopes a key was used for: whoever runs the program has to know.
    """
    if "write" in scopes:
        return (
            "full access includes transfers and making API keys; a program that only trades needs read and "
            "write::trade, one that only looks needs read"
        )
    return "it can move money: does its program?" if "write::transfer" in scopes else ""


def examine_account(
    stores: Sequence[KeyStore],
    listed: Sequence[ApiKey] | None,
    connect: Connect | None,
    *,
    environment: str | None = None,
    accepted: Collection[str] = (),
) -> list[CustodyEntry]:
    """Examine every key of the stores and every API key of the account; nothing is changed.

    A key of another program counts for the API keys that Kalshi takes its signature for, and else not at all.

    Args:
        stores: Where private halves may be.
        listed: What Kalshi lists; None if it wasn't asked.
        connect: Makes a client of the same environment for another signer; None signs nothing for Kalshi.
        environment: The environment that was asked; None if none was. Keys of another one are judged by their store
            alone.
        accepted: API keys whose private halves are elsewhere on purpose.

    Raises:
        StoreError: If a store doesn't list its keys.
    """
    by_id = {listing.api_key_id: listing for listing in listed or ()}
    entries: list[CustodyEntry] = []
    foreign: list[tuple[KeyStore, StoredKey]] = []
    for store in stores:
        contents = store.contents()
        for key in contents.keys:
            if key.ours or key.doubt:
                here = connect if _is_here(key, environment) else None
                entries.append(_of_key(store, key, key.api_key_id, by_id, here))
            else:
                foreign.append((store, key))
        entries += [_of_unusable(store, unusable, by_id) for unusable in contents.unusable if unusable.mark.ours]
    for store, key in foreign:
        ids = _signs_for(key, unclaimed(by_id.values(), (entry.api_key_id for entry in entries)), connect)
        entries += [_of_key(store, key, api_key_id, by_id, connect) for api_key_id in ids]
    others = [
        _of_listing(listing, environment, accepted=listing.api_key_id in accepted)
        for listing in unclaimed(by_id.values(), (entry.api_key_id for entry in entries))
    ]
    return sorted(entries, key=_order) + sorted(others, key=_order)


def _signs_for(key: StoredKey, listed: Sequence[ApiKey], connect: Connect | None) -> list[str]:
    """Return those API keys that Kalshi takes another program's key for; none where that can't be found out."""
    if connect is None:
        return []
    try:
        return [listing.api_key_id for listing in listed if accepts(connect, key, listing.api_key_id)]
    except HsmKeysError:
        return []


def _is_here(key: StoredKey, environment: str | None) -> bool:
    return environment is not None and key.environment in {None, environment}


def _order(entry: CustodyEntry) -> tuple[str, str]:
    return entry.name, entry.api_key_id or ""


def account_in_custody(entries: Sequence[CustodyEntry]) -> bool:
    """Tell whether every entry is in custody, or accepted as it is."""
    return not any(entry.problem and not entry.accepted for entry in entries)


def _of_key(
    store: KeyStore, key: StoredKey, api_key_id: str | None, by_id: dict[str, ApiKey], connect: Connect | None
) -> CustodyEntry:
    listing = by_id.get(api_key_id) if api_key_id else None
    try:
        custody: CustodyReport | None = examine_custody(key)
        created = _moment(key.attributes().get("creation_date"))
        live = _live(key, listing.api_key_id, connect) if listing is not None else None
        problem = _problem(custody, live)
    except HsmKeysError as error:  # one key that can't be examined mustn't hide the others
        custody, created, live, problem = None, None, None, f"can't be examined: {error.message}"
    created = created or _moment(listing.created_ts if listing else None)
    if connect is not None and api_key_id and listing is None:
        also = f"; {problem}" if problem else ""
        problem = f"gone: Kalshi doesn't list its API key, which was deleted or belongs to another account{also}"
    return CustodyEntry(
        name=key.name,
        api_key_id=api_key_id,
        listed=listing,
        location=store.describe() if key.ours else f"{store.describe()}, as a key that isn't ours",
        key_type=key.key_type.value,
        made=_made(custody),
        created=created.isoformat() if created else None,
        custody=custody,
        proved_live=live,
        problem=problem,
        age_days=_age(created),
        environment=key.environment,
    )


def _of_unusable(store: KeyStore, unusable: Unusable, by_id: dict[str, ApiKey]) -> CustodyEntry:
    listing = by_id.get(unusable.mark.api_key_id) if unusable.mark.api_key_id else None
    created = _moment(listing.created_ts if listing else None)
    return CustodyEntry(
        name=unusable.name,
        api_key_id=unusable.mark.api_key_id,
        listed=listing,
        location=store.describe(),
        key_type=None,
        made="unknown",
        created=created.isoformat() if created else None,
        custody=None,
        proved_live=None,
        problem=f"can't be used: {unusable.problem}",
        age_days=_age(created),
        environment=unusable.mark.environment,
    )


def _moment(value: object) -> datetime | None:
    """Return a time as a store or Kalshi gives it: ISO 8601, or Unix time in seconds or milliseconds."""
    try:
        if isinstance(value, str) and not value.isdigit():
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            number = float(value)
            return datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS else number, UTC)
    except (ValueError, OverflowError, OSError):
        pass  # unreadable data is treated as missing
    return None


def _age(created: datetime | None) -> int | None:
    return None if created is None else max(0, (datetime.now(UTC) - created).days)


def _made(custody: CustodyReport | None) -> str:
    if custody is None:
        return "unknown"
    if custody.made_inside:
        return "in the store"
    return "imported" if custody.imported else "unknown"


def _problem(custody: CustodyReport | None, live: bool | None) -> str:
    if custody is not None and custody.imported:
        return "imported: the private half was made outside (by Kalshi, if `generate` put it here); copies may exist"
    if custody is not None and custody.problems:
        return "not in custody: " + "; ".join(custody.problems)
    return "Kalshi refuses its signature for this API key: the private half is another one" if live is False else ""


def _live(key: StoredKey, api_key_id: str, connect: Connect | None) -> bool | None:
    if connect is None:
        return None
    try:
        return accepts(connect, key, api_key_id)
    except KeyUnusableError:
        return None


def _of_listing(listing: ApiKey, environment: str | None, *, accepted: bool) -> CustodyEntry:
    created = _moment(listing.created_ts)
    return CustodyEntry(
        name=listing.name,
        api_key_id=listing.api_key_id,
        listed=listing,
        location="in none of the stores that were looked at",
        key_type=None,
        made="unknown",
        created=created.isoformat() if created else None,
        custody=None,
        proved_live=None,
        problem=ELSEWHERE,
        age_days=_age(created),
        environment=environment,
        accepted=accepted,
    )
