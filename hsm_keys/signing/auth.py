"""One authentication object for requests, niquests, httpx and httpx2, in sync and async programs.

It signs right before a request is sent, the path exactly as it goes over the wire, and it signs anew whenever a
request is sent again: after a redirect (to the same origin, never to another), by a retrying transport, after a
rotation, or because the headers grew old before Kalshi saw them. All of these are safe: what Kalshi answers with
401 it hasn't carried out.

The signed headers are no part of a request's own headers (``carried``), so that no library takes them along to a place
that they weren't made for.
"""

from __future__ import annotations

import asyncio
import sys
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from hsm_keys.errors import UsageError
from hsm_keys.signing.carried import Stamp, carrying, stamp_of, without_stamp
from hsm_keys.signing.environments import resolve
from hsm_keys.signing.message import REST_PREFIX, canonical_path

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from hsm_keys.signing.signer import RequestSigner

__all__ = ["KalshiAuth", "kalshi_auth"]

_REFUSED: Final = 401
_ATTEMPTS: Final = 12  # more than a chain of redirects and a rotation need
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_FLOW_LIBRARIES: Final = ("httpx2", "httpx")


class KalshiAuth:
    """Signs the requests of an HTTP client. Made by ``signer.auth()``.

    Args:
        signer: Signs.
        base_url: The one origin that signed headers are sent to.
    """

    def __init__(self, signer: RequestSigner, base_url: str) -> None:
        self.signer = signer
        self.base_url = base_url
        self._origin = _origin(base_url)

    def _target(self, url: str) -> str:
        """Return the path to sign.

        Raises:
            UsageError: If the URL is somewhere else than in the configured environment.
        """
        if _origin(url) != self._origin:
            raise UsageError(
                f"a signed request may only go to {self.base_url.removesuffix(REST_PREFIX)}, and this one goes to "
                f"{_shown(url)}",
                hint="check the URL; another environment is chosen with signer.auth(environment=...) or base_url=...",
            )
        return urlsplit(url).path

    def _sign(self, method: str, path: str) -> dict[str, str]:
        return self.signer.headers(method, path)

    # httpx and httpx2

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Sign a request of httpx or httpx2, and what its answers ask for (called by the client)."""
        stamped: Any = self._stamped(request, live=True)
        for _ in range(_ATTEMPTS):
            response = yield stamped
            stamped = self._again(response, live=True)
            if stamped is None:
                return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Sign in a thread, so that the event loop runs on while a token signs (called by the client)."""
        from anyio import to_thread

        taken = self.signer.take(request.method, self._target(str(request.url)))
        stamped: Any
        if taken is None:
            stamped = await to_thread.run_sync(partial(self._stamped, request, live=False))
        else:
            stamped = self._stamped(request, live=False, headers=taken)
        for _ in range(_ATTEMPTS):
            response = yield stamped
            if response.status_code != _REFUSED:
                return
            stamped = await to_thread.run_sync(partial(self._again, response, live=False))
            if stamped is None:
                return

    def _stamped(self, request: Any, *, live: bool, headers: dict[str, str] | None = None) -> Any:
        path = self._target(str(request.url))
        canonical = canonical_path(path)
        if canonical != path:
            wire = request.url.raw_path.replace(path.encode("ascii"), canonical.encode("ascii"), 1)
            request.url = request.url.copy_with(raw_path=wire)
        stamp = Stamp(partial(self._sign, request.method, canonical), live=live, headers=headers)
        request.headers = carrying(request.headers, stamp)
        return request

    def _again(self, response: Any, *, live: bool) -> Any | None:
        """Return the request to send after a refusal; None if the refusal stands."""
        request = response.request
        if response.status_code != _REFUSED or not _replayable(request):
            return None
        stamp = stamp_of(request.headers)
        if stamp is None:  # a redirect brought it here, and left the signed headers behind
            return self._stamped(request, live=live) if _origin(str(request.url)) == self._origin else None
        return request if stamp.renew(self.signer) else None

    # requests and niquests

    def __call__(self, request: Any) -> Any:
        """Sign a prepared request of requests or niquests (called by the session)."""
        canonical = canonical_path(self._target(request.url))
        request.url = _with_path(request.url, canonical)
        if _in_event_loop() and hasattr(request, "_asynchronous_auth"):
            # niquests awaits this before it sends; its sync sessions don't, and are served by the hook.
            request._asynchronous_auth, request._pending_async_auth = True, self._sign_aside  # noqa: SLF001
            request.register_hook("response", self._answered_async)
            return request
        stamp = Stamp(partial(self._sign, request.method, canonical), live=True)
        request.headers = carrying(request.headers, stamp)
        request.register_hook("response", self._answered)
        return request

    async def _sign_aside(self, request: Any) -> Any:
        path = urlsplit(request.url).path
        headers = await self.signer.aheaders(request.method, path)
        stamp = Stamp(partial(self._sign, request.method, path), live=False, headers=headers)
        request.headers = carrying(request.headers, stamp)
        return request

    def _answered(self, response: Any, **options: Any) -> Any:
        _take_off(response)
        prepared = self._prepared_again(response, live=True)
        if prepared is None:
            return response
        _ = response.content  # reads what is left, so that the connection can be used again
        response.close()
        answer = response.connection.send(prepared, **options)
        return _after(answer, response, prepared, self._answered(answer, **options))

    async def _answered_async(self, response: Any, **options: Any) -> Any:
        _take_off(response)
        if response.status_code != _REFUSED:
            return response
        prepared = await asyncio.to_thread(self._prepared_again, response, live=False)
        if prepared is None:
            return response
        await response.raw.drain_conn()
        answer = await response.connection.send(prepared, **options)
        return _after(answer, response, prepared, await self._answered_async(answer, **options))

    def _prepared_again(self, response: Any, *, live: bool) -> Any | None:
        request = response.request
        if response.status_code != _REFUSED or not isinstance(request.body, bytes | str | None):
            return None
        stamp = stamp_of(request.headers)
        if stamp is None:
            if _origin(request.url) != self._origin or len(response.history) >= _ATTEMPTS:
                return None
            stamp = Stamp(partial(self._sign, request.method, canonical_path(urlsplit(request.url).path)), live=live)
        elif not stamp.renew(self.signer):
            return None
        again = request.copy()
        again.url = _with_path(request.url, canonical_path(urlsplit(request.url).path))
        again.headers = carrying(again.headers, stamp)
        return again

    def __repr__(self) -> str:
        return f"KalshiAuth(signer={self.signer!r}, base_url={self.base_url!r})"


def _take_off(response: Any) -> None:
    """Take the signed headers off a request that is redirected: what follows is made from a copy of it."""
    if response.is_redirect:
        response.request.headers = without_stamp(response.request.headers)


def _after(answer: Any, refused: Any, prepared: Any, final: Any) -> Any:
    """Note in an answer what came before it, as these libraries do."""
    answer.history.append(refused)
    answer.request = prepared
    return final


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _with_path(url: str, path: str) -> str:
    parts = urlsplit(url)
    return url if parts.path == path else parts._replace(path=path).geturl()


def _replayable(request: Any) -> bool:
    """Tell whether the body of a request of httpx or httpx2 can be sent again; one that is streamed is gone."""
    library = import_module(type(request).__module__.partition(".")[0])
    return isinstance(request.stream, library.ByteStream)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@cache
def _class_for(bases: tuple[type, ...]) -> type[KalshiAuth]:
    return type("KalshiAuth", (KalshiAuth, *bases), {"__doc__": KalshiAuth.__doc__, "__module__": __name__})


def kalshi_auth(signer: RequestSigner, *, base_url: str | None = None, environment: str | None = None) -> KalshiAuth:
    """Return the authentication object; see ``RequestSigner.auth``."""
    # httpx takes an object for what it is by its class; so the class has httpx's Auth among its bases.
    present = [name for name in _FLOW_LIBRARIES if name in sys.modules or find_spec(name) is not None]
    bases = tuple(import_module(name).Auth for name in present)
    return _class_for(bases)(signer, resolve(base_url=base_url, environment=environment))
