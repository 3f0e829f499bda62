"""Chooses the store of the first key: the only one, one of several, or a new one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hsm_keys.errors import StoreNotFoundError
from hsm_keys.stores import backends
from hsm_keys.stores.new_store import MakesStores
from hsm_keys.values import hides_its_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hsm_keys.person import Person
    from hsm_keys.stores.backend import Backend
    from hsm_keys.stores.candidates import Candidate
    from hsm_keys.stores.new_store import NewStore

__all__ = ["ChosenStore", "choose_store", "name_a_store"]


@dataclass(frozen=True, slots=True)
class ChosenStore:
    """Where a key will live.

    Args:
        uri: The store's URI.
        options: What opens it beside the URI.
        new: What was made for this; None for a store that was there.
    """

    uri: str
    options: Mapping[str, Any]
    new: NewStore | None = None


def name_a_store(options: Mapping[str, Any]) -> bool:
    """Tell whether options name a store that is there; those of a store to be made may still be looked for.

    Args:
        options: The options of all back-ends.
    """
    of_new = [maker.options_of_new for maker in backends() if isinstance(maker, MakesStores)]
    return bool(options.keys() - frozenset().union(*of_new))


@hides_its_arguments
def choose_store(
    options: Mapping[str, Any], folder: Path, person: Person, env: Mapping[str, str] = os.environ
) -> ChosenStore:
    """Return where the key will live.

    Args:
        options: The options of all back-ends; they say what is looked for, and what a new store is to be.
        folder: Where notes and PIN files go.
        person: Who is asked.
        env: The environment.

    Raises:
        StoreNotFoundError: If there is no store, and nothing to make one with.
        UsageError: If there are several and nobody to ask, or the answer is no.
        StoreError: If none can be made.
    """
    makers = [backend for backend in backends() if isinstance(backend, MakesStores)]
    unfinished = [maker for maker in makers if maker.is_making(folder)]
    if not unfinished:
        candidates = [
            candidate
            for backend in _meant(options)
            for candidate in backend.candidates(_own(backend, options), env, person.report)
        ]
        if candidates:
            return ChosenStore(_one_of(candidates, person).uri, _beside_uri(options))
    for maker in unfinished or makers:
        new = maker.make_store(_own(maker, options), env, folder, person)
        if new is not None:
            return ChosenStore(new.uri, {**_beside_uri(options), **new.options}, new)
    kinds = ", ".join(f"no {backend.title}" for backend in backends())
    raise StoreNotFoundError(
        f"no store was found on this machine or in its variables ({kinds}), and none can be made here",
        hint="; ".join(maker.remedy for maker in makers),
    )


def _one_of(candidates: Sequence[Candidate], person: Person) -> Candidate:
    if len(candidates) == 1:
        return candidates[0]
    return candidates[person.choose("Where is the key to live?", [each.description for each in candidates])]


def _meant(options: Mapping[str, Any]) -> list[Backend]:
    """Return the back-ends that are meant: those of options that name stores, else all."""
    named = [
        backend
        for backend in backends()
        if any(option.names_store and option.name in options for option in backend.options)
    ]
    return named or list(backends())


def _own(backend: Backend, options: Mapping[str, Any]) -> dict[str, Any]:
    return {option.name: options[option.name] for option in backend.options if option.name in options}


def _beside_uri(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without those that a store's URI says."""
    in_uri = {
        option.name
        for backend in backends()
        for option in backend.options
        if option.names_store or (option.uri_attribute and not option.is_secret_file)
    }
    return {name: value for name, value in options.items() if name not in in_uri}
