"""A snapshot for ``reconcile``: Kalshi's API keys, the stores' keys, and which pair signs for which API key.

Kalshi lists no public keys. So a signature is tried to find out whether an API key belongs to a pair.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hsm_keys.inspecting.proof_of_possession import Standing, accepts, standing_of, why_not
from hsm_keys.kalshi.account import unclaimed
from hsm_keys.stores.condition import Condition, Usability

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.kalshi.account import Account
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import KeyStore, StoredKey, Unusable

__all__ = ["Seen", "Snapshot", "observe", "pair_of"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A key as its store has it, and the API keys for which Kalshi accepted its signature.

    Args:
        name: Its name in the store.
        api_key_id: The id that it is bound to; None while it is only minted.
        store: What people call the store.
        store_uri: Names the store in a command.
        pair: Stands for the key pair: equal for the same pair under two names or in two stores.
        signs_for: The API keys that Kalshi took its signature for.
        stopped: Why it can't sign at all: its state, or the store's refusal; None if it can.
        environment: The environment that it belongs to; None where its store doesn't say.
        unknown: Whether Kalshi answered to its signature that it doesn't know the API key that it is bound to.
        ours: Whether hsm-keys has made or adopted it; what another program made is looked at, and not judged.
        importing: Whether an interrupted `generate` put it into its store.
        passing: Whether its maker hasn't made sure yet that it is the only key of the name.
        offered: Whether a person was given its public half to register it, and nobody said in which environment.
        left_over: Whether it lost its public half while it was made, so that it never was a key.
    """

    name: str
    api_key_id: str | None
    store: str
    store_uri: str
    pair: str
    signs_for: frozenset[str] = frozenset()
    stopped: Condition | None = None
    environment: str | None = None
    unknown: bool = False
    ours: bool = True
    importing: bool = False
    passing: bool = False
    offered: bool = False
    left_over: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Both sides at one time.

    Args:
        keys: The stores' keys.
        listed: What Kalshi lists.
        store_uri: The store that commands on API keys elsewhere are given.
        environment: The environment that was asked.
    """

    keys: tuple[Seen, ...]
    listed: tuple[ApiKey, ...]
    store_uri: str
    environment: str

    @property
    def here(self) -> tuple[Seen, ...]:
        """The keys that belong to this environment, or to none; nothing that Kalshi says here is about the others.

        A rotation's successor that isn't registered yet belongs where its name does.
        """
        elsewhere = {
            (key.store_uri, key.name.partition("+")[0])
            for key in self.keys
            if key.environment not in {None, self.environment}
        }
        return tuple(
            key
            for key in self.keys
            if key.environment == self.environment
            or (key.environment is None and (key.store_uri, key.name.partition("+")[0]) not in elsewhere)
        )


def observe(stores: Sequence[KeyStore], account: Account, report: Callable[[str], None]) -> Snapshot:
    """Take the picture; nothing is changed.

    Each pair signs one GET request for each API key that no pair has been proved to own, so that it costs about as
    many requests as there are such API keys, times the number of pairs.

    Args:
        stores: Where private halves may be; one at least.
        account: What Kalshi lists, and the way to it for other signers.
        report: Called with a line for people.

    Raises:
        KalshiError: If Kalshi refuses the listing, or its answers say nothing about a key.
        NetworkError: If there is no answer.
    """
    environment, listed, connect = account.environment, account.listed, account.connect
    contents = [(store, store.contents()) for store in stores]
    sightings = [(key, _seen(store, key)) for store, held in contents for key in held.keys]
    able = {seen.pair: key for key, seen in sightings if seen.stopped is None}
    owned: dict[str, set[str]] = {pair: set() for pair in able}
    unknown: set[str] = set()
    for _, seen in sightings:
        key = able.get(seen.pair)
        if key and seen.api_key_id and seen.environment in {None, environment}:
            standing = standing_of(connect, key, seen.api_key_id)
            if standing is Standing.TAKEN:
                owned[seen.pair].add(seen.api_key_id)
            elif standing is Standing.UNKNOWN:
                unknown.add(seen.api_key_id)
    claimed = set().union(*owned.values())
    open_ids = [listing.api_key_id for listing in unclaimed(listed, claimed)]
    if able and open_ids:
        report(f"trying {len(able)} key(s) on {len(open_ids)} API key(s) whose key isn't known yet")
    for pair, key in able.items():
        owned[pair] |= {api_key_id for api_key_id in open_ids if accepts(connect, key, api_key_id)}
    keys = tuple(
        replace(seen, signs_for=frozenset(owned.get(seen.pair, ())), unknown=seen.api_key_id in unknown)
        for _, seen in sightings
    )
    unusable = tuple(
        _seen_unusable(store, each) for store, held in contents for each in held.unusable if each.mark.ours
    )
    snapshot = Snapshot(keys + unusable, tuple(listed), stores[0].uri, environment)
    others = [f"{key.name} ({key.environment})" for key in keys if key.environment not in {None, environment}]
    if others:
        report(f"keys of other environments than {environment}, which are not compared: {', '.join(others)}")
    return snapshot


def pair_of(key: StoredKey) -> str:
    """Return what stands for a key's pair, from its public half."""
    return hashlib.sha256(key.public_pem().encode()).hexdigest()


def _seen(store: KeyStore, key: StoredKey) -> Seen:
    stopped = why_not(key)
    # The public half of a disabled key may be hidden; then the key's place in the store identifies it.
    pair = f"{store.uri} {key.uri}" if stopped else pair_of(key)
    return Seen(
        key.name,
        key.api_key_id,
        store.describe(),
        store.uri,
        pair,
        stopped=stopped,
        environment=key.environment,
        importing=key.importing,
        passing=key.passing,
        offered=key.offered,
        ours=key.ours,
    )


def _seen_unusable(store: KeyStore, unusable: Unusable) -> Seen:
    """Return what is seen of a key of ours that its store can't use."""
    mark = unusable.mark
    return Seen(
        unusable.name,
        mark.api_key_id,
        store.describe(),
        store.uri,
        f"{store.uri} {unusable.name}",
        stopped=Condition(Usability.UNUSABLE, unusable.problem),
        environment=mark.environment,
        left_over=unusable.left_over,
    )
