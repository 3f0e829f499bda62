"""Two makers of one name: whoever sees two keys gives way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.errors import KeyBusyError
from hsm_keys.stores.pkcs11 import minting
from hsm_keys.stores.pkcs11.generate import make_pair

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken


@pytest.mark.softhsm
def test_a_maker_that_sees_another_ones_pair_destroys_its_own(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs: list[Any] = []

    def after_somebody_else(session: Any, name: str, key_type: KeyType, mark: bytes) -> tuple[Any, Any]:
        theirs.append(make_pair(session, name, key_type, os.urandom(20))[1])
        return make_pair(session, name, key_type, mark)

    monkeypatch.setattr(minting, "make_pair", after_somebody_else)
    with open_store(token.uri) as store:
        with pytest.raises(KeyBusyError, match="this one is destroyed"):
            store.generate("prod", KeyType.ED25519)
        assert [key.public_key() for key in store.keys()] == theirs
