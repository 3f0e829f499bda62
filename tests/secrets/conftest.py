"""An environment in which every command gets far: a token with a key, and a Kalshi that nobody answers for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import stamina

from hsm_keys import open_store
from hsm_keys.signing.algorithms import KeyType
from tests.support import softhsm as softhsm_support
from tests.support.softhsm import SoftHsm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def token_variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that lead to a token with the key prod."""
    if softhsm_support.missing():
        pytest.skip("SoftHSM is missing")
    hsm = SoftHsm(tmp_path_factory.mktemp("softhsm"))
    token = hsm.init_token(pin="right-pin-0000")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(hsm.conf))
        with open_store(token.uri) as store:
            store.generate("prod", KeyType.ED25519)
    return {"SOFTHSM2_CONF": str(hsm.conf), "HSM_KEYS_STORE": token.uri, "HSM_KEYS_MODULE": token.module}


@pytest.fixture(autouse=True)
def _somebodys_environment(
    token_variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    for name, value in token_variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KALSHI_API_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.chdir(tmp_path)  # where what is written may stay
    stamina.set_testing(True, attempts=1)
    yield
    stamina.set_testing(False)
