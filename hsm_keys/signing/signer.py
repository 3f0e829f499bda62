"""``RequestSigner``: makes the three headers of a signed request with anything that can sign a message."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from base64 import b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from hsm_keys.arguments import takes_no_private_key
from hsm_keys.errors import CloudError, HsmKeysError, KeyNotRegisteredError, KeyProblemError, StoreError
from hsm_keys.forks import ProcessLock
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.signing.environments import check_origin
from hsm_keys.signing.flow import in_thread
from hsm_keys.signing.headers import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from hsm_keys.signing.message import WEBSOCKET_PATH, signing_message
from hsm_keys.signing.together import SignsTogether

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hsm_keys.signing.auth import KalshiAuth
    from hsm_keys.signing.presign import PresigningSigner

__all__ = [
    "DEFAULT_RATE",
    "MessageSigner",
    "RequestSigner",
    "not_registered",
    "now_ms",
]

DEFAULT_RATE: Final = 50.0
"""Signatures a second that are made ahead, at most."""


class MessageSigner(Protocol):
    """A key that signs requests: a key in a store, or a PEM in memory."""

    @property
    def name(self) -> str:
        """The key's name."""

    @property
    def api_key_id(self) -> str | None:
        """The API key id under which Kalshi knows the public half; None before it is registered."""

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature: RSASSA-PSS with SHA-256 and a salt of 32 bytes (RFC 8017), or Ed25519 (RFC 8032)."""


def not_registered(name: str, *, ours: bool) -> KeyNotRegisteredError:
    """Return the error for a key without an API key id.

    Args:
        name: The key's name.
        ours: Whether it is a key of hsm-keys, rather than one of another program.
    """
    if not ours:
        return KeyNotRegisteredError(
            f"the key {name!r} isn't ours, so its store doesn't say for which API key it signs",
            hint=f"give --api-key-id ID, or bind the id to it: hsm-keys adopt {shlex.quote(name)} --api-key-id ID",
        )
    return KeyNotRegisteredError(
        f"the key {name!r} has no API key id: Kalshi doesn't know it yet",
        hint=f"run `hsm-keys enroll --name {name}`, or `hsm-keys adopt {name} --api-key-id ID` if Kalshi has it",
    )


def now_ms() -> int:
    """Return the Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


_SLOW_S: Final = 3.0
"""A signature that took longer is made again with a fresh timestamp, as Kalshi accepts one for a few seconds only."""
_FOLLOW_S: Final = 30.0
"""Seconds of use after which a signer looks its name up again; a rotation's grace should be longer."""

_FRUITLESS_LOOKS: Final = 3
_LOOK_AGAIN_S: Final = 1.0
"""After three refusals without a successor, the name is looked up at most once a second: the key is probably dead."""

_log = logging.getLogger(__name__)
_looking = ProcessLock()


class RequestSigner:
    """Signs Kalshi requests with a key, or after a rotation with the key that has its name then.

    Args:
        key: The key.
        api_key_id: The API key id to sign for; by default the key's own.
        clock: Returns the Unix time in milliseconds.
        follow: Returns the key that has the name now. With it, the signer follows rotations: it looks the name up in
            the background after 30 seconds of use, and at once when Kalshi refuses the key.

    Raises:
        KeyNotRegisteredError: If there is no API key id.
        UsageError: If ``api_key_id`` isn't an API key id.
    """

    __slots__ = ("_clock", "_environment", "_follow", "_fruitless", "_left_alone", "_live", "_look_at", "_looked_at")

    @takes_no_private_key
    def __init__(
        self,
        key: MessageSigner,
        *,
        api_key_id: str | None = None,
        clock: Callable[[], int] = now_ms,
        follow: Callable[[], MessageSigner] | None = None,
    ) -> None:
        resolved = check_api_key_id(api_key_id) if api_key_id else key.api_key_id
        if resolved is None:
            raise not_registered(key.name, ours=getattr(key, "ours", True))
        # One tuple, replaced as a whole, so that an id is never used with another key's signature.
        self._live = (resolved, key.sign, key)
        # The environment in the key's store belongs to the id in the store, not to another id.
        self._environment: str | None = getattr(key, "environment", None) if resolved == key.api_key_id else None
        self._clock = clock
        self._follow = follow
        self._fruitless = 0
        self._left_alone: str | None = None
        self._looked_at = float("-inf")
        self._look_at = time.monotonic() + _FOLLOW_S if follow else float("inf")

    @property
    def api_key_id(self) -> str:
        """The API key id of the signed requests."""
        return self._live[0]

    @property
    def environment(self) -> str | None:
        """The environment in which the API key is registered, as ``environment_name`` gives it; None if unknown."""
        return self._environment

    @property
    def key(self) -> MessageSigner:
        """The key that signs now."""
        return self._live[2]

    @takes_no_private_key
    def headers(self, method: str, path: str, *, timestamp_ms: int | None = None) -> dict[str, str]:
        """Return the three headers that authenticate one request.

        Args:
            method: HTTP method.
            path: Absolute path as it goes over the wire, with its ``/trade-api/...`` prefix. A query is
                not signed.
            timestamp_ms: Unix time in milliseconds; by default the clock is read right before signing.
                Kalshi accepts headers for a few seconds: use them at once.

        Returns:
            ``KALSHI-ACCESS-KEY``, ``KALSHI-ACCESS-TIMESTAMP`` (in milliseconds) and ``KALSHI-ACCESS-SIGNATURE`` (in
            base64).

        Raises:
            UsageError: If the method or the path can't be signed.
            HsmKeysError: The store's error, if it can't sign.
        """
        begun = time.monotonic()
        stamp = self._stamp(method, path) if timestamp_ms is None else timestamp_ms
        headers = self._headers_of(method, path, (stamp,))[0]
        if timestamp_ms is None and (
            time.monotonic() - begun > _SLOW_S  # the token was away, say
            or abs(self._clock() - stamp) > _SLOW_S * 1000  # the clock was set meanwhile, or the machine slept
        ):
            return RequestSigner.headers(self, method, path, timestamp_ms=self._stamp(method, path))
        return headers

    def _headers_of(self, method: str, path: str, stamps: Sequence[int]) -> list[dict[str, str]]:
        """Return the headers of requests for one route, one of each timestamp; see ``headers``."""
        if time.monotonic() >= self._look_at:
            self._look_aside()
        api_key_id, sign, key = self._live
        messages = [signing_message(stamp, method, path) for stamp in stamps]
        try:
            if len(messages) > 1 and isinstance(key, SignsTogether):
                signatures = key.sign_all(messages)
            else:
                signatures = [sign(message) for message in messages]
        except (KeyProblemError, StoreError, CloudError):  # its private half may have been destroyed since
            if not self.moved_on(api_key_id):
                raise
            return self._headers_of(method, path, stamps)
        return [
            {
                KEY_HEADER: api_key_id,
                TIMESTAMP_HEADER: str(stamp),
                SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
            }
            for stamp, signature in zip(stamps, signatures, strict=True)
        ]

    def take(self, method: str, path: str) -> dict[str, str] | None:  # noqa: ARG002 - for signers that sign ahead
        """Return headers that were signed ahead, without signing or blocking; this signer has none."""
        return None

    async def aheaders(self, method: str, path: str) -> dict[str, str]:
        """Return the same as ``headers``, but sign in a thread, so that the event loop (asyncio or trio) isn't blocked.

        Args:
            method: HTTP method.
            path: Absolute path as it goes over the wire.

        Raises:
            UsageError: If the method or the path can't be signed.
            HsmKeysError: The store's error, if it can't sign.
        """
        taken = self.take(method, path)
        if taken is not None:
            return taken
        return await in_thread(self.headers, method, path)

    @takes_no_private_key
    def websocket_headers(self, path: str = WEBSOCKET_PATH) -> dict[str, str]:
        """Return the three headers of a WebSocket handshake. Call this again for each connection.

        Args:
            path: The WebSocket's path, ``/trade-api/ws/v2`` or ``.../margin``; or its URL, as ``websocket_url`` gives
                it.

        Raises:
            UsageError: If the URL's host serves no WebSocket.
            HsmKeysError: The store's error, if it can't sign.
        """
        if "://" in path:
            from hsm_keys.signing.environments import websocket_path

            path = websocket_path(path)
        return self.headers("GET", path)

    def ahead(
        self,
        routes: Iterable[tuple[str, str]] = (),
        *,
        depth: int = 4,
        max_age: float = 1.0,
        rate: float = DEFAULT_RATE,
        learn: int = 0,
    ) -> PresigningSigner:
        """Return a signer for the same key that signs headers before they are needed; close it when done.

        It makes signatures that may not be used (``hsm_keys.signing.presign.presign_cost`` tells how many), and keeps
        headers in memory that anybody who reads them could use for their route, for some seconds.

        Args:
            routes: Methods and paths, such as ``("POST", "/trade-api/v2/portfolio/events/orders")``.
            depth: How many headers to keep for each route.
            max_age: Seconds after which headers aren't used any more; at most 3.
            rate: At most so many signatures a second are made ahead in each process.
            learn: At most so many further routes are added when they are used.

        Raises:
            UsageError: If a number is out of range, or a route can't be signed.
        """
        from hsm_keys.signing.presign import PresigningSigner

        api_key_id, _, key = self._live
        return PresigningSigner(
            key,
            api_key_id=api_key_id,
            clock=self._clock,
            follow=self._follow,
            routes=routes,
            depth=depth,
            max_age=max_age,
            rate=rate,
            learn=learn,
        )

    @takes_no_private_key
    def auth(self, *, base_url: str | None = None, environment: str | None = None) -> KalshiAuth:
        """Return an authentication object for requests, niquests, httpx and httpx2, sync and async.

        It signs each request right before it is sent, and refuses to sign for an origin other than that of the base
        URL.

        Args:
            base_url: Kalshi's base URL; https, or http to loopback.
            environment: ``prod`` or ``demo``, instead of a base URL. With neither, ``KALSHI_API_BASE_URL`` and
                ``KALSHI_DEMO`` are read, and production is the default.

        Raises:
            UsageError: If the base URL isn't valid.
            WrongEnvironmentError: If the key is registered in another environment.
        """
        from hsm_keys.signing.auth import kalshi_auth

        auth = kalshi_auth(self, base_url=base_url, environment=environment)
        check_origin(self.key.name, self.environment, auth.base_url)
        return auth

    def moved_on(self, api_key_id: str) -> bool:
        """Tell, after a refusal, whether the name has another API key now. If needed, it looks the name up.

        That takes as long as the store needs to find a key. If the store fails, nothing is changed.

        Args:
            api_key_id: The API key id of the refused request.
        """
        if self._live[0] == api_key_id and self._follow is not None:
            refused_at = time.monotonic()
            with _looking:
                # A look that began after the refusal is enough for all requests that were refused at the same time.
                old_enough = refused_at - (_LOOK_AGAIN_S if self._fruitless >= _FRUITLESS_LOOKS else 0)
                if self._live[0] == api_key_id and self._looked_at < old_enough:
                    self._look()
                    self._fruitless = self._fruitless + 1 if self._live[0] == api_key_id else 0
        return self._live[0] != api_key_id

    def _stamp(self, method: str, path: str) -> int:  # noqa: ARG002 - for signers that sign ahead
        """Return the timestamp for headers that are signed at once."""
        return self._clock()

    def _look_aside(self) -> None:
        """Look the name up in a thread, so that the signature doesn't wait for it."""
        self._look_at = time.monotonic() + _FOLLOW_S
        with suppress(RuntimeError):  # no thread can be started, as when the interpreter ends: then the next look does
            threading.Thread(target=self._look, name="hsm-keys-follow", daemon=True).start()

    def _look(self) -> None:
        if self._follow is None:
            return
        self._looked_at = time.monotonic()
        try:
            key = self._follow()
        except HsmKeysError as error:
            _log.debug("couldn't look %r up again: %s", self._live[2].name, error.message)
        else:
            if key.api_key_id is not None and key.api_key_id != self._live[0] and self._is_at_home(key):
                _log.info("%r is API key %s now", key.name, key.api_key_id)
                self._live = (key.api_key_id, key.sign, key)
                # The next key is looked up from this one: on KMS only the key before it can prove that it follows.
                self._follow = getattr(key, "current", self._follow)

    def _is_at_home(self, key: MessageSigner) -> bool:
        """Tell whether a key belongs to this signer's environment; if not, log that once."""
        environment = getattr(key, "environment", None)
        if self._environment in {None, environment}:
            return True
        if key.api_key_id != self._left_alone:
            self._left_alone = key.api_key_id
            _log.warning(
                "%r is API key %s of the environment %s now, and this signer's is %s: the signer keeps the old key",
                key.name,
                key.api_key_id,
                environment,
                self._environment,
            )
        return False

    def __repr__(self) -> str:
        return f"RequestSigner(key={self.key.name!r}, api_key_id={self.api_key_id!r})"
