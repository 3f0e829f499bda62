"""Signing for requests and niquests: an auth hook, and a response hook for what is refused or redirected."""

from __future__ import annotations

import asyncio
import inspect
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from hsm_keys.errors import UsageError
from hsm_keys.signing.auth_target import BoundToOrigin, refuse_plain_proxy
from hsm_keys.signing.flow import in_thread
from hsm_keys.signing.signed_headers import signed_headers_of, values_of, without_signed

if TYPE_CHECKING:
    from hsm_keys.signing.signed_headers import HeadersToSend

__all__ = ["RequestsAuth"]

_LIBRARIES: Final = ("requests", "niquests")
_MOST_REFUSALS: Final = 12  # more than a chain of redirects and a rotation need


class RequestsAuth(BoundToOrigin):
    """The auth hook. Whatever it can't sign it refuses."""

    def __call__(self, request: Any) -> Any:
        """Have a prepared request signed when it is sent (called by the session).

        Raises:
            UsageError: If it goes elsewhere, through a proxy that could read the signature, or isn't one of requests
                or niquests.
        """
        library = _library_of(request)
        path = self.path_to_sign(request.url)
        request.url = _with_path(request.url, path)
        if urlsplit(request.url).scheme == "http":
            proxies = library.utils.get_environ_proxies(request.url)
            if library.utils.select_proxy(request.url, proxies):
                refuse_plain_proxy()
        _attach(request, self.headers_to_send(request.method, path))
        request.register_hook("response", self._answered)
        if hasattr(request, "_asynchronous_auth") and _in_event_loop():
            # An AsyncSession of niquests awaits this before it sends; a Session that is used in a loop doesn't.
            request._asynchronous_auth, request._pending_async_auth = True, self._made_aside  # noqa: SLF001
        return request

    async def _made_aside(self, request: Any) -> Any:
        """Sign in a thread: the event loop runs on."""
        signed = self.headers_to_send(request.method, urlsplit(request.url).path, live=False)
        await in_thread(signed.make)
        _attach(request, signed)
        request.deregister_hook("response", self._answered)
        request.register_hook("response", self._answered_async)
        return request

    def _answered(self, response: Any, **options: Any) -> Any:
        send = getattr(response.connection, "send", None)
        prepared = None if inspect.iscoroutinefunction(send) else self._prepared_again(response)
        _look_back(response)
        if prepared is None:
            return response
        _ = response.content  # reads what is left, so that the connection can be used again
        response.close()
        answer = response.connection.send(prepared, **options)
        return _after(answer, response, prepared, self._answered(answer, **options))

    async def _answered_async(self, response: Any, **options: Any) -> Any:
        refused = response.status_code == HTTPStatus.UNAUTHORIZED
        prepared = await in_thread(self._prepared_again, response) if refused else None
        _look_back(response)
        if prepared is None:
            return response
        await response.raw.drain_conn()
        answer = await response.connection.send(prepared, **options)
        return _after(answer, response, prepared, await self._answered_async(answer, **options))

    def _prepared_again(self, response: Any) -> Any | None:
        """Return the request to send after a refusal; None if the answer stands."""
        request = response.request
        signed = signed_headers_of(request.headers)
        if signed is None:  # a redirect brought it here, and left the signed headers behind
            if response.status_code != HTTPStatus.UNAUTHORIZED or not self.is_at_home(request.url):
                return None
            if len(response.history) >= _MOST_REFUSALS or not _is_replayable(request):
                return None
            path = self.path_to_sign(request.url)
            signed = self.headers_to_send(request.method, path)
            again = request.copy()
            again.url = _with_path(request.url, path)
        elif _is_replayable(request) and signed.go_again(response.status_code):
            again = request.copy()
        else:
            return None
        _attach(again, signed)
        return again


def _library_of(request: Any) -> Any:
    for name in _LIBRARIES:
        library = sys.modules.get(name)
        if library is not None and isinstance(request, library.PreparedRequest):
            return library
    raise UsageError(
        f"signer.auth() can't sign a {type(request).__module__}.{type(request).__qualname__}, so it isn't sent",
        hint="it serves requests, niquests, httpx and httpx2; for others there is signer.headers(method, path)",
    )


def _attach(request: Any, signed: HeadersToSend) -> None:
    request.headers.update(values_of(signed))


def _look_back(response: Any) -> None:
    """Show what was sent; take it off a request that is redirected, as what follows is made from a copy of it."""
    request = response.request
    signed = signed_headers_of(request.headers)
    if response.is_redirect:
        request.headers = without_signed(request.headers)
    elif signed is not None:
        _attach(request, signed)


def _after(answer: Any, refused: Any, prepared: Any, final: Any) -> Any:
    """Note in an answer what came before it, as these libraries do."""
    answer.history.append(refused)
    answer.request = prepared
    return final


def _with_path(url: str, path: str) -> str:
    parts = urlsplit(url)
    return url if parts.path == path else parts._replace(path=path).geturl()


def _is_replayable(request: Any) -> bool:
    return isinstance(request.body, bytes | str | None)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
