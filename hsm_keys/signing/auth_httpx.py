"""Signing for httpx and httpx2: an auth flow, and a trace that sees each sending."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.signing.auth_target import BoundToOrigin, is_proxied_by_environment, refuse_plain_proxy
from hsm_keys.signing.flow import in_thread
from hsm_keys.signing.headers import SIGNED_HEADERS
from hsm_keys.signing.signed_headers import beside, signed_headers_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from hsm_keys.signing.signed_headers import HeadersToSend

__all__ = ["HttpxAuth"]

_MOST_REFUSALS: Final = 12  # more than a chain of redirects and a rotation need
_NAMES: Final = frozenset(name.lower().encode() for name in SIGNED_HEADERS)


class HttpxAuth(BoundToOrigin):
    """The auth flows."""

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Sign a request, and what its answers ask for (called by the client)."""
        return self._flow(request, _trace)

    def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Do the same for an auth object that wraps this one: httpx's own class has a flow that signs nothing here.

        It can't tell a sync client from an async one, so that nothing sees each sending.

        Raises:
            UsageError: If the environment sends it through a proxy that could read the signature.
        """
        if request.url.scheme == "http" and is_proxied_by_environment(str(request.url)):
            refuse_plain_proxy()
        return self._flow(request, None)

    def _flow(self, request: Any, trace: Callable[..., Any] | None) -> Generator[Any, Any, None]:
        to_send: Any = self._signed(request, trace)
        for _ in range(_MOST_REFUSALS):
            response = yield to_send
            to_send = self._signed_again(response, trace)
            if to_send is None:
                return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Sign in a thread, so that the event loop runs on while a token signs (called by the client)."""
        taken = self.signer.take(request.method, self.path_to_sign(str(request.url)))
        if taken is None:
            to_send = await in_thread(self._signed, request, _async_trace)
        else:
            to_send = self._signed(request, _async_trace, taken)
        for _ in range(_MOST_REFUSALS):
            response = yield to_send
            if response.status_code != HTTPStatus.UNAUTHORIZED:
                return
            to_send = await in_thread(self._signed_again, response, _async_trace)
            if to_send is None:
                return

    def _signed(self, request: Any, trace: Callable[..., Any] | None, taken: dict[str, str] | None = None) -> Any:
        path = self.path_to_sign(str(request.url))
        wire_path, mark, query = request.url.raw_path.partition(b"?")
        if wire_path != path.encode("ascii"):
            request.url = request.url.copy_with(raw_path=path.encode("ascii") + mark + query)
        signed = self.headers_to_send(request.method, path, taken=taken)
        signed.make()
        request.headers = beside(request.headers, signed)
        if trace is not None:
            sees = partial(trace, _Sending(signed, request.url), request.extensions.get("trace"))
            request.extensions = {**request.extensions, "trace": sees}
        return request

    def _signed_again(self, response: Any, trace: Callable[..., Any] | None) -> Any | None:
        """Return the request to send after a refusal; None if the answer stands."""
        request = response.request
        if response.status_code != HTTPStatus.UNAUTHORIZED or not _is_replayable(request):
            return None
        signed = signed_headers_of(request.headers)
        if signed is None:  # a redirect brought it here, and left the signed headers behind
            return self._signed(request, trace) if self.is_at_home(str(request.url)) else None
        return request if signed.go_again(response.status_code) else None


class _Sending:
    """What is to be seen to when httpcore connects and sends.

    Args:
        signed: The headers.
        url: Where the request goes.
    """

    def __init__(self, signed: HeadersToSend, url: Any) -> None:
        self.signed = signed
        self._plain = url.scheme == "http"
        self._origin = url.raw_scheme, url.raw_host, url.port

    def request_with_headers(self, event: str, info: dict[str, Any]) -> Any | None:
        """Return httpcore's request if its head is about to be sent, with signed headers.

        Raises:
            UsageError: If it is sent to somebody else, or over plain HTTP through a SOCKS proxy.
        """
        if self._plain and event.startswith("socks."):
            refuse_plain_proxy()
        if not event.endswith(".send_request_headers.started"):
            return None
        request = info["request"]
        if not any(name.lower() in _NAMES for name, _ in request.headers):
            return None  # what opens a tunnel, and what a redirect leads to
        if (request.url.scheme, request.url.host, request.url.port) != self._origin:
            refuse_plain_proxy()
        return request

    def put(self, request: Any) -> None:
        """Put in what is sent now."""
        ours = [(name.encode(), value.encode()) for name, value in self.signed.to_send().items()]
        request.headers = [pair for pair in request.headers if pair[0].lower() not in _NAMES] + ours


def _trace(sending: _Sending, other: Callable[..., object] | None, event: str, info: dict[str, Any]) -> None:
    """Do what is due before httpcore connects or sends; see its ``trace`` extension."""
    if other is not None:
        other(event, info)
    request = sending.request_with_headers(event, info)
    if request is not None:
        sending.put(request)


async def _async_trace(
    sending: _Sending, other: Callable[..., Awaitable[object]] | None, event: str, info: dict[str, Any]
) -> None:
    """Do the same, and sign in a thread."""
    if other is not None:
        await other(event, info)
    request = sending.request_with_headers(event, info)
    if request is None:
        return
    if sending.signed.must_be_made():
        await in_thread(sending.signed.make)
    sending.put(request)


def _is_replayable(request: Any) -> bool:
    """Tell whether the body of a request can be sent again; one that is streamed is gone."""
    library = import_module(type(request).__module__.partition(".")[0])
    return isinstance(request.stream, library.ByteStream)
