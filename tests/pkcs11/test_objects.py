"""CKA_ID says which state a key is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.stores.base import check_api_key_id
from hsm_keys.stores.pkcs11.objects import decode_id, encode_id

if TYPE_CHECKING:
    from uuid import UUID


@given(st.uuids())
def test_a_uuid_is_kept_as_its_16_bytes(uuid: UUID) -> None:
    assert encode_id(str(uuid)) == uuid.bytes
    assert decode_id(uuid.bytes) == str(uuid)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128))
def test_every_api_key_id_survives_the_token(api_key_id: str) -> None:
    checked = check_api_key_id(api_key_id)
    assert decode_id(encode_id(checked)) == checked


@given(st.binary(min_size=20, max_size=20))
def test_a_sha1_is_no_api_key_id(digest: bytes) -> None:
    assert decode_id(b"\x01" + digest[1:]) is None


@pytest.mark.parametrize("cka_id", [None, b"", b"01", b"x" * 15, b"x" * 17])
def test_other_ids_are_no_api_key_ids(cka_id: bytes | None) -> None:
    assert decode_id(cka_id) is None
