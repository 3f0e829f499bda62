"""The proxy's signer: off the event loop, never while frozen, ahead where that was asked for."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, TypeVarTuple, cast

from hsm_keys.errors import HsmKeysError
from hsm_keys.proxy.prompt_future import PromptFuture
from hsm_keys.signing.algorithms import PublicKey, verifies
from hsm_keys.signing.flow import after, signing_flow
from hsm_keys.signing.signer import DEFAULT_RATE, RequestSigner

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.signing.flow import Flow
    from hsm_keys.signing.presign import PresigningSigner

__all__ = ["FrozenError", "ProxyKey", "ProxySigner", "RequestSigning"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_THREADS: Final = 8
_READY_S: Final = 5.0
_KEPT_S: Final = 3.0
_KEPT_RATE: Final = 2.0
_REFILL_AFTER_S: Final = 0.003
"""Seconds after which headers that were taken are made anew: by then the request has gone out, on a core and a GIL that
it needn't share with the worker."""

_log: Final = logging.getLogger(__name__)


class FrozenError(HsmKeysError):
    """Signing is frozen."""

    code = "frozen"


class ProxyKey(Protocol):
    """What the proxy has to know of a key."""

    @property
    def api_key_id(self) -> str | None:
        """Its id at Kalshi."""

    def public_pem(self) -> str:
        """Return the public half as PEM."""

    def public_key(self) -> PublicKey:
        """Return the public half."""

    def sign(self, message: bytes, /) -> bytes:
        """Sign."""


class ProxySigner:
    """Makes headers for requests that the judge has allowed.

    Args:
        signer: Signs with the key.
        judge: Tells whether signing is frozen.
        metrics: Hears how long it took.
        ahead: For how many routes headers are kept in hand; 0 for none.
        rate: Signatures a second that are made ahead, at most.
    """

    def __init__(
        self, signer: RequestSigner, judge: Judge, metrics: Metrics, *, ahead: int = 0, rate: float = DEFAULT_RATE
    ) -> None:
        self._signer = signer
        self._judge = judge
        self._metrics = metrics
        self._learn = ahead
        self._rate = rate
        self._threads = ThreadPoolExecutor(_THREADS, "hsm-keys-proxy")
        self._ahead: PresigningSigner | None = None
        self._kept: PresigningSigner | None = None
        self._proved: tuple[float, str] = (float("-inf"), "")
        if not judge.frozen:
            self.thaw()

    @property
    def _live(self) -> RequestSigner:
        """What signs: ahead, where that was asked for and nothing is frozen."""
        return self._ahead or self._signer

    @property
    def api_key_id(self) -> str:
        """The API key id that is signed for."""
        return self._live.api_key_id

    @property
    def key(self) -> ProxyKey:
        """What signs now; another one after a rotation."""
        return cast("ProxyKey", self._live.key)

    def request(self, method: str, path: str, check: Callable[[], None]) -> RequestSigning:
        """Return what signs one request; see ``RequestSigning``."""
        return RequestSigning(self, method, path, check)

    def taken(self, method: str, path: str) -> dict[str, str] | None:
        """Return headers that were made ahead, if there are any."""
        if self._ahead is None or self._judge.frozen:
            return None
        taken = self._ahead.take(method, path, later=_refill_later)
        if taken is None:
            self._metrics.drawn("miss").inc()
        else:
            self._metrics.hits += 1
        return taken

    def headers(self, method: str, path: str) -> dict[str, str]:
        """Return the three headers of a request, stamped right before they are signed; blocks.

        Raises:
            FrozenError: If signing is frozen.
            HsmKeysError: Whatever the store raises.
        """
        if self._judge.frozen:  # it may have waited for a thread
            raise FrozenError("signing is frozen")
        return self._live.headers(method, path)

    def headers_at_once(self, method: str, path: str) -> dict[str, str]:
        """Return the headers of a request of the proxy's own, for which nothing is made ahead; blocks.

        Raises:
            FrozenError: If signing is frozen.
            HsmKeysError: Whatever the store raises.
        """
        if self._judge.frozen:
            raise FrozenError("signing is frozen")
        return RequestSigner.headers(self._live, method, path)

    def keep(self, method: str, path: str) -> None:
        """Keep headers of one request of the proxy's own in hand, also while frozen."""
        self.keep_none()
        self._kept = self._signer.ahead([(method, path)], depth=1, max_age=_KEPT_S, rate=_KEPT_RATE)

    def keep_none(self) -> None:
        """Keep none any more."""
        kept, self._kept = self._kept, None
        _close_later(kept)

    def kept(self, method: str, path: str) -> dict[str, str] | None:
        """Return the headers that were kept, if there are any."""
        return self._kept.take(method, path) if self._kept is not None else None

    def sign_frozen(self, method: str, path: str) -> dict[str, str]:
        """Return the headers of a request that stops the account's orders: also while frozen; blocks.

        Raises:
            HsmKeysError: Whatever the store raises.
        """
        return self._signer.headers(method, path)

    def moved_on(self, api_key_id: str) -> bool:
        """Tell whether another key is signed with by now; blocks while the store looks."""
        return self._live.moved_on(api_key_id)

    async def in_thread(self, call: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        """Call what blocks in one of the threads that sign. Whoever is cancelled doesn't wait for it.

        ``run_in_executor`` does that too, and then takes a turn of the event loop more.
        """
        loop = asyncio.get_running_loop()
        returned = PromptFuture(loop=loop)
        result = self._threads.submit(call, *arguments)
        result.add_done_callback(lambda _: _tell(loop, returned))
        try:
            await returned
            return result.result()
        except asyncio.CancelledError:
            result.cancel()
            raise
        finally:
            del result  # an error that it holds knows this frame, which knows it

    async def signed(self, flow: Flow) -> dict[str, str]:
        """Return a flow's next headers, and measure how long they take.

        Raises:
            FrozenError: If signing was frozen meanwhile.
            HsmKeysError: Whatever the store raises.
        """
        started = time.perf_counter()
        self._metrics.waiting += 1
        try:
            headers = await self.in_thread(next, flow)
            self._metrics.is_healthy = True
        except FrozenError:
            raise
        except HsmKeysError:
            self._metrics.is_healthy = False
            raise
        finally:
            self._metrics.waiting -= 1
        self._metrics.signing.observe(time.perf_counter() - started)
        if self._judge.frozen:
            raise FrozenError("signing is frozen")
        return headers

    def freeze(self) -> None:
        """Make no more headers ahead; the judge denies the rest. Doesn't wait for a token that is slow."""
        ahead, self._ahead = self._ahead, None
        _close_later(ahead)

    def thaw(self) -> None:
        """Make headers ahead again, if that was asked for."""
        if self._learn and self._ahead is None:
            self._ahead = self._signer.ahead(learn=self._learn, rate=self._rate)

    async def problem(self) -> str:
        """Return why it isn't ready to sign; empty if a signature could be made and verified within five seconds."""
        if self._judge.frozen:
            return "signing is frozen"
        if time.monotonic() - self._proved[0] > _READY_S:
            said = await self.in_thread(self._prove)
            self._proved = time.monotonic(), said
        return self._proved[1]

    def _prove(self) -> str:
        if self._judge.frozen:  # it may have waited for a thread
            return "signing is frozen"
        message = b"hsm-keys proxy readiness v1\n" + os.urandom(16).hex().encode()
        key = self.key
        try:
            good = verifies(key.public_key(), message, key.sign(message))
        except HsmKeysError as error:
            self._metrics.is_healthy = False
            return str(error)
        self._metrics.is_healthy = good
        return "" if good else "the store's signature doesn't verify"

    def close(self) -> None:
        """Let go of threads and headers."""
        for signer in (self._ahead, self._kept):
            if signer is not None:
                with suppress(HsmKeysError):
                    signer.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class RequestSigning:
    """Signs one request each time that it is sent, and says whether it is sent once more; see ``signing_flow``.

    Args:
        signs: Signs.
        method: HTTP method.
        path: The path as it goes to Kalshi.
        check: Raises if the request may not go out any more; called right before it is signed, and again after a wait.

    Attributes:
        is_done: Whether headers were given out: the request may be on its way.
    """

    def __init__(self, signs: ProxySigner, method: str, path: str, check: Callable[[], None]) -> None:
        self._signs = signs
        self._target = method, path
        self._check = check
        self.is_done = False
        self._flow: Flow | None = None
        self._again: dict[str, str] | None = None

    async def headers(self) -> dict[str, str]:
        """Return the headers of the next sending.

        Raises:
            FrozenError: If signing is frozen.
            HsmKeysError: Whatever the store raises.
            Exception: Whatever the check raises.
        """
        self._check()
        headers = self._in_hand()
        if headers is None:
            headers = await self._signs.signed(self._flow or self._begin(None))
            self._check()
        self.is_done = True
        return headers

    def _in_hand(self) -> dict[str, str] | None:
        """Return headers that needn't be waited for, so that nothing comes between the check and their use."""
        if self._flow is not None:
            headers, self._again = self._again, None
            return headers
        taken = self._signs.taken(*self._target)
        return None if taken is None else next(self._begin(taken))

    def _begin(self, taken: dict[str, str] | None) -> Flow:
        self._flow = signing_flow(self._signs, *self._target, taken=taken)
        return self._flow

    async def is_worth_another(self, status: int) -> bool:
        """Tell whether the request may be sent once more after an answer of that status: with headers made for it."""
        if self._flow is None or status != HTTPStatus.UNAUTHORIZED:
            return False
        try:
            self._again = await self._signs.in_thread(after, self._flow, status)
        except HsmKeysError as error:
            _log.warning("a refused request isn't signed once more: %s", error)
        return self._again is not None


def _tell(loop: asyncio.AbstractEventLoop, returned: PromptFuture) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(returned.arrive)


def _close_later(signer: PresigningSigner | None) -> None:
    """Close it without waiting for a token that is slow."""
    if signer is not None:
        threading.Thread(target=signer.close, name="hsm-keys-freeze", daemon=True).start()


def _refill_later(wake: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(_REFILL_AFTER_S, wake)
