"""Which versions of which SDK this package was tried with."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import dataclass
from typing import Final

from hsm_keys.errors import UsageError

__all__ = ["KNOWN", "SDK_KALSHI", "KnownSdk", "check_version", "sdk_of", "tried"]

_VERSION: Final = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class KnownSdk:
    """One SDK.

    Args:
        package: What is imported.
        distribution: What is installed.
        oldest: The oldest version that was tried, and works.
        newest: The newest one.
    """

    package: str
    distribution: str
    oldest: tuple[int, int, int]
    newest: tuple[int, int, int]


SDK_KALSHI: Final = KnownSdk("kalshi", "kalshi-sdk", oldest=(22, 4, 0), newest=(22, 4, 0))

KNOWN: Final = (
    KnownSdk("kalshi_python_sync", "kalshi-python-sync", oldest=(3, 2, 0), newest=(3, 34, 0)),
    KnownSdk("kalshi_python_async", "kalshi-python-async", oldest=(3, 2, 0), newest=(3, 34, 0)),
)


def sdk_of(client: object) -> KnownSdk:
    """Return the SDK that a client, or a class it is derived from, belongs to.

    Raises:
        UsageError: If it belongs to none of the known ones.
    """
    packages = {base.__module__.partition(".")[0] for base in type(client).__mro__}
    for sdk in KNOWN:
        if sdk.package in packages:
            return sdk
    names = " or ".join(sdk.distribution for sdk in KNOWN)
    raise UsageError(
        f"{type(client).__module__}.{type(client).__qualname__} is no client of {names}",
        hint=f"pip install {KNOWN[0].distribution}, and give its KalshiClient; docs/sdks.md has the other SDKs",
    )


def check_version(sdk: KnownSdk) -> None:
    """Refuse a version that is older than those that work, and warn about one that nobody has tried.

    The SDKs are generated anew nearly every week, so refusing each new one would break bots that would have worked.
    A guess gone wrong does no harm: whatever isn't signed as it should be, Kalshi refuses with 401.

    Raises:
        UsageError: If it is too old.
    """
    found = str(getattr(sys.modules[sdk.package], "__version__", "of an unknown version"))
    match = _VERSION.match(found)
    version = tuple(int(part) for part in match.groups()) if match else None
    if version is not None and version < sdk.oldest:
        raise UsageError(
            f"{sdk.distribution} {found} is too old: nothing before {_text(sdk.oldest)} was tried",
            hint=f"pip install '{sdk.distribution}>={_text(sdk.oldest)}'",
        )
    if version is None or version > sdk.newest:
        warnings.warn(
            f"{sdk.distribution} {found} wasn't tried with hsm-keys: {_text(sdk.newest)} is the newest that was",
            stacklevel=3,
        )


def tried(sdk: KnownSdk) -> str:
    """Return what people are told to use: the ends of what was tried."""
    return f"{sdk.distribution} {_text(sdk.oldest)} or {_text(sdk.newest)}"


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
