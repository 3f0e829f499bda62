"""Keys in the Transit engine of OpenBao or HashiCorp Vault, with their names and API key ids in a KV v2 entry.

httpx2 is imported when a store is opened, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsm_keys.stores.vault.store import VaultStore
    from hsm_keys.values import Secret

__all__ = ["open_vault"]


def open_vault(uri: str | Secret) -> VaultStore:
    """Open the keys that a ``vault:`` URI names; nothing is sent yet.

    Args:
        uri: See ``hsm_keys.stores.vault.uri``.

    Raises:
        UsageError: If the URI, an address or a file of authorities can't be used.
        VaultTokenError: If there is no token.
    """
    from hsm_keys.stores.vault.store import VaultStore
    from hsm_keys.stores.vault.uri import VaultUri

    return VaultStore(VaultUri.parse(uri))
