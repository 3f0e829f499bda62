"""The tests' own module in front of a real one: what it isn't told to change comes from the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.errors import StoreError, StoreNotFoundError
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.shim import Shim
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_without_a_rule_it_is_the_real_module(shim: Shim, token: TestToken, tmp_path: Path, key_type: KeyType) -> None:
    with open_store(shim.uri(token)) as store:
        key = store.generate("prod", key_type)
        assert openssl_verifies(tmp_path, key.public_pem(), b"m", key.sign(b"m"))
        store.destroy(key)


def test_a_function_fails_the_first_time(shim: Shim, token: TestToken) -> None:
    with open_store(shim.uri(token)) as store:
        key = store.generate("prod", KeyType.ED25519)
        shim.rules("fail C_SignInit 0x54 first=1")
        with pytest.raises(StoreError, match="FunctionNotSupported"):
            key.sign(b"m")
        assert key.sign(b"m")


def test_an_attribute_of_one_object_and_of_the_token_is_changed(shim: Shim, token: TestToken) -> None:
    with open_store(shim.uri(token)) as store:
        for name in ("prod", "other"):
            store.generate(name)
        shim.rules(f"attribute 0x162 01 object={b'prod'.hex()} class=3")  # CKA_EXTRACTABLE
        assert [key.attributes()["extractable"] for key in store.keys()] == [False, True]
    shim.rules(f"token label {b'another'.hex()}")
    with pytest.raises(StoreNotFoundError, match="token=kalshi"):
        open_store(shim.uri(token))


def test_calls_are_counted(shim: Shim, token: TestToken, tmp_path: Path) -> None:
    with open_store(shim.uri(token)) as store:
        key = store.generate("prod", KeyType.ED25519)
        key.sign(b"m")
        shim.rules(f"log {tmp_path / 'calls'}")
        key.sign(b"m")
    assert shim.calls(tmp_path / "calls").count("C_SignInit") == 1
