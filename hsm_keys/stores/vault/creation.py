"""Makes keys, and removes what killed runs have left.

First the entry names the Transit key that is to be made, then the Transit key is made, then the entry gives it the
name. So the next run finds everything that a killed run has left, and of two runs at the same time one gives way. If
a leftover is removed before its Transit key arrived, a record of it stays, under a label that no key has: the request
may arrive later, and then the next command for that name deletes the Transit key.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from hsm_keys.errors import KeyBusyError, KeyExistsError, KeyProblemError
from hsm_keys.stores.key_names import ENDING
from hsm_keys.stores.marks import UNBEGUN
from hsm_keys.stores.vault.entries import base_of, new_transit_key
from hsm_keys.stores.vault.errors import VaultAccessDeniedError
from hsm_keys.stores.vault.records import Phase, Record, is_late, label_of, set_aside, take_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.signing.algorithms import KeyType
    from hsm_keys.stores.vault.entries import Entries, KvEntry
    from hsm_keys.stores.vault.records import Records
    from hsm_keys.stores.vault.transit import Transit, TransitKey

__all__ = ["clear", "make", "mend"]


def make(
    entries: Entries, transit: Transit, name: str, key_type: KeyType, environment: str | None = None
) -> tuple[Record, TransitKey]:
    """Make a key, or go on with what an interrupted run has begun.

    Args:
        entries: The entries.
        transit: The engine.
        name: The key's name.
        key_type: What to make.
        environment: For which environment of Kalshi's; None if nobody has said so.

    Raises:
        KeyExistsError: If the name is taken.
        KeyBusyError: If somebody else makes a key of that name at this moment.
        KeyProblemError: If an interrupted run left a key of another type.
        VaultError: If the server refuses.
        OutcomeUnknownError: If it isn't known what the server did; the next run finds out.
    """
    base = base_of(name)
    entry = entries.read(base)
    begun = _to_make(transit, entry, name, key_type)
    records = dict(entry.records)
    set_aside(records, name, begun.transit_key)
    written = entries.write(base, entry, {**records, name: begun})
    left = entry.records.get(name)
    if left is None or left.transit_key != begun.transit_key:  # else it is there, or somebody has deleted it by now
        transit.create(begun.transit_key, name, key_type)
    record = Record(begun.transit_key, environment=environment, claim=environment and UNBEGUN)
    try:
        entries.write(base, written, {**written.records, name: record})
    except KeyBusyError:
        now = dict(entries.read(base).records)
        label = label_of(now, begun.transit_key)
        cleared = label is None or now[label].phase is Phase.DESTROYING  # before it had arrived
        if cleared and _is_deleted(transit, begun.transit_key, name):
            entries.change(base, lambda records: take_out(records, begun.transit_key))
        raise
    transit_key = transit.read(record.transit_key, name, record.version)
    if transit_key is None:
        raise KeyBusyError(f"somebody else has deleted the key {name!r} at the same moment", hint="run it again")
    return record, transit_key


def _to_make(transit: Transit, entry: KvEntry, name: str, key_type: KeyType) -> Record:
    """Return the record of a key that is to be made; one that an interrupted run began to make is taken over.

    Raises:
        KeyExistsError: If the name is taken.
        KeyProblemError: If an interrupted run left a key of another type.
    """
    fresh = Record(new_transit_key(base_of(name)), phase=Phase.MAKING, key_type=str(key_type), run=secrets.token_hex(8))
    left = entry.records.get(name)
    if left is None:
        return fresh
    transit_key = transit.read(left.transit_key, name)
    if transit_key is None and left.phase in {Phase.MAKING, Phase.DESTROYING}:
        return fresh  # another run may still be about to make that Transit key: it is set aside
    if left.phase is not Phase.MAKING:
        raise KeyExistsError(
            f"there is an entry for a key {name!r} already",
            hint=f"choose another name, or see it: hsm-keys show {name}",
        )
    kind = None if transit_key is None else transit_key.said.get("type")
    if transit_key is not None and str(key_type) != kind:
        raise KeyProblemError(
            f"an interrupted run left a key for {name!r} of another type than {key_type}: {kind}",
            hint="ask for the same type again",
        )
    return replace(fresh, transit_key=left.transit_key)


def mend(entries: Entries, transit: Transit, name: str) -> None:
    """Take out of the entry what a destruction that was interrupted left there; delete what never got its name.

    Nobody has registered that: it is cleared away already, and came late, or its deletion wasn't carried out. A token
    that may not delete leaves it where it is. What Kalshi made stays until the import has ended: until then its API key
    may live.
    """
    base = base_of(name)
    deleted: list[str] = []
    gone: dict[str, str] = {}
    records = entries.read(base).records
    importing = any(record.phase is Phase.IMPORTING for record in records.values())
    for label, record in records.items():
        destroying = record.phase is Phase.DESTROYING
        if not destroying and not label.endswith(ENDING):
            continue
        found = transit.read(record.transit_key, label)
        if found is None:
            if not is_late(label):  # a delayed request may still arrive
                gone[label] = record.transit_key
            continue
        late = destroying and record.run is not None and not (importing and found.imported)
        if late and _is_deleted(transit, record.transit_key, label):
            deleted.append(record.transit_key)

    def tidy(records: Records) -> None:
        take_out(records, *deleted)
        _drop(records, gone)

    if deleted or gone:
        entries.change(base, tidy)


def _is_deleted(transit: Transit, transit_key: str, label: str) -> bool:
    """Delete a Transit key, and return True; leave it to another token if this one may not."""
    try:
        transit.delete(transit_key, label)
    except VaultAccessDeniedError:
        return False
    return True


def _drop(records: Records, gone: Mapping[str, str]) -> None:
    """Take out what is said of Transit keys that aren't there, by their labels; what may still come is set aside."""
    for label, transit_key in gone.items():
        record = records.get(label)
        if record is None or record.transit_key != transit_key:
            continue
        if record.run is None:
            del records[label]
        else:
            set_aside(records, label)


def clear(entries: Entries, transit: Transit, name: str) -> bool:
    """Delete a key that was made for a name, and never got it.

    The entry says first that the key is being destroyed: then a run that still makes it gives way.

    Returns:
        Whether there was one.

    Raises:
        KeyBusyError: If somebody else has changed the entry at the same moment; nothing was deleted.
    """
    mend(entries, transit, name)
    base = base_of(name)
    entry = entries.read(base)
    record = entry.records.get(name)
    if record is None or record.run is None or record.phase not in {Phase.MAKING, Phase.DESTROYING}:
        return False
    if record.phase is Phase.MAKING:
        entries.write(base, entry, {**entry.records, name: replace(record, phase=Phase.DESTROYING)})
    there = transit.read(record.transit_key, name) is not None
    if there:
        transit.delete(record.transit_key, name)
        entries.change(base, lambda records: take_out(records, record.transit_key))
    else:
        entries.change(base, lambda records: _drop(records, {name: record.transit_key}))
    return there
