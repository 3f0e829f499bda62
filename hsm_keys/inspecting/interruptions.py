"""Finds rotations, generates and revocations that didn't finish, by their marks. Nothing is repaired here.

Each is continued by its own command, which knows the next step.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from hsm_keys.inspecting.findings import Finding, about_key
from hsm_keys.stores.condition import Usability
from hsm_keys.stores.key_names import ABORTING, ENDING, FINISHING, IMPORTING, RETIRED, ROTATION, SUCCESSOR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from hsm_keys.inspecting.snapshot import Seen

__all__ = ["interruptions", "name_of", "pending_imports"]


def name_of(key: Seen) -> str:
    """Return the name without its mark."""
    return key.name.partition("+")[0]


def pending_imports(keys: Sequence[Seen]) -> set[str]:
    """Return the names under which an import was begun and not ended."""
    return {name_of(key) for key in keys if _is_import(key)}


def _is_import(key: Seen) -> bool:
    arriving = key.stopped is not None and key.stopped.usability is Usability.ARRIVING
    return arriving or key.name.endswith(IMPORTING)


def interruptions(
    keys: Sequence[Seen], names: Collection[tuple[str, str]], several: Collection[str]
) -> Iterator[Finding]:
    """Give a finding for every rotation, every generate and every revocation under way.

    Args:
        keys: The keys that are ours.
        names: The store URI and the name of each key, those of other environments too.
        several: The names of imports for which Kalshi may have made several pairs: `generate` chooses none of them.
    """

    def place(key: Seen) -> tuple[str, str, str]:
        return key.store, key.store_uri, name_of(key)

    for _, group in groupby(sorted(keys, key=place), place):
        members = list(group)
        gone = {key.name for key in members if key.api_key_id is not None and key.unknown}
        rotating = any(key.name in {name_of(key) + mark for mark in ROTATION} for key in members)
        for key in members:
            if _is_import(key) and (rotating or name_of(key) in {*gone, *several}):
                # The rotation has to be finished first. If the key is gone, a run that gave way had imported it:
                # `revoke` ends it, and the mark beside it. Of several API keys a person revokes the unused ones.
                continue
            if _is_import(key):
                yield about_key(
                    "generate-interrupted",
                    key,
                    f"a `generate` of {name_of(key)!r} was interrupted before its private half was in {key.store}",
                    "generate",
                    name_of(key),
                )
            elif key.name.endswith(ENDING):
                message = f"a `revoke` of {name_of(key)!r} was interrupted: its private half is still in {key.store}"
                anew = (key.store_uri, name_of(key)) in names  # then the name means another key
                word = key.name if anew else name_of(key)
                yield about_key("revoke-interrupted", key, message, "revoke", word, "--destroy")
        yield from _rotation(members)


def _rotation(members: Sequence[Seen]) -> Iterator[Finding]:
    """Give the finding for a rotation of one name in one store."""
    name = name_of(members[0])
    by_name = {key.name: key for key in sorted(members, key=lambda key: not key.unknown)}  # of two the one that lives
    current, new, old = (by_name.get(name + mark) for mark in ("", SUCCESSOR, RETIRED))
    if current is not None and _is_import(current):
        current = None  # in KMS the mark of a `generate` has the name
    old = old or by_name.get(name + FINISHING)
    aborting = by_name.get(name + ABORTING)
    if aborting and _is_forsaken(aborting, current, new, old):
        yield _forsaken(name, aborting)
        aborting = None
    taker = new or aborting
    if taker and old:
        yield _handing_over(name, current, taker, old)
    elif aborting:
        yield _aborting(name, current, aborting)
    elif new:
        yield _successor(name, current, new)
    elif old:
        yield _retired(name, current, old)


def _works(key: Seen) -> bool:
    """Tell whether Kalshi takes a key's signature; another machine's bookkeeping may have written over its id."""
    return key.api_key_id in key.signs_for if key.api_key_id else bool(key.signs_for)


def _is_forsaken(aborting: Seen, current: Seen | None, new: Seen | None, old: Seen | None) -> bool:
    """Tell whether a successor was to end, and another rotation was begun since; if it works, another key must, too."""
    if new is None and (current is None or old is None or current.pair == old.pair):
        return False
    others = [key for key in (current, new, old) if key is not None]
    needless = not _works(aborting) or any(key.api_key_id and _works(key) for key in others)
    return needless and all(key.pair != aborting.pair for key in others)


def _forsaken(name: str, aborting: Seen) -> Finding:
    message = (
        f"`rotate --abort` of {name!r} was interrupted, and another rotation was begun since: {aborting.name} is to "
        f"end, and is still in {aborting.store}"
    )
    return about_key("rotation-begun", aborting, message, "revoke", aborting.name, "--destroy")


def _aborting(name: str, current: Seen | None, new: Seen) -> Finding:
    message = f"`rotate --abort` of {name!r} was interrupted: its successor is to end, and is still in {new.store}"
    if (current is None or current.unknown) and new.api_key_id in new.signs_for:
        alone = f"{new.name} still works, and no other key of the name does"
        return about_key("rotation-orphan", new, alone, "rotate", name)
    if current is None or current.api_key_id not in current.signs_for:
        return about_key("rotation-orphan", new, message, "revoke", new.name, "--destroy")
    return about_key("rotation-begun", new, message, "rotate", name, "--abort")


def _is_going(key: Seen) -> bool:
    """Tell whether a key's deletion is scheduled."""
    return key.stopped is not None and key.stopped.usability is Usability.ENDING


def _handing_over(name: str, current: Seen | None, new: Seen, old: Seen) -> Finding:
    if current is not None and _is_going(current) and _is_going(old):
        return _without_model(name, current, new)
    if current is None or current.pair in {new.pair, old.pair}:
        message = f"the rotation of {name!r} was interrupted while the name was handed over"
        only_old_lives = new.unknown and _works(old)
        aborting = new.name.endswith(ABORTING) and not old.name.endswith(FINISHING)
        goes_back = only_old_lives or (aborting and not (old.unknown and _works(new)))
        back = ["--abort"] if goes_back else []
        return about_key("rotation-handover", new, message, "rotate", name, *back)
    unused = current.passing or (current.api_key_id is None and not current.signs_for)
    if unused and new.api_key_id is not None:
        message = (
            f"the rotation of {name!r} was interrupted while another run made a key of that name, which is of no use"
        )
        return about_key("rotation-handover", new, message, "rotate", name)
    if new.api_key_id is None:
        message = f"{name!r} was rotated, and {new.name}, which another run made for it, is of no use"
        return about_key("rotation-begun", new, message, "rotate", name)
    return about_key(
        "rotation-inconsistent",
        new,
        f"{new.store} holds {name}, {new.name} and {old.name}, three pairs: more than one rotation leaves. Revoke the "
        "one that nobody uses",
    )


def _successor(name: str, current: Seen | None, new: Seen) -> Finding:
    if current is None:
        message = f"{new.name} was to replace {name!r}, and there is no key of that name any more"
        if new.environment is None and not new.signs_for:
            elsewhere = "it may be registered in another environment: look with reconcile in each"
            return about_key("rotation-orphan", new, f"{message}; {elsewhere}")
        return about_key("rotation-orphan", new, message, "revoke", new.name, "--destroy")
    if _is_going(current) or (current.api_key_id is None and not current.signs_for):
        return _without_model(name, current, new)
    if new.api_key_id is not None:
        message = f"the rotation of {name!r} was interrupted: the successor is registered, and hasn't got the name yet"
        back = ["--abort"] if new.unknown else []  # its API key is dead, as after an abort that was killed
        return about_key("rotation-registered", new, message, "rotate", name, *back)
    known = next(iter(sorted(new.signs_for)), None)
    state = f"is known to Kalshi as API key {known}, and isn't bound to it" if known else "isn't registered yet"
    message = f"the rotation of {name!r} was interrupted: the successor {state}"
    if current.unknown:
        message = f"{message}; and the API key that it was to replace is gone"
        return about_key("rotation-begun", new, message, "revoke", new.name, "--destroy", api_key_id=known)
    return about_key("rotation-begun", new, message, "rotate", name, api_key_id=known)


def _without_model(name: str, current: Seen, new: Seen) -> Finding:
    why = "waits for its deletion" if _is_going(current) else "isn't registered"
    message = f"{new.name} was to replace a key called {name!r}, and the one that is called so {why}"
    return about_key("rotation-begun", new, message, "revoke", new.name, "--destroy")


def _retired(name: str, current: Seen | None, old: Seen) -> Finding:
    if current is None:
        message = f"{old.name} was replaced by a key called {name!r}, which isn't there any more"
        if _works(old):
            return about_key("rotation-orphan", old, f"{message}; the old one still works", "rotate", name)
        return about_key("rotation-orphan", old, message, "revoke", old.name, "--destroy")
    if _works(old):
        back = current.unknown or not old.name.endswith(FINISHING)
        if back and current.api_key_id is not None and current.api_key_id not in current.signs_for:
            message = f"{name!r} was rotated, and its new API key is dead while the old one still works: go back"
            return about_key("rotation-grace", old, message, "rotate", name, "--abort")
        message = f"{name!r} was rotated, and its old API key still works"
        return about_key("rotation-grace", old, message, "rotate", name, "--finish")
    message = f"{name!r} was rotated, its old API key is dead, and the old private half is still there"
    if current.unknown or _is_going(current):
        new = "waits for its deletion" if _is_going(current) else "is dead, too"
        return about_key("rotation-ending", old, f"{message}; the new one {new}", "revoke", old.name, "--destroy")
    return about_key("rotation-ending", old, message, "rotate", name, "--finish")
