"""What the tests of Vault share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys.stores.vault import open_vault
from tests.support.vault import Vault, surround

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.vault.store import VaultStore


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Vault:
    """Engines of their own on the real server, and the root token in the environment."""
    surround(monkeypatch)
    return Vault()


@pytest.fixture
def vault_store(vault: Vault) -> Iterator[VaultStore]:
    """Those engines, open."""
    with open_vault(vault.uri) as opened:
        yield opened
