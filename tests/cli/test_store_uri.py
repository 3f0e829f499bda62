"""From options and environment to the URI of a store."""

from __future__ import annotations

import pytest

from hsm_keys.cli.settings import Settings
from hsm_keys.cli.store_uri import store_uri, store_uris
from hsm_keys.errors import UsageError

KMS = "awskms:///?region=us-east-1"


def silent(_: str) -> None:
    pass


def test_kms_beside_a_store_in_kms_says_nothing_new() -> None:
    assert store_uris(Settings(stores=(KMS,), store_options={"kms": True}), silent) == [KMS]
    assert store_uri(Settings(stores=(KMS,), store_options={"kms": True}), silent) == KMS


def test_kms_with_a_region_is_a_store_of_its_own() -> None:
    both = store_uris(Settings(stores=(KMS,), store_options={"kms": True, "region": "eu-west-1"}), silent)
    assert both == ["awskms:///?region=eu-west-1", KMS]
    with pytest.raises(UsageError, match="both name a store"):
        store_uri(Settings(stores=("pkcs11:token=x",), store_options={"kms": True}), silent)
