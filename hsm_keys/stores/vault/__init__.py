"""Keys in the Transit engine of OpenBao or HashiCorp Vault, with what belongs to them in a KV v2 entry.

httpx2 is imported when a store is opened, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.stores.vault.uri import VaultUri

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hsm_keys.stores.vault.store import VaultStore
    from hsm_keys.values import Secret

__all__ = ["open_uri"]


def open_uri(
    uri: str | Secret,
    *,
    pin_file: Path | None = None,  # noqa: ARG001 - Vault has no PIN; every back-end is opened alike
    ask_pin: Callable[[str], str] | None = None,  # noqa: ARG001
    force_pin: bool = False,  # noqa: ARG001
) -> VaultStore:
    """Open the keys that a ``vault:`` URI names; nothing is sent yet.

    Args:
        uri: See ``hsm_keys.stores.vault.uri``.
        pin_file: Not used.
        ask_pin: Not used.
        force_pin: Not used.

    Raises:
        UsageError: If the URI, an address or a file of authorities can't be used.
        VaultTokenError: If there is no token.
    """
    parsed = VaultUri.parse(uri)
    from hsm_keys.stores.vault.store import VaultStore

    return VaultStore(parsed)
