"""Which key may follow another under its name: one that the old key has vouched for.

An alias can be pointed to any key by whoever may write aliases, and a running program would sign with that key from
then on. So a rotation has the old key sign a statement about the new public half, and keeps the signature in the new
key's tags. Who holds the old public half can check it there; tags and aliases alone convince nobody.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask
from hsm_keys.stores.awskms.errors import KmsKeyStateError
from hsm_keys.stores.awskms.tags import VOUCHER_TAGS
from hsm_keys.stores.awskms.uri import in_region
from hsm_keys.stores.succession import spki, statement_about

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.awskms.key import AwsKmsKey

__all__ = ["fingerprint", "vouch", "vouched"]

_TAG_LENGTH: Final = 256  # characters: KMS's limit on the value of a tag


def vouch(client_of: Callable[[str], Any], leaver: AwsKmsKey, taker: AwsKmsKey, regions: Iterable[str]) -> None:
    """Let the key that leaves a name sign for the one that takes it. Safe to repeat.

    Args:
        client_of: Gives the client of a Region.
        leaver: The key that has the name.
        taker: The key that gets it.
        regions: Where the taker is.

    Raises:
        AwsError: If AWS or KMS refuses.
        NetworkError: If KMS doesn't answer.
    """
    try:
        signature = leaver.sign(statement_about(taker.public_key()))
    except KmsKeyStateError:
        return  # a disabled key signs nothing, for running programs as little as here
    for region in regions:
        ask(
            KmsCall("TagResource", taker.name, region),
            client_of(region).tag_resource,
            KeyId=in_region(taker.arn, region),
            Tags=_tags_of(signature),
        )


def fingerprint(public_key: PublicKey) -> str:
    """Return the SHA-256 of a public half's SubjectPublicKeyInfo (RFC 5280, DER), in hex."""
    return hashlib.sha256(spki(public_key)).hexdigest()


def _tags_of(signature: bytes) -> list[dict[str, str]]:
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
