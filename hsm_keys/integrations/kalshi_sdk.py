"""kalshi-sdk, signing with a key in a store: Ed25519 too, and in step with rotations.

For an RSA key that isn't rotated, ``KalshiAuth(key.api_key_id, key.private_key("rsa"))`` is enough. This module is for
the other cases: the SDK signs with RSA's arguments whatever the key is, and keeps the key that it was given.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hsm_keys.errors import UsageError
from hsm_keys.integrations.versions import SDK_KALSHI, check_version, tried
from hsm_keys.signing.environments import check_origin, resolve

if TYPE_CHECKING:
    from hsm_keys.signing.signer import RequestSigner

__all__ = ["auth_for", "sign_with"]

Client = TypeVar("Client")

_WEBSOCKETS: Final = "/trade-api/ws/"


def sign_with(client: Client, signer: RequestSigner) -> Client:
    """Let a client of kalshi-sdk sign in the store from now on: REST requests and WebSockets.

    Its REST requests are signed by ``signer.auth()``, in the SDK's httpx client: so a request that is refused is sent
    once more if the name has gone to another key meanwhile. WebSockets follow a rotation in 30 seconds, or when a
    request finds out.

    Args:
        client: A ``KalshiClient``, ``AsyncKalshiClient``, ``PerpsClient`` or ``AsyncPerpsClient``.
        signer: Signs every request of the client.

    Returns:
        The same client.

    Raises:
        UsageError: If it is no such client, or the SDK is too old or built differently.
        WrongEnvironmentError: If the client's base URL is another environment than the key's.
    """
    auth = _auth_class()(signer)
    changed: Any = client
    transport: Any = getattr(changed, "_transport", None)
    config: Any = getattr(changed, "_config", None)
    http: Any = getattr(transport, "_client", None)
    if not hasattr(transport, "_auth") or not hasattr(config, "base_url") or not hasattr(http, "auth"):
        raise UsageError(
            f"{type(client).__module__}.{type(client).__qualname__} is no client of kalshi-sdk that hsm-keys knows",
            hint=f"use {tried(SDK_KALSHI)}, which was tried, and give its KalshiClient or AsyncKalshiClient",
        )
    http.auth = signer.auth(base_url=config.base_url)
    auth.only_websockets = True
    changed._auth = transport._auth = auth  # noqa: SLF001 - the SDK has no other place for it
    return client


def auth_for(signer: RequestSigner, *, base_url: str | None = None, environment: str | None = None) -> Any:
    """Return a ``kalshi.KalshiAuth`` that signs in the store: for FIX with an RSA key, say; ``sign_with`` has clients.

    It follows a rotation in the time that a signer takes to look, 30 seconds: give the rotation a longer grace.

    Args:
        signer: Signs every request: ``store.key("prod").signer()``.
        base_url: The base URL of the environment that it is for; the SDK doesn't tell.
        environment: ``prod`` or ``demo``, in place of a base URL. With neither, ``KALSHI_API_BASE_URL`` and
            ``KALSHI_DEMO`` are read, and production is the default.

    Raises:
        UsageError: If kalshi-sdk isn't installed, or too old.
        WrongEnvironmentError: If the key is registered in another environment.
    """
    check_origin(signer.key.name, signer.environment, resolve(base_url=base_url, environment=environment))
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
        only_websockets = False

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
            if self.only_websockets and not path.startswith(_WEBSOCKETS):
                return {}
            return self.signer.headers(method, path, timestamp_ms=timestamp_ms)

    return StoreAuth
