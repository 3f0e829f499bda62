"""kalshi-sdk, signing with a key in a store: Ed25519 too, and in step with rotations.

``KalshiAuth(key.api_key_id, key.private_key())`` needs nothing of this package, for an RSA key that stays. This is for
what that can't do: the SDK signs with RSA's arguments whatever the key, and keeps the key that it was given.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hsm_keys.errors import UsageError
from hsm_keys.integrations.versions import SDK_KALSHI, check_version

if TYPE_CHECKING:
    from hsm_keys.signing.signer import RequestSigner

__all__ = ["auth_for"]


def auth_for(signer: RequestSigner) -> Any:
    """Return a ``kalshi.KalshiAuth`` that signs in the store: for REST, WebSocket and, with an RSA key, FIX.

    It follows a rotation in the time that a signer takes to look, 30 seconds: give the rotation a longer grace.

    Args:
        signer: Signs every request: ``store.key("prod").signer()``.

    Raises:
        UsageError: If kalshi-sdk isn't installed, or too old.
    """
    return _auth_class()(signer)


@cache
def _auth_class() -> Any:
    try:
        base: Any = import_module(SDK_KALSHI.package).KalshiAuth
    except (ImportError, AttributeError):
        raise UsageError(
            "kalshi-sdk isn't installed here", hint="pip install kalshi-sdk, on Python 3.12 or newer"
        ) from None
    check_version(SDK_KALSHI)

    class StoreAuth(base):  # type: ignore[misc]  # kalshi-sdk is no dependency
        def __init__(self, signer: RequestSigner) -> None:
            super().__init__(signer.api_key_id, None)
            self.signer = signer

        @property
        def key_id(self) -> str:
            return self.signer.api_key_id

        @property
        def private_key(self) -> Any:
            key: Any = self.signer.key
            return key.private_key()

        def sign_request(self, method: str, path: str, timestamp_ms: int | None = None) -> dict[str, str]:
            return self.signer.headers(method, path, timestamp_ms=timestamp_ms)

    return StoreAuth
