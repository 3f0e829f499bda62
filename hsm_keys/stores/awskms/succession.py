"""Which key may follow another under its name: a key about which the old key signed a statement.

Whoever may write aliases can point an alias to any key, and a running program would sign with that key from
then on. So in a rotation the old key signs a statement about the new public half, and the new key's tags hold the
signature. A program that has the old public half verifies it; tags and aliases alone aren't enough.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final

from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.awskms.tags import VOUCHER_TAGS
from hsm_keys.stores.succession import spki, statement_about

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.signing.algorithms import PublicKey

__all__ = ["fingerprint", "vouched", "voucher_tags"]

_TAG_LENGTH: Final = 256  # characters: KMS's limit on the value of a tag


def fingerprint(public_key: PublicKey) -> str:
    """Return the SHA-256 of a public half's SubjectPublicKeyInfo (RFC 5280, DER), in hex."""
    return hashlib.sha256(spki(public_key)).hexdigest()


def voucher_tags(signature: bytes) -> list[dict[str, str]]:
    """Return the tags that hold a predecessor's signature."""
    text = b64encode(signature).decode("ascii")
    pieces = [text[start : start + _TAG_LENGTH] for start in range(0, len(text), _TAG_LENGTH)]
    return [{"TagKey": tag, "TagValue": piece} for tag, piece in zip(VOUCHER_TAGS, pieces, strict=False)]


def vouched(predecessor: PublicKey, successor: PublicKey, tags: Mapping[str, str]) -> bool:
    """Tell whether the successor's tags hold the predecessor's signature over its public half.

    A shorter signature than the one before it leaves a piece of that behind in the last tags; it is cut off.
    """
    pieces = []
    for tag in VOUCHER_TAGS:
        pieces.append(tags.get(tag, ""))
        if len(pieces[-1]) < _TAG_LENGTH:
            break
    try:
        signature = b64decode("".join(pieces), validate=True)
    except ValueError:
        return False
    return verifies(predecessor, statement_about(successor), signature)
