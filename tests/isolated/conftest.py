"""A token with keys, and a signer that has it open."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, cast

import pytest

from hsm_keys import open_store
from hsm_keys.signing.algorithms import KeyType
from tests.support import softhsm as softhsm_support
from tests.support.isolated import API_KEY_ID
from tests.support.softhsm import SoftHsm, TestToken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.isolated.store import IsolatedStore


@pytest.fixture(scope="session")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> tuple[SoftHsm, TestToken] | None:
    """A token with the registered key "prod" (RSA) and the minted key "ed" (Ed25519), to be copied."""
    if softhsm_support.missing() is not None:
        return None
    hsm = SoftHsm(tmp_path_factory.mktemp("pattern"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(hsm.conf))
        token = hsm.init_token()
        with open_store(token.uri) as store:
            store.bind(store.generate("prod"), API_KEY_ID, "prod")
            store.generate("ed", KeyType.ED25519)
    return hsm, token


@pytest.fixture
def stocked(pattern: tuple[SoftHsm, TestToken] | None, softhsm: SoftHsm) -> TestToken:
    """A copy of the pattern, of the test's own."""
    assert pattern is not None
    hsm, token = pattern
    shutil.copytree(hsm.tokens, softhsm.tokens, dirs_exist_ok=True)
    return token


@pytest.fixture
def isolated(stocked: TestToken) -> Iterator[IsolatedStore]:
    """The same, open in a signer."""
    with open_store(stocked.uri, isolated=True) as opened:
        yield cast("IsolatedStore", opened)
