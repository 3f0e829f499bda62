"""From options and environment to the URI of a store."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hsm_keys.errors import UsageError
from hsm_keys.stores import backend_of, backends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hsm_keys.cli.settings import Settings
    from hsm_keys.stores.backend import Backend, Option

__all__ = ["check_options", "chosen_backend", "store_uri", "store_uris"]


def store_uri(settings: Settings, report: Callable[[str], None]) -> str:
    """Return the URI of the store: of --store or of another option that names one, else HSM_KEYS_STORE, else the usual.

    Raises:
        UsageError: If two options contradict each other, belong to another kind of store, or a URI is malformed.
        StoreError: If the options name no store that is there.
    """
    backend, uri = _chosen(settings)
    check_options(backend, settings)
    if uri is None:
        return backend.uri_of(settings.store_options, report)
    if settings.stores:
        backend.check_public(uri)
    return backend.with_options(uri, settings.store_options)


def chosen_backend(settings: Settings) -> Backend:
    """Return the back-end of the store that options and environment name; no store is looked for.

    Raises:
        UsageError: If two options contradict each other, or a URI's scheme is unknown.
    """
    return _chosen(settings)[0]


def _chosen(settings: Settings) -> tuple[Backend, str | None]:
    """Return the back-end, and the store's URI; None where the back-end's own options name it."""
    if len(settings.stores) > 1:
        raise UsageError(
            "--store was given several times, but this command works on one store",
            hint="give --store once; only list, reconcile and custody take several",
        )
    named = _named_by_options(_without_needless_flags(settings))
    flags = [*("--store" for _ in settings.stores), *(option.flag for _, option in named)]
    if len(flags) > 1:
        raise UsageError(f"{' and '.join(flags)} both name a store", hint="give one of them")
    if named:
        return named[0][0], None
    uri = next(iter(settings.stores), None) or os.environ.get("HSM_KEYS_STORE") or None
    return (backend_of(uri) if uri else backends()[0]), uri


def store_uris(settings: Settings, report: Callable[[str], None]) -> list[str]:
    """Return the URIs of all stores that were named, for commands that look at several together.

    Beside another option that names a store every ``--store`` is a further one; else the first is the first. The
    options of back-ends are for the first store alone.

    Raises:
        UsageError: If a URI is malformed, holds a PIN, or would be tried with another token's PIN.
        StoreError: If the options name no store that is there.
    """
    settings = _without_needless_flags(settings)
    count = 0 if _named_by_options(settings) else 1
    first = store_uri(replace(settings, stores=settings.stores[:count]), report)
    return [first, *_further_uris(settings.stores[count:], first)]


def check_options(backend: Backend, settings: Settings) -> None:
    """Make sure that no option of another back-end was given: it would be passed over in silence.

    Raises:
        UsageError: If one was.
    """
    for other in backends():
        if other is not backend:
            flags = [
                *_flags(other.options, settings.store_options),
                *_flags(other.creation_options, settings.creation_options),
            ]
            if flags:
                verb = "is" if len(flags) == 1 else "are"
                raise UsageError(
                    f"{' and '.join(flags)} {verb} for {other.title}, and the keys are in {backend.title}",
                    hint=f"leave {' and '.join(flags)} out, or name a store of {other.title}: {other.example}",
                )


def _flags(options: Iterable[Option], values: Mapping[str, Any]) -> list[str]:
    return [option.flag for option in options if option.name in values]


def _named_by_options(settings: Settings) -> list[tuple[Backend, Option]]:
    return [
        (backend, option)
        for backend in backends()
        for option in backend.options
        if option.names_store and option.name in settings.store_options
    ]


def _without_needless_flags(settings: Settings) -> Settings:
    """Return the settings without a flag such as ``--kms`` beside a ``--store`` of that kind, where it says no more.

    With a further option of that back-end it names a store of its own.
    """
    options = dict(settings.store_options)
    for backend in backends():
        own = [option for option in backend.options if option.name in options]
        if len(own) == 1 and own[0].names_store and own[0].kind is bool and any(map(backend.has, settings.stores)):
            del options[own[0].name]
    return replace(settings, store_options=options)


def _further_uris(uris: Sequence[str], first: str) -> list[str]:
    """Return the URIs of further stores, checked before any is opened.

    Args:
        uris: What the command line gave.
        first: The URI of the store that is opened anyway.

    Raises:
        UsageError: If one is malformed, holds a PIN, or would be tried with another token's PIN.
    """
    for uri in uris:
        backend_of(uri).check_public(uri)
    if len([uri for uri in (first, *uris) if backend_of(uri).wants_secret(uri)]) > 1:
        raise UsageError(
            "a second token needs a pin-source in its URI, because one token's PIN is never tried on another",
            hint="--store 'pkcs11:token=LABEL?module-path=PATH&pin-source=file:/path'",
        )
    return list(uris)
