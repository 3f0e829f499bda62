"""``awskms:`` URIs: which account and Regions, which key, how patient.

::

    awskms:///?region=us-east-1                                       every key of hsm-keys in a Region
    awskms:///alias/hsm-keys/prod?region=us-east-1,us-west-2          one key, on a multi-Region pair
    awskms:///mrk-0123456789abcdef0123456789abcdef?region=eu-west-1   a key made elsewhere, by its id
    awskms:///arn:aws:kms:us-east-1:111122223333:key/UUID             or by its ARN, also in another account

Parameters: ``region`` (one or several, in the order of preference), ``profile`` (of AWS's configuration
files), ``attempts`` and ``budget-ms`` (how often, and how long in all, a signature is tried), ``imported=accept``
(a key whose private half was imported passes the custody check); and for a URI that names a key, ``api-key-id`` and
``public-key-sha256`` (of the SubjectPublicKeyInfo, in hex): the key has to be that one, whatever the alias leads to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from hsm_keys.errors import UsageError
from hsm_keys.stores.parameters import UriText
from hsm_keys.values import Secret, describe, hides_its_arguments

__all__ = ["AwsKmsUri", "check_region", "in_region", "is_key_reference", "key_id_of", "region_of"]

_SCHEME: Final = "awskms:"
_MAX_LENGTH: Final = 2048
_EXAMPLE: Final = "awskms:///?region=us-east-1"
_PINS: Final = ("api-key-id", "public-key-sha256")
_PARAMETERS: Final = ("region", "profile", "attempts", "budget-ms", "imported", *_PINS)

# RFC 3986, section 3.4, without the characters that this URI has no use for unencoded.
_SAFE: Final = "/:,@+"
_REGION = re.compile(r"[a-z]{2,8}(?:-[a-z]{1,12}){1,3}-[0-9]{1,2}")
_ALIAS = re.compile(r"alias/(?!aws/)[A-Za-z0-9/_-]{1,250}")
_KEY_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ARN = re.compile(r"(arn:aws[a-z-]{0,20}:kms):([^:]+):([0-9]{12}):(?:(key)/)?(.+)")

_DEFAULT_ATTEMPTS: Final = 2
_DEFAULT_BUDGET_MS: Final = 2000
_MAX_ATTEMPTS: Final = 10
_MIN_BUDGET_MS: Final = 100
_MAX_BUDGET_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class AwsKmsUri:
    """An ``awskms:`` URI.

    Args:
        key: Alias, key id or ARN; empty for a store.
        regions: In the order of preference; empty where AWS's own configuration says.
        profile: A profile of AWS's configuration files.
        attempts: How often a call of the signing path is tried, in all Regions together.
        budget_ms: Milliseconds that all attempts may take together.
        accept_imported: Whether a private half that was imported passes the custody check.
        api_key_id: The API key id that the key must have; empty: any.
        public_key_sha256: The fingerprint that its public half must have, 64 hex digits in lower case; empty: any.
    """

    key: str = ""
    regions: tuple[str, ...] = ()
    profile: str | None = None
    attempts: int = _DEFAULT_ATTEMPTS
    budget_ms: int = _DEFAULT_BUDGET_MS
    accept_imported: bool = False
    api_key_id: str = ""
    public_key_sha256: str = ""

    @classmethod
    @hides_its_arguments
    def parse(cls, text: str | Secret) -> AwsKmsUri:
        """Return the URI that the text holds.

        Raises:
            UsageError: If it isn't such a URI; nothing was opened.
        """
        text = text.reveal() if isinstance(text, Secret) else text
        if len(text) > _MAX_LENGTH:
            raise _bad(f"is longer than {_MAX_LENGTH} characters")
        if text[: len(_SCHEME)].lower() != _SCHEME or text[len(_SCHEME) : len(_SCHEME) + 2] != "//":
            raise _bad("doesn't begin with awskms:///")
        authority, slash, rest = text[len(_SCHEME) + 2 :].partition("/")
        if authority or not slash:
            raise _bad(
                "doesn't begin with awskms:///",
                "there is no host in it: AWS_ENDPOINT_URL_KMS names another endpoint",
            )
        path, mark, query = rest.partition("?")
        if mark and not query:
            raise _bad("ends in an empty query")
        key = _TEXT.decoded("the key", path)
        return cls._checked(key, _TEXT.parameters(query, _PARAMETERS))

    @classmethod
    def _checked(cls, key: str, parameters: dict[str, str]) -> AwsKmsUri:
        if parameters.get("imported", "accept") != "accept":
            raise _bad("has an unknown value for imported", "the only one is imported=accept")
        regions = tuple(parameters["region"].split(",")) if "region" in parameters else ()
        for region in regions:
            check_region(region)
        if len(set(regions)) != len(regions):
            raise _bad("names a Region twice")
        if parameters.get("profile") == "":
            raise _bad("has an empty profile")
        for pin in _PINS:
            if pin in parameters and not key:
                raise _bad(f"pins {pin} and names no key", "name it: awskms:///alias/hsm-keys/prod?...")
        fingerprint = parameters.get("public-key-sha256", "").lower()
        if "public-key-sha256" in parameters and not _SHA256.fullmatch(fingerprint):
            raise _bad("has a bad public-key-sha256", "it has 64 hex digits")
        return cls(
            key=key,
            regions=_regions_of(key, regions),
            profile=parameters.get("profile"),
            attempts=_number(parameters, "attempts", _DEFAULT_ATTEMPTS, 1, _MAX_ATTEMPTS),
            budget_ms=_number(parameters, "budget-ms", _DEFAULT_BUDGET_MS, _MIN_BUDGET_MS, _MAX_BUDGET_MS),
            accept_imported="imported" in parameters,
            api_key_id=parameters.get("api-key-id", ""),
            public_key_sha256=fingerprint,
        )

    def __str__(self) -> str:
        pairs = {
            "region": ",".join(self.regions),
            "profile": self.profile or "",
            "attempts": "" if self.attempts == _DEFAULT_ATTEMPTS else str(self.attempts),
            "budget-ms": "" if self.budget_ms == _DEFAULT_BUDGET_MS else str(self.budget_ms),
            "imported": "accept" if self.accept_imported else "",
            "api-key-id": self.api_key_id,
            "public-key-sha256": self.public_key_sha256,
        }
        query = "&".join(f"{name}={quote(value, safe=_SAFE)}" for name, value in pairs.items() if value)
        return f"{_SCHEME}///{quote(self.key, safe=_SAFE)}" + (f"?{query}" if query else "")


def check_region(region: str) -> str:
    """Return the Region if it has the shape of one.

    Raises:
        UsageError: If it hasn't: botocore would build a host name from whatever it is.
    """
    if not _REGION.fullmatch(region):
        raise UsageError(f"{describe(region)} is not an AWS Region", hint="it looks like us-east-1")
    return region


def is_key_reference(text: str) -> bool:
    """Tell whether the text names a key as KMS does: by alias, key id or ARN."""
    arn = _ARN.fullmatch(text)
    if arn is not None:
        return bool(_REGION.fullmatch(arn[2]) and (_KEY_ID if arn[4] else _ALIAS).fullmatch(arn[5]))
    return bool(_ALIAS.fullmatch(text) or _KEY_ID.fullmatch(text))


def region_of(reference: str) -> str | None:
    """Return the Region of an ARN; None for an alias or a key id."""
    arn = _ARN.fullmatch(reference)
    return arn[2] if arn else None


def in_region(reference: str, region: str) -> str:
    """Return the reference as it reads in another Region: a multi-Region key has the same id in all of them."""
    arn = _ARN.fullmatch(reference)
    if arn is None:
        return reference
    return f"{arn[1]}:{region}:{arn[3]}:" + (f"key/{arn[5]}" if arn[4] else arn[5])


def key_id_of(arn: str) -> str:
    """Return the key id at the end of a key's ARN."""
    return arn.rpartition("/")[2]


def _regions_of(key: str, regions: tuple[str, ...]) -> tuple[str, ...]:
    if not key:
        return regions
    if not is_key_reference(key):
        raise _bad("names no key", "name an alias (alias/hsm-keys/prod), a key id or an ARN")
    own = region_of(key)
    if own is None:
        return regions
    if regions and own not in regions:
        raise _bad(f"names a key in {own} and other Regions", f"leave region out, or say region={own}")
    if len(regions) > 1 and ":key/" in key and not key_id_of(key).startswith("mrk-"):
        raise _bad("gives several Regions to a key that is in one", "only multi-Region keys (mrk-...) are in several")
    return regions or (own,)


def _bad(what: str, hint: str = f"it looks like {_EXAMPLE}") -> UsageError:
    return UsageError(f"the KMS URI {what}", hint=hint)


_TEXT: Final = UriText(_SAFE, _bad)


def _number(parameters: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,6}", text) or not low <= int(text) <= high:
        raise _bad(f"has a bad number for {name}", f"it is from {low} to {high}")
    return int(text)
