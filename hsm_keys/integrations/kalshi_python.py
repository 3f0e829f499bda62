"""kalshi-python-sync and kalshi-python-async, signing with a key in a store.

The SDKs let a client's ``kalshi_auth`` be replaced, and would then sign every request twice, -async on the event
loop. ``rest_client``, which each request passes last, is the better place: one signature a request, over the path
that goes out, and -async can wait for it without blocking the loop.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hsm_keys.errors import UsageError
from hsm_keys.integrations.versions import check_version, sdk_of, tried
from hsm_keys.signing.signer import KEY_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hsm_keys.signing.signer import RequestSigner

__all__ = ["sign_with"]

Client = TypeVar("Client")

_REFUSED: Final = 401
_NEEDED: Final = {"method", "url", "headers"}


def sign_with(client: Client, signer: RequestSigner) -> Client:
    """Let a ``KalshiClient`` or ``ApiClient`` of kalshi-python-sync or -async sign in the store from now on.

    RSA and Ed25519 keys, and signers that follow a rotation: a refused request is sent once more if the name has
    gone to another key meanwhile.

    Args:
        client: The SDK's client, made without a private key; one that it has isn't used any more.
        signer: Signs every request of the client.

    Returns:
        The same client.

    Raises:
        UsageError: If it is no such client, or the SDK is too old or built differently.
    """
    sdk = sdk_of(client)
    check_version(sdk)
    changed: Any = client
    inner = getattr(changed, "rest_client", None)
    if isinstance(inner, _Signing):
        inner = inner.inner
    request = getattr(inner, "request", None)
    if not callable(request) or not inspect.signature(request).parameters.keys() >= _NEEDED:
        raise UsageError(
            f"{sdk.distribution} sends its requests in a way that hsm-keys doesn't know",
            hint=f"use {tried(sdk)}, which were tried",
        )
    wrap = _SigningAsync if inspect.iscoroutinefunction(request) else _SigningSync
    changed.rest_client = wrap(inner, signer)
    changed.kalshi_auth = None
    return client


class _Signing:
    """Stands before the SDK's ``RESTClientObject``."""

    path_of: Callable[[str], str]

    def __init__(self, inner: Any, signer: RequestSigner) -> None:
        self.inner = inner
        self.signer = signer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy asks before there is an inner one
            raise AttributeError(name)
        return getattr(self.inner, name)


class _SigningSync(_Signing):
    @staticmethod
    def path_of(url: str) -> str:
        """Return the path that urllib3 sends: it normalises what it is given."""
        from urllib3.util import parse_url

        return parse_url(url).path or "/"

    def request(self, method: str, url: str, headers: Mapping[str, str] | None = None, **rest: Any) -> Any:
        path = self.path_of(url)
        ours = self.signer.headers(method, path)
        # A copy each time: the SDK changes what it is given.
        response = self.inner.request(method, url, headers={**(headers or {}), **ours}, **rest)
        if response.status == _REFUSED and self.signer.moved_on(ours[KEY_HEADER]):
            ours = self.signer.headers(method, path)
            response = self.inner.request(method, url, headers={**(headers or {}), **ours}, **rest)
        return response


class _SigningAsync(_Signing):
    @staticmethod
    def path_of(url: str) -> str:
        """Return the path that aiohttp sends: it normalises what it is given."""
        from yarl import URL

        return URL(url).raw_path

    async def request(self, method: str, url: str, headers: Mapping[str, str] | None = None, **rest: Any) -> Any:
        path = self.path_of(url)
        ours = await self.signer.aheaders(method, path)
        response = await self.inner.request(method, url, headers={**(headers or {}), **ours}, **rest)
        if response.status == _REFUSED and await asyncio.to_thread(self.signer.moved_on, ours[KEY_HEADER]):
            ours = await self.signer.aheaders(method, path)
            response = await self.inner.request(method, url, headers={**(headers or {}), **ours}, **rest)
        return response
