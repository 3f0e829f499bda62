"""Keys in AWS KMS. The account is the registry: an alias is the name, a tag holds the API key id.

botocore, which boto3 is made of, is imported when a store is opened, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.errors import StoreError

if TYPE_CHECKING:
    from hsm_keys.stores.awskms.store import AwsKmsStore
    from hsm_keys.stores.awskms.tags import KeyCreation
    from hsm_keys.values import Secret

__all__ = ["open_kms"]


def open_kms(uri: str | Secret, *, creation: KeyCreation | None = None) -> AwsKmsStore:
    """Open the KMS keys that an ``awskms:`` URI names.

    Args:
        uri: See ``hsm_keys.stores.awskms.uri``.
        creation: How ``generate`` is to make keys; by default in one Region, with KMS's own key policy.

    Raises:
        UsageError: If the URI is malformed.
        StoreError: If botocore isn't installed.
        AwsError: If there is no Region, or there are no credentials.
    """
    from hsm_keys.stores.awskms.uri import AwsKmsUri

    parsed = AwsKmsUri.parse(uri)
    try:
        import botocore  # type: ignore[import-untyped]  # noqa: F401 - is it there?
    except ImportError:
        raise StoreError("AWS KMS needs boto3, which isn't installed", hint="pip install 'hsm-keys[kms]'") from None
    from hsm_keys.stores.awskms.store import AwsKmsStore

    return AwsKmsStore(parsed, creation)
