"""Keys in both kinds of store, registered at the sandbox, with the environment of the recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.signing.environments import environment_name
from tests.support.ministack import REGION, account

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.sandbox.state import SandboxKey
    from tests.support.softhsm import TestToken

__all__ = ["account"]  # pytest finds the fixture here


@pytest.fixture(params=[pytest.param("SoftHSM", marks=pytest.mark.softhsm), pytest.param("KMS", marks=pytest.mark.kms)])
def store_uri(request: pytest.FixtureRequest) -> str:
    if request.param == "KMS":
        request.getfixturevalue("account")
        return f"awskms:///?region={REGION}"
    token: TestToken = request.getfixturevalue("token")
    return token.uri


@pytest.fixture
def enrolled(store_uri: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SandboxKey]:
    """Make the key `prod`, and set what the recipes read."""

    def enroll(key_type: KeyType = KeyType.RSA_2048, **how: Any) -> SandboxKey:
        with open_store(store_uri) as store:
            key = store.generate("prod", key_type)
            registered = sandbox.add_key("prod", key.public_pem(), **how)
            store.bind(key, registered.api_key_id, environment_name(sandbox.base_url))
        for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY"):  # nothing but the key in the store may sign
            monkeypatch.delenv(name)
        monkeypatch.setenv("HSM_KEYS_STORE", store_uri)
        return registered

    return enroll


@pytest.fixture
def prod(enrolled: Callable[..., SandboxKey]) -> SandboxKey:
    """The RSA key `prod`."""
    return enrolled()
