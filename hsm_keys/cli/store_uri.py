"""From options and environment to the URI of a store."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.cli.options import Settings
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["store_uri", "store_uris"]

_KMS: Final = "awskms:"


def store_uri(settings: Settings, say: Callable[[str], None]) -> str:
    """Return the URI of the store: one of --store, --slot, --token and --kms, else HSM_KEYS_STORE, else the module.

    Raises:
        UsageError: If two options contradict each other, or a URI is malformed.
        StoreError: If --slot names no token.
    """
    if len(settings.stores) > 1:
        raise UsageError(
            "--store was given several times, and this command works on one store",
            hint="give it once; list, reconcile and custody look at several together",
        )
    settings = _without_a_kms_that_says_nothing(settings)
    store = next(iter(settings.stores), None)
    given = {"--store": store, "--slot": settings.slot, "--token": settings.token, "--kms": settings.kms}
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} both name a store", hint="give one of them")
    if settings.kms:
        return _kms_uri(settings, f"{_KMS}///")
    uri = store if named else os.environ.get("HSM_KEYS_STORE")
    if uri and _is_kms(uri):
        return _kms_uri(settings, uri)
    if settings.region is not None:
        raise UsageError("--region is for keys in AWS KMS", hint="give --kms")
    if store is not None:
        return _token_uri(store, settings.module)
    return _with_module(uri, settings.module) if uri else _uri_in_module(settings, say)


def store_uris(settings: Settings, say: Callable[[str], None]) -> list[str]:
    """Return the URIs of all stores that were named, for commands that look at several together.

    Beside ``--slot``, ``--token`` or ``--kms`` every ``--store`` is a further one; else the first is the first.

    Raises:
        UsageError: If a URI is malformed, holds a PIN, or would be tried with another token's PIN.
        StoreError: If --slot names no token.
    """
    settings = _without_a_kms_that_says_nothing(settings)
    otherwise = settings.slot is not None or settings.token is not None or settings.kms is not None
    count = 0 if otherwise else 1
    first = store_uri(replace(settings, stores=settings.stores[:count]), say)
    return [first, *_further_uris(settings.stores[count:], first)]


def _without_a_kms_that_says_nothing(settings: Settings) -> Settings:
    """Return the settings without ``--kms`` where a ``--store`` is in KMS, and no Region goes with it."""
    if settings.region is not None or not any(map(_is_kms, settings.stores)):
        return settings
    return replace(settings, kms=None)


def _further_uris(uris: Sequence[str], first: str) -> list[str]:
    """Return the URIs of further stores, checked before any is opened.

    Args:
        uris: What the command line gave.
        first: The URI of the store that is opened anyway.

    Raises:
        UsageError: If one is malformed, holds a PIN, or would be tried with another token's PIN.
    """
    checked = [_token_uri(uri, None) for uri in uris]
    if len([uri for uri in (first, *checked) if _wants_a_pin_from_outside(uri)]) > 1:
        raise UsageError(
            "a further token needs a pin-source in its URI: the PIN of another token is never tried on it",
            hint="--store 'pkcs11:token=LABEL?module-path=PATH&pin-source=file:/path'",
        )
    return checked


def _wants_a_pin_from_outside(uri: str) -> bool:
    return _is_token(uri) and _parsed(uri).pin_source is None


def _kms_uri(settings: Settings, uri: str) -> str:
    """Return the URI with --region worked in."""
    from hsm_keys.stores.awskms.uri import AwsKmsUri

    if settings.module is not None or settings.pin_file is not None:
        raise UsageError("--module and --pin-file go with PKCS#11 tokens, and the keys are in AWS KMS")
    parsed = AwsKmsUri.parse(uri)
    if settings.region is not None:
        regions = tuple(settings.region.split(","))
        _refuse_two("--region", regions, parsed.regions)
        parsed = replace(parsed, regions=regions)
    return str(AwsKmsUri.parse(str(parsed)))  # once more: the options are checked as the URI was


def _refuse_two(option: str, chosen: object, in_uri: object) -> None:
    if in_uri and in_uri != chosen:
        raise UsageError(f"{option} and the URI don't say the same", hint="give it once")


def _uri_in_module(settings: Settings, say: Callable[[str], None]) -> str:
    from hsm_keys.stores.pkcs11.library import find_module
    from hsm_keys.stores.pkcs11.tokens import choose_slot
    from hsm_keys.stores.uri import Pkcs11Uri

    module_path = find_module(settings.module or os.environ.get("HSM_KEYS_MODULE") or None)
    if settings.slot is None:
        if settings.token and not settings.token.isprintable():  # also bytes that this locale has no letters for
            raise UsageError(
                "--token isn't printable text in this locale", hint="set LC_ALL=C.UTF-8, or give --slot or --store"
            )
        return str(Pkcs11Uri(token=settings.token, module_path=module_path))
    choice = choose_slot(settings.slot, module_path)
    say(f"slot {settings.slot} is {choice.description}")
    if choice.others:
        others = ", ".join(choice.others)
        say(f"warning: slot numbers change when tokens come and go; this module also has {others}")
    return str(choice.uri)


def _token_uri(uri: str, module: str | None) -> str:
    """Return a URI from the command line, with --module worked in; a PIN in it is refused, it is in argv."""
    if _is_token(uri) and _parsed(uri).pin_value is not None:
        raise UsageError(
            "a pin-value on the command line shows in every process list; nothing was opened",
            hint="use --pin-file, pin-source=file:/path in the URI, HSM_KEYS_PIN_FILE, or the prompt",
        )
    return _with_module(uri, module)


def _with_module(uri: str, module: str | None) -> str:
    """Return the URI with --module worked in."""
    if module is None or not _is_token(uri):
        return uri  # open_store says what schemes there are
    from hsm_keys.stores.pkcs11.library import find_module

    parsed = _parsed(uri)
    _refuse_two("--module", module, parsed.module_path)
    if parsed.pin_value is not None:
        raise UsageError(
            "--module can't be worked into a URI that holds a PIN", hint="write module-path into HSM_KEYS_STORE"
        )
    return str(replace(parsed, module_path=find_module(module)))


def _is_kms(uri: str) -> bool:
    return uri.lower().startswith(_KMS)


def _is_token(uri: str) -> bool:
    return uri.lower().startswith("pkcs11:")


def _parsed(uri: str) -> Pkcs11Uri:
    from hsm_keys.stores.uri import Pkcs11Uri

    return Pkcs11Uri.parse(uri)
