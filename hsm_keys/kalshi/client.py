"""Clients that sign each request right before it is sent. What is signed is what goes over the wire."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any, Final, Self

import httpx2
import stamina

from hsm_keys._version import __version__
from hsm_keys.arguments import takes_no_private_key
from hsm_keys.errors import HsmKeysError, NetworkError, OutcomeUnknownError, UsageError
from hsm_keys.kalshi.api_keys import ApiKeysResource, AsyncApiKeysResource
from hsm_keys.kalshi.bodies import clean, read_json
from hsm_keys.kalshi.bootstrap import bootstrap_key_from_env
from hsm_keys.kalshi.bootstrap_variables import VARIABLES
from hsm_keys.kalshi.errors import error_of, garbled
from hsm_keys.kalshi.surroundings import client_options, why_not_trusted
from hsm_keys.kalshi.whole_answer import AnswerTooLargeError, read_whole, read_whole_async
from hsm_keys.logs import log_request
from hsm_keys.network_errors import why_not_reached
from hsm_keys.network_proxies import network_proxy
from hsm_keys.signing.environments import check_environment, environment_name, resolve
from hsm_keys.signing.flow import asend_signed, send_signed, signing_flow
from hsm_keys.signing.headers import SIGNED_HEADERS
from hsm_keys.signing.message import canonical_method, canonical_path
from hsm_keys.signing.pem import PemKey
from hsm_keys.signing.signer import RequestSigner
from hsm_keys.values import describe, hides_its_arguments, shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = ["AsyncKalshiClient", "KalshiClient"]

_TIMEOUT: Final = httpx2.Timeout(10.0, connect=5.0)  # seconds; read, write and pool wait 10
_ATTEMPTS: Final = 3
_BUDGET: Final = 15.0  # seconds after which a failed GET isn't tried again
# ProxyError is raised while the tunnel is set up; the request would be sent only after that.
_NOT_SENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
_TRANSIENT: Final = frozenset({429, 500, 502, 503, 504})
_OURS: Final = frozenset(name.lower() for name in (*SIGNED_HEADERS, "Host"))
# RFC 9110, sections 5.6.2 (a token) and 5.5 (visible ASCII, spaces inside).
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class _TransientStatusError(Exception):
    """A GET was answered with a status that may pass; carries the answer through the retry."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class _Base:
    """What both clients share: everything but the sending."""

    def __init__(
        self,
        signer: RequestSigner,
        *,
        base_url: str | None = None,
        environment: str | None = None,
        exchange: str | None = None,
    ) -> None:
        self.signer = signer
        self.base_url: Final = resolve(base_url=base_url, environment=environment, exchange=exchange)
        self.exchange: Final = exchange
        self.environment: Final = environment_name(self.base_url, exchange=exchange)
        check_environment(signer.key.name, signer.environment, self.environment)
        url = httpx2.URL(self.base_url)
        self._prefix = url.path
        self._origin = self.base_url.removesuffix(self._prefix)

    @classmethod
    @hides_its_arguments
    def from_private_key(
        cls,
        api_key_id: str,
        pem: str | bytes,
        *,
        passphrase: str | None = None,
        base_url: str | None = None,
        environment: str | None = None,
        exchange: str | None = None,
    ) -> Self:
        """Return a client that signs with a PEM: the bootstrap key.

        Raises:
            UsageError: If the PEM can't be read.
        """
        key = PemKey(api_key_id, pem, None if passphrase is None else lambda: passphrase)
        return cls(RequestSigner(key), base_url=base_url, environment=environment, exchange=exchange)

    @classmethod
    @hides_its_arguments
    def from_env(
        cls,
        env: Mapping[str, str] = os.environ,
        *,
        exchange: str | None = None,
        ask_passphrase: Callable[[str], str] | None = None,
    ) -> Self:
        """Return a client that signs with the bootstrap key of the environment; see ``bootstrap_key_from_env``.

        Raises:
            UsageError: If the environment holds no key, or only a part of one.
        """
        signer = RequestSigner(_required_bootstrap(env, exchange, ask_passphrase))
        return cls(signer, base_url=resolve(exchange=exchange, env=env), exchange=exchange)

    def _url(self, path: str, params: Mapping[str, str] | None) -> tuple[httpx2.URL, str]:
        """Return the URL to send to, and the path to sign."""
        bare, mark, query = path.partition("?")
        signed = canonical_path(bare)
        if not signed.startswith("/trade-api/"):
            signed = canonical_path(f"{self._prefix}{signed}")
        try:
            url = httpx2.URL(f"{self._origin}{signed}{mark}{query}")
            if params:  # only then: merging writes the whole query anew
                url = url.copy_merge_params(dict(params))
        except httpx2.InvalidURL:
            raise UsageError("the query can't be sent as it is", hint="percent-encode it") from None
        if url.raw_path.partition(b"?")[0] != signed.encode("ascii") or url.fragment:
            raise UsageError(f"{shown_path(path)} would be sent differently than it is signed", hint="leave '#' out")
        return url, signed

    def _options(self, timeout: float | httpx2.Timeout) -> dict[str, Any]:
        return {
            "timeout": timeout,
            "follow_redirects": False,  # a redirect would carry signed headers elsewhere
            "headers": {"User-Agent": f"hsm-keys/{__version__}"},
        }

    def _explained(self, error: httpx2.HTTPError | httpx2.InvalidURL, method: str, path: str) -> HsmKeysError:
        """Return our error for one of httpx2's: was anything sent, and could it have been carried out?"""
        path = shown_path(path)
        what = f"{method} {path}: {type(error).__name__}"
        if isinstance(error, _NOT_SENT):
            # Nothing was sent, so the error's text can't hold anything of the request.
            why = why_not_reached(error) or clean(str(error))
            proxy = network_proxy(self.base_url)
            hint = "check the network and the base URL"
            if proxy is not None:
                hint += f", and {proxy.variable}, which names a proxy for https"
            return NetworkError(
                f"Kalshi can't be reached for {what}{f' ({why})' if why else ''}; nothing was sent",
                hint=why_not_trusted(error) or hint,
            )
        if isinstance(error, AnswerTooLargeError):
            what = f"{method} {path} that can be read: it is {error}"
        if method == "GET":
            return NetworkError(f"no answer from Kalshi to {what}", hint="check the network, then try again")
        return OutcomeUnknownError(
            f"no answer from Kalshi to {what}; it may have been carried out",
            hint="look at Kalshi whether it was, before you send it again: such a request is never repeated by itself",
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r}, signer={self.signer!r})"


def _checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    for name, value in (headers or {}).items():
        if name.lower() in _OURS:
            raise UsageError(
                f"the header {name} can't be set", hint="leave it out: it follows from the key and the URL"
            )
        if not _HEADER_NAME.fullmatch(name):
            raise UsageError(
                f"{describe(name)} can't be sent as a header's name", hint="use letters, digits and dashes"
            )
        if not _HEADER_VALUE.fullmatch(value):
            raise UsageError(f"the value of the header {name} can't be sent", hint="use printable ASCII")
    return dict(headers or {})


def _attempts() -> Any:
    """Return the attempts at a GET: three at most, and no further one when 15 seconds are over."""
    return stamina.retry_context(
        on=(_TransientStatusError, httpx2.TransportError),
        attempts=_ATTEMPTS,
        timeout=_BUDGET,
        wait_initial=0.2,
        wait_max=2.0,
    )


def _unless_transient(response: httpx2.Response) -> httpx2.Response:
    if response.status_code in _TRANSIENT:
        raise _TransientStatusError(response)
    return response


def _begun(request: httpx2.Request, path: str) -> float:
    """Log what is sent, without its query; return the time."""
    log_request("Kalshi", f"{request.method} {shown_path(path)}")
    return time.monotonic()


def _logged(response: httpx2.Response, began: float) -> httpx2.Response:
    log_request("Kalshi", f"answered {response.status_code} after {(time.monotonic() - began) * 1000:.0f} ms")
    return response


def _status(response: httpx2.Response) -> int:
    return response.status_code


def _json(response: httpx2.Response) -> Any:
    if not response.is_success:
        raise error_of(response)
    answer = read_json(response)
    if answer is None:
        raise garbled(response, "is no JSON")
    return answer


class KalshiClient(_Base):
    """A client for Kalshi's REST API that signs with one key. Close it, or use it as a context manager.

    Args:
        signer: Signs the requests: ``store.key("prod").signer()``.
        base_url: Kalshi's base URL; https, or http to loopback.
        environment: ``prod`` or ``demo``, instead of a base URL. With neither, ``KALSHI_API_BASE_URL`` and
            ``KALSHI_DEMO`` are read, and production is the default.
        exchange: ``perps`` for a key of the exchange for perpetual futures.
        timeout: Seconds to wait for a connection, for sending and for each part of an answer; by default 5 for
            the connection and 10 for the others.
        transport: Sends the requests instead of httpx2's own transport.

    Attributes:
        api_keys: The key endpoints.
        environment: The name of the environment, as stores keep it beside a key.

    Raises:
        UsageError: If the base URL isn't valid.
        WrongEnvironmentError: If the signer's key is registered in another environment.
    """

    @takes_no_private_key
    def __init__(
        self,
        signer: RequestSigner,
        *,
        base_url: str | None = None,
        environment: str | None = None,
        exchange: str | None = None,
        timeout: float | httpx2.Timeout = _TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(signer, base_url=base_url, environment=environment, exchange=exchange)
        way = client_options(self.base_url) if transport is None else {}
        self._http = httpx2.Client(transport=transport, **self._options(timeout), **way)
        self.api_keys = ApiKeysResource(self)

    @takes_no_private_key
    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a signed request and return the answer, whatever its status.

        A GET is tried up to three times, each time with a fresh timestamp. Other requests are repeated in one case
        only: after a 401, if the key was rotated meanwhile, with a signature of the new key.

        Args:
            method: HTTP method.
            path: ``/portfolio/balance``, or with its prefix ``/trade-api/v2/portfolio/balance``. A query may follow.
            params: Further query parameters.
            json: A body to send as JSON.
            content: A body to send as it is.
            headers: Further headers, in printable ASCII.

        Raises:
            UsageError: If the method or path can't be signed, or a header can't be sent; nothing was sent.
            NetworkError: If Kalshi couldn't be reached, or didn't answer a GET; nothing was changed.
            OutcomeUnknownError: If there was no answer to any other request: it may have been carried out.
            HsmKeysError: The store's error, if it can't sign.
        """
        method = canonical_method(method)
        url, signed = self._url(path, params)
        request = self._http.build_request(method, url, json=json, content=content, headers=_checked_headers(headers))
        try:
            if method != "GET":
                return self._send(request, signed)
            for attempt in _attempts():
                with attempt:
                    response = _unless_transient(self._send(request, signed))
        except _TransientStatusError as error:
            return error.response
        except httpx2.HTTPError as error:
            raise self._explained(error, method, signed) from None
        return response

    @takes_no_private_key
    def prepare(self, method: str, path: str, *, json: Any = None) -> Callable[[], httpx2.Response]:
        """Sign a request now, and return a function that sends it once and doesn't sign it again.

        So Kalshi refuses the request (401) if it is sent much later.

        Args:
            method: HTTP method.
            path: As for ``request``.
            json: A body to send as JSON.

        Raises:
            UsageError: If the method or path can't be signed.
        """
        method = canonical_method(method)
        url, signed = self._url(path, None)
        request = self._http.build_request(method, url, json=json)
        request.headers.update(self.signer.headers(method, signed))

        def send() -> httpx2.Response:
            try:
                return self._send_once(request, signed)
            except httpx2.HTTPError as error:
                raise self._explained(error, method, signed) from None

        return send

    def _send(self, request: httpx2.Request, signed: str) -> httpx2.Response:
        def send(headers: dict[str, str]) -> httpx2.Response:
            request.headers.update(headers)
            return self._send_once(request, signed)

        return send_signed(signing_flow(self.signer, request.method, signed), send, _status)

    def _send_once(self, request: httpx2.Request, signed: str) -> httpx2.Response:
        began = _begun(request, signed)
        return _logged(read_whole(self._http.send(request, stream=True), began), began)

    @takes_no_private_key
    def get_json(self, path: str) -> Any:
        """Return the JSON of a GET.

        Args:
            path: As for ``request``.

        Raises:
            KalshiError: If Kalshi refuses.
            NetworkError: If there is no answer, or it isn't JSON.
        """
        return _json(self.request("GET", path))

    def close(self) -> None:
        """Close the connections. The store of the key stays open."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncKalshiClient(_Base):
    """``KalshiClient`` with awaitables, for asyncio and trio. It signs in a thread, so a token doesn't block the loop.

    Arguments, attributes and errors are those of ``KalshiClient``.
    """

    @takes_no_private_key
    def __init__(
        self,
        signer: RequestSigner,
        *,
        base_url: str | None = None,
        environment: str | None = None,
        exchange: str | None = None,
        timeout: float | httpx2.Timeout = _TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(signer, base_url=base_url, environment=environment, exchange=exchange)
        way = client_options(self.base_url) if transport is None else {}
        self._http = httpx2.AsyncClient(transport=transport, **self._options(timeout), **way)
        self.api_keys = AsyncApiKeysResource(self)

    @takes_no_private_key
    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a signed request and return the answer, whatever its status; see ``KalshiClient.request``."""
        method = canonical_method(method)
        url, signed = self._url(path, params)
        request = self._http.build_request(method, url, json=json, content=content, headers=_checked_headers(headers))
        try:
            if method != "GET":
                return await self._send(request, signed)
            async for attempt in _attempts():
                with attempt:
                    response = _unless_transient(await self._send(request, signed))
        except _TransientStatusError as error:
            return error.response
        except httpx2.HTTPError as error:
            raise self._explained(error, method, signed) from None
        return response

    async def _send(self, request: httpx2.Request, signed: str) -> httpx2.Response:
        async def send(headers: dict[str, str]) -> httpx2.Response:
            request.headers.update(headers)
            began = _begun(request, signed)
            return _logged(await read_whole_async(await self._http.send(request, stream=True), began), began)

        return await asend_signed(self.signer, request.method, signed, send, _status)

    async def aclose(self) -> None:
        """Close the connections. The store of the key stays open."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _required_bootstrap(env: Mapping[str, str], exchange: str | None, ask: Callable[[str], str] | None) -> PemKey:
    key = bootstrap_key_from_env(env, exchange=exchange, ask_passphrase=ask)
    if key is None:
        raise UsageError("the environment holds no bootstrap key", hint=f"set {VARIABLES[exchange].to_set}")
    return key
