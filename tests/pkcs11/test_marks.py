"""CKA_ID says which keys are ours, and which state they are in."""

from __future__ import annotations

from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.errors import UsageError
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.stores.marks import FOREIGN, MINTED, OFFERED, UNNAMED, Claim, Intent, Mark
from hsm_keys.stores.pkcs11.marks import (
    fingerprint,
    importing_id,
    is_passing,
    minted_id,
    passing_id,
    passing_registered_id,
    read_mark,
    registered_id,
    registering_id,
)

PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
API_KEY_IDS = st.uuids().map(str) | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,38}", fullmatch=True)
ENVIRONMENTS = st.sampled_from(["prod", "demo", "prod-perps", "demo-perps", "0123abcd", "0123abcd-perps"])


@given(st.uuids(version=4))
def test_a_uuid_is_kept_as_its_16_bytes_behind_the_environment(uuid: UUID) -> None:
    assert registered_id(str(uuid), "prod") == b"kalshi:prod:" + uuid.bytes


def test_another_id_is_kept_as_its_text() -> None:
    assert registered_id("key-1", "demo") == b"kalshi:demo:id:key-1"


@given(API_KEY_IDS, ENVIRONMENTS)
def test_every_api_key_id_survives_the_token(api_key_id: str, environment: str) -> None:
    checked = check_api_key_id(api_key_id)
    assert read_mark(registered_id(checked, environment)) == Mark(
        ours=True, api_key_id=checked, environment=environment
    )


@given(ENVIRONMENTS)
def test_the_mark_of_an_import_names_its_environment(environment: str) -> None:
    public_key = Ed25519PrivateKey.generate().public_key()
    mark = importing_id(public_key, environment)
    assert mark.endswith(fingerprint(public_key))  # two imports at a time have two marks
    assert read_mark(mark) == Mark(ours=True, environment=environment, importing=True)
    assert read_mark(mark[:-1]) == FOREIGN
    assert read_mark(importing_id(public_key, "nowhere")) == FOREIGN


@given(API_KEY_IDS, ENVIRONMENTS, st.sampled_from(Intent))
def test_a_claim_survives_the_token(api_key_id: str, environment: str, intent: Intent) -> None:
    claim = Claim(intent, check_api_key_id(api_key_id))
    mark = registering_id(Ed25519PrivateKey.generate().public_key(), environment, claim)
    assert read_mark(mark) == Mark(ours=True, environment=environment, registering=True, claim=claim)


@given(API_KEY_IDS, ENVIRONMENTS)
def test_a_key_that_was_put_in_a_moment_ago_is_registered_and_passing(api_key_id: str, environment: str) -> None:
    checked = check_api_key_id(api_key_id)
    mark, usual = passing_registered_id(checked, environment), registered_id(checked, environment)
    assert mark != usual
    assert read_mark(mark) == read_mark(usual)
    assert is_passing(mark, b"")
    assert not is_passing(usual, b"")


def test_a_uuid_that_begins_like_a_text_is_not_taken_for_one() -> None:
    uuid = str(UUID(bytes=b"id:abcdefghijklm"))
    assert read_mark(registered_id(uuid, "prod")).api_key_id == uuid
    assert read_mark(b"kalshi:prod:id:abcdefghijklm").api_key_id == "abcdefghijklm"


def test_a_minted_key_carries_the_sha1_of_its_public_bits() -> None:
    public_key = Ed25519PrivateKey.generate().public_key()
    assert minted_id(public_key) == b"kalshi:minted:" + fingerprint(public_key)
    assert read_mark(minted_id(public_key)) == read_mark(passing_id()) == MINTED


@given(ENVIRONMENTS)
def test_a_minted_key_says_for_which_environment_it_was_made(environment: str) -> None:
    public_key = Ed25519PrivateKey.generate().public_key()
    digest = fingerprint(public_key)
    made, passing = minted_id(public_key, environment), passing_id(environment)
    assert made == f"kalshi:minted:{environment}:".encode() + digest
    assert read_mark(made) == read_mark(passing) == Mark(ours=True, environment=environment)
    assert [is_passing(mark, digest) for mark in (made, passing)] == [False, True]
    assert read_mark(minted_id(public_key, UNNAMED)) == OFFERED
    assert read_mark(minted_id(public_key, "nowhere")) == FOREIGN


@given(st.none() | st.binary(max_size=64))
def test_what_others_write_is_not_ours(cka_id: bytes | None) -> None:
    assert read_mark(cka_id) == FOREIGN


@pytest.mark.parametrize(
    "cka_id",
    [
        UUID("0f8fad5b-d9cb-469f-a165-70867728950e").bytes,  # tpm2_ptool makes up such
        bytes(20),
        b"id:text",
        b"kalshi:",
        b"kalshi:minted:",
        b"kalshi:minted:" + bytes(19),
        b"kalshi:minted:" + bytes(21),
        b"kalshi:prod:" + bytes(15),
        b"kalshi:prod:" + bytes(17),
        b"kalshi:prod:id:",
        b"kalshi:prod:id:a b",
        b"kalshi:prod:id:line\n",
        b"kalshi:other:" + bytes(16),
        b"kalshi:PROD:" + bytes(16),
        b"kalshi:0123456:" + bytes(16),
        b"KALSHI:prod:" + bytes(16),
        b" kalshi:prod:" + bytes(16),
    ],
)
def test_what_is_nearly_a_mark_is_none(cka_id: bytes) -> None:
    assert read_mark(cka_id) == FOREIGN


@pytest.mark.parametrize("environment", ["", "minted", "production", "prod:", "0123abcde", "prod-perps-perps", "p\n"])
def test_nothing_is_bound_in_an_environment_that_cannot_be(environment: str) -> None:
    with pytest.raises(UsageError):
        registered_id("0f8fad5b-d9cb-469f-a165-70867728950e", environment)
