"""Kalshi's API keys and the stores' keys, joined by API key id, to tell where each private half is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hsm_keys.kalshi.account import unclaimed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import KeyStore, StoredKey, Unusable

__all__ = ["Inventory", "InventoryEntry", "UnusableObject", "take_inventory"]


@dataclass(frozen=True, slots=True)
class InventoryEntry:
    """One key, seen from both sides.

    Args:
        name: The store's name for it, else Kalshi's.
        api_key_id: Kalshi's id; None for a key that is only minted, or not ours.
        environment: The environment that it belongs to, by the store's mark or since Kalshi lists it there.
        scopes: What it may do; None where Kalshi wasn't asked, or doesn't know the key.
        subaccount: The subaccount that it is restricted to, if any.
        key_type: The type of the pair; None where the private half isn't in the store.
        state: ``registered``; ``minted``: in the store alone, not registered yet; ``gone``: the store says
            registered in this environment, and Kalshi doesn't list it; ``elsewhere``: Kalshi lists it, and the store
            hasn't it; ``not ours``: the store has it, and hsm-keys has neither made nor adopted it; ``unusable``: the
            store has it, registered, and can't use it.
        location: Where the private half is, for people.
        uri: The key's URI in the store, if it is there.
    """

    name: str
    api_key_id: str | None
    environment: str | None
    scopes: list[str] | None
    subaccount: int | None
    key_type: str | None
    state: str
    location: str
    uri: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as it goes into JSON output."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class UnusableObject:
    """A private half that a store holds, and that can't be used.

    Args:
        name: What the store calls it.
        problem: Why; a clause.
        location: Which store, for people.
    """

    name: str
    problem: str
    location: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes into JSON output."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is.

    Args:
        entries: The stores' keys, then those of Kalshi's that are elsewhere.
        unusable: What the stores hold beside them, and can't use.
    """

    entries: list[InventoryEntry]
    unusable: list[UnusableObject]


def take_inventory(stores: Sequence[KeyStore], listed: Sequence[ApiKey] | None, environment: str) -> Inventory:
    """Join the stores' keys with Kalshi's.

    Args:
        stores: Where private halves may be.
        listed: What Kalshi lists; None if Kalshi wasn't asked.
        environment: The environment at hand, as ``environment_name`` gives it: it knows nothing of other ones' keys.
    """
    by_id = {api_key.api_key_id: api_key for api_key in listed or ()}
    mine: list[InventoryEntry] = []
    unusable: list[UnusableObject] = []
    for store in stores:
        contents = store.contents()
        for key in contents.keys:
            in_scope = listed is not None and key.environment in {None, environment}
            mine.append(_in_store(store, key, by_id, in_scope=in_scope))
        for found in contents.unusable:
            unusable.append(UnusableObject(found.name, found.problem, store.describe()))
            if found.mark.api_key_id is not None:
                mine.append(_unusable(store, found, found.mark.api_key_id, by_id))
    where = "not in this store" if len(stores) == 1 else "in none of these stores"
    left = unclaimed(by_id.values(), (entry.api_key_id for entry in mine))
    others = [_elsewhere(api_key, where, environment) for api_key in left]
    return Inventory(mine + sorted(others, key=lambda entry: (entry.name, entry.api_key_id or "")), unusable)


def _in_store(store: KeyStore, key: StoredKey, by_id: dict[str, ApiKey], *, in_scope: bool) -> InventoryEntry:
    api_key = by_id.get(key.api_key_id) if key.api_key_id else None
    gone = in_scope and key.api_key_id is not None and api_key is None
    return InventoryEntry(
        name=key.name,
        api_key_id=key.api_key_id,
        environment=key.environment,
        scopes=list(api_key.scopes) if api_key else None,
        subaccount=api_key.subaccount if api_key else None,
        key_type=key.key_type.value,
        state="gone" if gone else key.state.value,
        location=store.describe(),
        uri=key.uri,
    )


def _unusable(store: KeyStore, unusable: Unusable, api_key_id: str, by_id: dict[str, ApiKey]) -> InventoryEntry:
    api_key = by_id.get(api_key_id)
    return InventoryEntry(
        name=unusable.name,
        api_key_id=api_key_id,
        environment=unusable.mark.environment,
        scopes=list(api_key.scopes) if api_key else None,
        subaccount=api_key.subaccount if api_key else None,
        key_type=None,
        state="unusable",
        location=store.describe(),
        uri=None,
    )


def _elsewhere(api_key: ApiKey, where: str, environment: str) -> InventoryEntry:
    return InventoryEntry(
        name=api_key.name,
        api_key_id=api_key.api_key_id,
        environment=environment,
        scopes=list(api_key.scopes),
        subaccount=api_key.subaccount,
        key_type=None,
        state="elsewhere",
        location=where,
        uri=None,
    )
