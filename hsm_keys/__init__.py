"""Kalshi API keys that live in hardware.

The key pair is made inside a PKCS#11 token or AWS KMS, only its public half goes to Kalshi, and every request
is signed there: the private half never leaves::

    from hsm_keys import KalshiClient, open_store

    with open_store("pkcs11:token=kalshi?module-path=/usr/lib/softhsm/libsofthsm2.so") as store:
        signer = store.key("prod").signer()
        print(signer.headers("GET", "/trade-api/v2/portfolio/balance"))

Names load on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from hsm_keys._version import __version__

if TYPE_CHECKING:
    from hsm_keys.errors import HsmKeysError
    from hsm_keys.kalshi.client import AsyncKalshiClient, KalshiClient
    from hsm_keys.signing.algorithms import KeyType
    from hsm_keys.signing.environments import websocket_url
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores import open_store
    from hsm_keys.stores.base import KeyState, KeyStore, RegisteredKey, StoredKey

__all__ = [
    "AsyncKalshiClient",
    "HsmKeysError",
    "KalshiClient",
    "KeyState",
    "KeyStore",
    "KeyType",
    "RegisteredKey",
    "RequestSigner",
    "StoredKey",
    "__version__",
    "open_store",
    "websocket_url",
]

_HOMES: Final = {
    "AsyncKalshiClient": "hsm_keys.kalshi.client",
    "HsmKeysError": "hsm_keys.errors",
    "KalshiClient": "hsm_keys.kalshi.client",
    "KeyState": "hsm_keys.stores.base",
    "KeyStore": "hsm_keys.stores.base",
    "KeyType": "hsm_keys.signing.algorithms",
    "RegisteredKey": "hsm_keys.stores.base",
    "RequestSigner": "hsm_keys.signing.signer",
    "StoredKey": "hsm_keys.stores.base",
    "open_store": "hsm_keys.stores",
    "websocket_url": "hsm_keys.signing.environments",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
