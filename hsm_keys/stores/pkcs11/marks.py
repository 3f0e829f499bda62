"""CKA_ID: which keys of a token are ours, and what a registered one is registered as.

A token may hold keys of other programs, whose CKA_ID can be any bytes: 16 of them are what other tools make up, and 20
a hash. So ours begin with a word of our own. A key that is only minted has ``kalshi:minted:``, the environment for
which it was made and ``:`` if that is known, and the SHA-1 of its public key's bits; a registered one ``kalshi:``, the
environment, ``:``, and the UUID's 16 bytes, or for an id that is no UUID ``id:`` and its text. In between, a key that
is about to be registered has ``kalshi:registering:``, the environment, ``:`` and that SHA-1 (``unnamed`` for the
environment where a person was given the public half to register it, and nobody said where); or, where one of its API
keys is to be bound or deleted, ``kalshi:taking:`` or ``kalshi:leaving:``, and then what a registered one has after its
first word. One that was put in a moment ago, already registered, has ``kalshi:passing:`` and the same, until it is
known to be alone. The throwaway key that marks an import has ``kalshi:importing:``, the environment, ``:`` and the
SHA-1. Whatever else a CKA_ID says, the key is somebody else's.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final
from uuid import UUID

from hsm_keys.errors import UsageError
from hsm_keys.signing.environments import is_environment
from hsm_keys.stores.marks import FOREIGN, MINTED, OFFERED, UNNAMED, Claim, Intent, Mark
from hsm_keys.values import describe

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import PublicKey

__all__ = [
    "fingerprint",
    "importing_id",
    "is_minted",
    "is_passing",
    "is_passing_registered",
    "minted_id",
    "passing_id",
    "passing_registered_id",
    "read_mark",
    "registered_id",
    "registering_id",
    "usual_id",
]

_OURS: Final = b"kalshi:"
_MINTED: Final = _OURS + b"minted:"
_PASSING: Final = _OURS + b"passing:"
_TEXT: Final = b"id:"
_DIGEST_LENGTH: Final = 20
_UNDER_WAY = re.compile(
    rb"kalshi:(?P<what>importing|minted|registering):(?P<environment>[a-z0-9-]{1,32}):.{20}", re.DOTALL
)
_REGISTERED = re.compile(
    rb"kalshi:(?:(?P<intent>taking|leaving|passing):)?(?P<environment>[a-z0-9-]{1,32}):"
    rb"(?:id:(?P<text>[\x21-\x7e]+)|(?P<uuid>.{16}))",
    re.DOTALL,
)


def fingerprint(public_key: PublicKey) -> bytes:
    """Return the SHA-1 of the public key's bits (RFC 5280, section 4.2.1.2)."""
    from cryptography.x509 import SubjectKeyIdentifier  # half of this module's time to load, for few commands

    return SubjectKeyIdentifier.from_public_key(public_key).digest


def minted_id(public_key: PublicKey, environment: str | None = None) -> bytes:
    """Return the CKA_ID of a key that is only minted, for an environment if it is known for which one."""
    return _head(environment) + fingerprint(public_key)


def passing_id(environment: str | None = None) -> bytes:
    """Return a CKA_ID that says the same, and that no other object has: for a pair that is being made.

    Args:
        environment: For which environment; None if it isn't known.
    """
    return _head(environment) + os.urandom(_DIGEST_LENGTH)


def _head(environment: str | None) -> bytes:
    return _MINTED if environment is None else _MINTED + environment.encode() + b":"


def is_passing(cka_id: bytes | None, digest: bytes) -> bool:
    """Tell whether a CKA_ID is that of a pair that is being made, or whose maker was killed before it was done.

    Args:
        cka_id: The CKA_ID.
        digest: The fingerprint of the pair's public half.
    """
    return (is_minted(cka_id) and not (cka_id or b"").endswith(digest)) or is_passing_registered(cka_id)


def is_minted(cka_id: bytes | None) -> bool:
    """Tell whether a CKA_ID says that a key is minted, and that nobody has begun to register it."""
    return cka_id is not None and cka_id.startswith(_MINTED) and read_mark(cka_id).ours


def is_passing_registered(cka_id: bytes | None) -> bool:
    """Tell whether a CKA_ID is that of a registered key that was put in, and isn't known to be the only one."""
    return cka_id is not None and cka_id.startswith(_PASSING) and read_mark(cka_id).api_key_id is not None


def importing_id(public_key: PublicKey, environment: str) -> bytes:
    """Return the CKA_ID of the throwaway key that marks an import of what an environment of Kalshi makes."""
    return _OURS + b"importing:" + environment.encode() + b":" + fingerprint(public_key)


def registering_id(public_key: PublicKey, environment: str, claim: Claim | None = None) -> bytes:
    """Return the CKA_ID of a minted key that is about to be registered in an environment of Kalshi's, or claimed."""
    if claim is not None:
        registered = registered_id(claim.api_key_id, environment)
        return _OURS + claim.intent.encode() + b":" + registered.removeprefix(_OURS)
    return _OURS + b"registering:" + environment.encode() + b":" + fingerprint(public_key)


def registered_id(api_key_id: str, environment: str) -> bytes:
    """Return the CKA_ID that holds an API key id and its environment.

    Raises:
        UsageError: If that can't be an environment.
    """
    if not is_environment(environment):
        raise UsageError(f"{describe(environment)} is no environment of Kalshi's")
    head = _OURS + environment.encode() + b":"
    try:
        plain = UUID(api_key_id).bytes
    except ValueError:
        plain = _TEXT
    # A UUID whose bytes begin like a text is written as one, so that each CKA_ID has one meaning.
    return head + (_TEXT + api_key_id.encode() if plain.startswith(_TEXT) else plain)


def usual_id(cka_id: bytes | None) -> bytes | None:
    """Return the usual CKA_ID of a registered key that was put in a moment ago; None if it has that already."""
    return _OURS + cka_id.removeprefix(_PASSING) if cka_id and is_passing_registered(cka_id) else None


def passing_registered_id(api_key_id: str, environment: str) -> bytes:
    """Return the CKA_ID of a registered key until it is known that no other one has its name; raises as the usual."""
    return _PASSING + registered_id(api_key_id, environment).removeprefix(_OURS)


def read_mark(cka_id: bytes | None) -> Mark:
    """Return what a CKA_ID says; ``FOREIGN`` for whatever isn't written exactly as here."""
    if cka_id is None:
        return FOREIGN
    if cka_id.startswith(_MINTED) and len(cka_id) == len(_MINTED) + _DIGEST_LENGTH:
        return MINTED
    under_way, registered = _UNDER_WAY.fullmatch(cka_id), _REGISTERED.fullmatch(cka_id)
    mark = under_way or registered
    environment = mark["environment"].decode() if mark else ""
    if under_way and under_way["what"] != b"importing" and environment == UNNAMED:
        return OFFERED
    if mark is None or not is_environment(environment):
        return FOREIGN
    if under_way:
        what = under_way["what"]
        return Mark(True, environment=environment, importing=what == b"importing", registering=what == b"registering")
    api_key_id = mark["text"].decode() if mark["text"] else str(UUID(bytes=mark["uuid"]))
    claim = Claim(Intent(mark["intent"].decode()), api_key_id) if mark["intent"] not in {None, b"passing"} else None
    known = None if claim else api_key_id
    return Mark(ours=True, api_key_id=known, environment=environment, registering=claim is not None, claim=claim)
