"""kalshi-python-sync and kalshi-python-async, signing with a key in a store.

The SDKs let a client's ``kalshi_auth`` be replaced, and would then sign every request twice, -async on the event
loop. ``rest_client``, which each request passes last, is the better place: one signature a request, over the path
that goes out, and -async can wait for it without blocking the loop.
"""

from __future__ import annotations

import inspect
from functools import partial
from http import HTTPStatus
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hsm_keys.errors import UsageError
from hsm_keys.integrations.versions import check_version, sdk_of, tried
from hsm_keys.signing.auth_target import is_proxied_by_environment, refuse_plain_proxy
from hsm_keys.signing.environments import check_origin
from hsm_keys.signing.flow import asend_signed, signing_flow
from hsm_keys.signing.headers import SIGNED_HEADERS
from hsm_keys.signing.signed_headers import HeadersToSend, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hsm_keys.signing.signer import RequestSigner

__all__ = ["sign_with"]

Client = TypeVar("Client")

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
        WrongEnvironmentError: If the client's host is another environment than the key's.
    """
    sdk = sdk_of(client)
    check_version(sdk)
    changed: Any = client
    host = getattr(getattr(changed, "configuration", None), "host", None)
    if isinstance(host, str):
        check_origin(signer.key.name, signer.environment, host)
    inner = getattr(changed, "rest_client", None)
    if isinstance(inner, _Signing):
        inner = inner.inner
    request = getattr(inner, "request", None)
    if not callable(request) or not inspect.signature(request).parameters.keys() >= _NEEDED:
        raise UsageError(
            f"{sdk.distribution} sends its requests in a way that hsm-keys doesn't know",
            hint=f"use one of the versions that were tried: {tried(sdk)}",
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
    """The SDK's urllib3 encodes the headers when it sends them, each time that it does: they are signed then."""

    def __init__(self, inner: Any, signer: RequestSigner) -> None:
        super().__init__(inner, signer)
        from urllib3.util import Retry

        options = inner.pool_manager.connection_pool_kw
        retries = Retry.from_int(options.get("retries"))
        dropped = retries.remove_headers_on_redirect | {name.lower() for name in SIGNED_HEADERS}
        options["retries"] = retries.new(remove_headers_on_redirect=dropped)  # to other hosts

    @staticmethod
    def path_of(url: str) -> str:
        """Return the path that urllib3 sends: it normalises what it is given."""
        from urllib3.util import parse_url

        return parse_url(url).path or "/"

    def request(self, method: str, url: str, headers: Mapping[str, str] | None = None, **rest: Any) -> Any:
        if url.startswith("http:") and getattr(self.inner.pool_manager, "proxy", None):
            refuse_plain_proxy()
        signed = HeadersToSend(partial(signing_flow, self.signer, method, self.path_of(url)))
        while True:
            # A copy each time: the SDK changes what it is given.
            response = self.inner.request(method, url, headers={**(headers or {}), **values_of(signed)}, **rest)
            if not signed.go_again(response.status):
                return response
            response.read()


class _SigningAsync(_Signing):
    @staticmethod
    def path_of(url: str) -> str:
        """Return the path that aiohttp sends: it normalises what it is given."""
        from yarl import URL

        return URL(url).raw_path

    async def request(self, method: str, url: str, headers: Mapping[str, str] | None = None, **rest: Any) -> Any:
        if url.startswith("http:") and (self.inner.proxy or is_proxied_by_environment(url)):
            refuse_plain_proxy()
        if self.inner.pool_manager is None:
            self.inner.pool_manager = self._session()

        async def send(ours: dict[str, str]) -> Any:
            response = await self.inner.request(method, url, headers={**(headers or {}), **ours}, **rest)
            if response.status == HTTPStatus.UNAUTHORIZED:
                await response.read()
            return response

        return await asend_signed(self.signer, method, self.path_of(url), send, attrgetter("status"))

    def _session(self) -> Any:
        """Return a session as the SDK makes one, which takes no signed headers along when it is redirected."""
        import aiohttp

        async def drop(_session: object, _context: object, redirect: aiohttp.TraceRequestRedirectParams) -> None:
            for name in SIGNED_HEADERS:
                redirect.headers.popall(name, None)

        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(drop)
        connector = aiohttp.TCPConnector(limit=self.inner.maxsize, ssl=self.inner.ssl_context)
        return aiohttp.ClientSession(connector=connector, trust_env=True, trace_configs=[trace])
