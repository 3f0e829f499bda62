"""Reconciling: compares Kalshi's list, the stores and the proofs of possession. Pure functions.

No finding deletes anything: ``--fix`` may only bind an API key id that was proved to belong to a pair. There is no
finding for a key of another environment, because Kalshi's answers say nothing about it. For a key that isn't ours, the
only finding is that Kalshi accepts its signature: a person may adopt the key; ``--fix`` doesn't.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from hsm_keys.inspecting.findings import Bind, Finding, about_key, command_for
from hsm_keys.inspecting.interruptions import interruptions, name_of, pending_imports
from hsm_keys.stores.condition import Condition, Usability

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hsm_keys.inspecting.snapshot import Seen, Snapshot
    from hsm_keys.kalshi.models import ApiKey

__all__ = ["judge"]


def judge(snapshot: Snapshot) -> list[Finding]:
    """Return everything that isn't as it should be, the same for the same snapshot.

    The codes: ``not-registered``, ``not-bound``, ``not-adopted``, ``wrong-id``, ``refused``, ``gone``, ``cannot-sign``,
    ``destroy-interrupted``, ``revoke-interrupted``, ``registered-twice``, ``two-environments``, ``elsewhere``,
    ``same-name-at-kalshi``, ``same-name-in-stores``, ``generate-interrupted``, ``rotation-begun``,
    ``rotation-registered``, ``rotation-handover``, ``rotation-grace``, ``rotation-ending``, ``rotation-inconsistent``
    and ``rotation-orphan``.
    """
    listed = {listing.api_key_id: listing for listing in snapshot.listed}
    mine = [key for key in snapshot.here if key.ours and not key.left_over]
    # A key in an unfinished workflow is left to that workflow; if it was killed between two names, both are there.
    in_hand = {(key.store_uri, key.pair) for key in mine if "+" in key.name}
    at_rest = [key for key in mine if "+" not in key.name and (key.store_uri, key.pair) not in in_hand]
    named = Counter((key.store_uri, key.name) for key in mine)
    lost = Counter(listing.name for listing in _unowned(snapshot))
    several = {name for name in pending_imports(mine) if lost[name] > 1}
    about = [(key, finding) for key in at_rest for finding in _about(key, listed, _word_for(key, named))]
    ambiguous = {key for key in at_rest if named[key.store_uri, key.name] > 1}
    return [
        # First what stands in the way: as long as it is there, commands that go on with a name or a pair are refused.
        *_registered_twice(snapshot),
        *(_left_over(key) for key in snapshot.here if key.left_over and not named[key.store_uri, key.name]),
        *(finding for key, finding in about if key in ambiguous),
        *interruptions(mine, {(key.store_uri, key.name) for key in snapshot.keys}, several),
        *(finding for key, finding in about if key not in ambiguous),
        *(_adoptable(key) for key in snapshot.here if not key.ours and key.signs_for),
        *_two_environments(snapshot),
        *_elsewhere(snapshot, pending_imports(mine) - several),
        *_same_name_at_kalshi(snapshot),
        *_same_name_in_stores(snapshot),
    ]


def _word_for(key: Seen, named: Counter[tuple[str, str]]) -> str:
    """Return the word by which `revoke` knows a key: its id, where the name leads to several keys."""
    several = named[key.store_uri, key.name] > 1
    return key.api_key_id if several and key.api_key_id else key.name


def _left_over(key: Seen) -> Finding:
    """Return the finding about what is left of a key that was never whole."""
    message = f"{key.name!r} was never whole, since its making was interrupted, and nobody can sign with it"
    return about_key("cannot-sign", key, message, "revoke", key.name, "--destroy")


def _about(key: Seen, listed: dict[str, ApiKey], word: str) -> Iterator[Finding]:
    """Give what is wrong between one key and Kalshi."""
    if key.stopped is not None:
        yield from _stopped(key, key.stopped, word)
    elif key.api_key_id in key.signs_for:
        return
    elif key.signs_for:
        yield _bindable(key)
    elif key.importing:
        message = (
            f"an interrupted `generate` put {key.name!r} into {key.store}, and Kalshi knows no API key of it: it is "
            "dead, or not known everywhere yet, and then `generate` goes on"
        )
        yield about_key("generate-interrupted", key, message, "revoke", word, "--destroy")
    elif key.api_key_id is None and key.offered:
        message = (
            f"the public half of {key.name!r} in {key.store} was printed, to be registered by hand, and Kalshi doesn't "
            "know it here. ID is what Kalshi's account page shows"
        )
        yield about_key("not-registered", key, message, "adopt", key.name, "--api-key-id", "ID")
    elif key.api_key_id is None:
        message = f"{key.name!r} is in {key.store} and isn't registered at Kalshi"
        yield about_key("not-registered", key, message, "enroll", "--name", key.name)
    elif key.api_key_id in listed:
        yield about_key(
            "refused",
            key,
            f"{key.name!r} is bound to API key {key.api_key_id}, and Kalshi refuses its signature for it: the id "
            "belongs to another pair. If you know the right one, give it to `hsm-keys adopt`",
        )
    elif key.unknown:
        message = f"{key.name!r} is bound to API key {key.api_key_id}, which Kalshi neither lists nor knows: it is gone"
        yield about_key("gone", key, message, "revoke", word, "--destroy")
    else:
        message = (
            f"{key.name!r} is bound to API key {key.api_key_id}, which Kalshi doesn't list, and it refuses its "
            "signature without saying that it doesn't know it: the id may belong to another pair, of another account"
        )
        yield about_key("refused", key, message)


def _stopped(key: Seen, why: Condition, word: str) -> Iterator[Finding]:
    if why.usability is Usability.ENDING:
        message = f"{key.name!r} waits for its deletion in {key.store}, and still has its name"
        yield about_key("destroy-interrupted", key, message, "revoke", word, "--destroy")
    elif why.usability is not Usability.ARRIVING:  # that one is an interrupted generate
        message = f"{key.name!r} can't sign; what {key.store} says: {why.reason}"
        yield about_key("cannot-sign", key, message, "show", key.name)


def _bindable(key: Seen) -> Finding:
    """Return the finding about a key that Kalshi knows by an id that it isn't bound to."""
    ids = sorted(key.signs_for)
    only = ids[0] if len(ids) == 1 else None
    was = f"is bound to API key {key.api_key_id}, which it doesn't sign for" if key.api_key_id else "isn't bound"
    return Finding(
        code="wrong-id" if key.api_key_id else "not-bound",
        name=key.name,
        api_key_id=only,
        store=key.store,
        message=f"{key.name!r} {was}; Kalshi takes its signature for {' and '.join(ids)}",
        repair=Bind(key, only) if only else None,
        command=command_for(key.store_uri, "adopt", key.name, "--api-key-id", ids[0]),
    )


def _adoptable(key: Seen) -> Finding:
    """Return the finding about a key of another program that Kalshi knows."""
    ids = sorted(key.signs_for)
    message = (
        f"{key.name!r} in {key.store} isn't ours, and Kalshi takes its signature for {' and '.join(ids)}. Adopt it, or "
        "give --api-key-id to the commands that sign with it"
    )
    command = "adopt", key.name, "--api-key-id", ids[0]
    return about_key("not-adopted", key, message, *command, api_key_id=ids[0] if len(ids) == 1 else None)


def _registered_twice(snapshot: Snapshot) -> Iterator[Finding]:
    """Give the API keys too many: Kalshi takes one pair's signature for several."""
    for pair, key in {key.pair: key for key in snapshot.here if key.ours}.items():
        ids = sorted(key.signs_for)
        ids_of_pair = [other.api_key_id for other in snapshot.here if other.pair == pair and other.api_key_id in ids]
        survivor = next(iter(sorted(filter(None, ids_of_pair))), next(iter(ids), None))
        for spare in ids:
            if spare != survivor:
                message = (
                    f"the pair of {key.name!r} is registered {len(ids)} times at Kalshi ({', '.join(ids)}). One is "
                    "enough: revoke those that no program uses"
                )
                yield about_key("registered-twice", key, message, "revoke", spare, api_key_id=spare)


def _two_environments(snapshot: Snapshot) -> Iterator[Finding]:
    """Give the pairs of another environment that Kalshi knows here, too."""
    here = {key.pair for key in snapshot.here}
    for key in snapshot.keys:
        if key.pair not in here and key.environment not in {None, snapshot.environment}:
            for api_key_id in sorted(key.signs_for):
                message = (
                    f"the pair of {key.name!r} belongs to the environment {key.environment}, and Kalshi takes its "
                    f"signature here too, for API key {api_key_id}. A pair for each environment is safer: revoke this "
                    "API key if no program uses it"
                )
                yield about_key("two-environments", key, message, "revoke", api_key_id, api_key_id=api_key_id)


def _unowned(snapshot: Snapshot) -> list[ApiKey]:
    """Return the API keys whose private half is in none of the stores."""
    owned = {api_key_id for key in snapshot.keys for api_key_id in key.signs_for}
    stopped = {key.api_key_id for key in snapshot.keys if key.stopped}
    return [listing for listing in snapshot.listed if listing.api_key_id not in owned | stopped]


def _elsewhere(snapshot: Snapshot, importing: Collection[str]) -> Iterator[Finding]:
    """Give those of them that no interrupted `generate` of these names will delete."""
    for listing in _unowned(snapshot):
        if listing.name in importing:
            continue
        yield Finding(
            "elsewhere",
            listing.name,
            listing.api_key_id,
            None,
            f"custody unknown: the private half of API key {listing.api_key_id} ({listing.name!r}) is in none of the "
            "given stores; it may be in a PEM file. Revoke the API key if nobody uses it",
            command=command_for(snapshot.store_uri, "revoke", listing.api_key_id),
        )


def _same_name_at_kalshi(snapshot: Snapshot) -> Iterator[Finding]:
    names = defaultdict(list)
    for listing in snapshot.listed:
        names[listing.name].append(listing.api_key_id)
    workflow = {
        api_key_id: (key.store, name_of(key))
        for key in snapshot.here
        for api_key_id in {key.api_key_id, *(key.signs_for if "+" in key.name else ())}
    }
    for name, ids in names.items():
        # A rotation gives the successor the same name, where Kalshi lets it.
        owners = {workflow.get(api_key_id, (api_key_id, "")) for api_key_id in ids}
        if len(owners) > 1:
            message = f"Kalshi has {len(ids)} API keys called {name!r}: {', '.join(ids)}. Name them by their ids"
            yield Finding("same-name-at-kalshi", name, None, None, message)


def _same_name_in_stores(snapshot: Snapshot) -> Iterator[Finding]:
    names = defaultdict(list)
    for key in snapshot.here:
        names[key.name].append(key)
    for name, keys in names.items():
        if len({key.pair for key in keys}) > 1 and any(key.ours for key in keys):
            places = ", ".join(f"{_known_as(key)} in {key.store}" for key in keys)
            message = f"{len(keys)} keys are called {name!r}: {places}. A name that leads to one key is safer"
            if len({key.store for key in keys}) == 1 and all(key.ours and key.api_key_id for key in keys):
                message += ": end the one that nobody uses, by its id (hsm-keys revoke ID --destroy)"
            yield Finding("same-name-in-stores", name, None, keys[0].store, message)


def _known_as(key: Seen) -> str:
    return (key.api_key_id or "not registered") if key.ours else "not ours,"
