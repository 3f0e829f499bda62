"""Signing for the door: off the event loop, never while frozen, ahead where that was asked for."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, cast

from hsm_keys.errors import HsmKeysError
from hsm_keys.signing.algorithms import PublicKey, verifies
from hsm_keys.signing.signer import DEFAULT_RATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.metrics import Metrics
    from hsm_keys.signing.presign import PresigningSigner
    from hsm_keys.signing.signer import RequestSigner

__all__ = ["FrozenError", "ProxyKey", "SignsForDoor"]

_THREADS: Final = 8
_READY_S: Final = 5.0
_REFILL_AFTER_S: Final = 0.003
"""Seconds after which headers that were taken are made anew: by then the request has gone out, on a core and a GIL that
it needn't share with the worker."""


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


class SignsForDoor:
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

    async def headers(self, method: str, path: str) -> dict[str, str]:
        """Return the three headers of a request, stamped right before they are signed.

        Raises:
            FrozenError: If signing was frozen meanwhile.
            HsmKeysError: Whatever the store raises.
        """
        if self._ahead is not None and not self._judge.frozen:
            taken = self._ahead.take(method, path, later=_refill_later)
            self._metrics.drawn("miss" if taken is None else "hit").inc()
            if taken is not None:
                return taken
        started = time.perf_counter()
        self._metrics.queue.inc()
        try:
            headers = await asyncio.get_running_loop().run_in_executor(self._threads, self._headers, method, path)
            self._metrics.healthy.set(1)
        except FrozenError:
            raise
        except HsmKeysError:
            self._metrics.healthy.set(0)
            raise
        finally:
            self._metrics.queue.dec()
        self._metrics.signing.observe(time.perf_counter() - started)
        if self._judge.frozen:
            raise FrozenError("signing is frozen")
        return headers

    def _headers(self, method: str, path: str) -> dict[str, str]:
        if self._judge.frozen:  # it may have waited for a thread
            raise FrozenError("signing is frozen")
        return self._live.headers(method, path)

    async def refused(self, api_key_id: str) -> None:
        """Look, after a 401, whether the key was rotated; the next request is signed with the new one."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._live.moved_on, api_key_id)

    def freeze(self) -> None:
        """Make no more headers ahead; the judge denies the rest. Doesn't wait for a token that is slow."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            threading.Thread(target=ahead.close, name="hsm-keys-freeze", daemon=True).start()

    def thaw(self) -> None:
        """Make headers ahead again, if that was asked for."""
        if self._learn and self._ahead is None:
            self._ahead = self._signer.ahead(learn=self._learn, rate=self._rate)

    async def problem(self) -> str:
        """Return why it isn't ready to sign; empty if a signature could be made and verified within five seconds."""
        if self._judge.frozen:
            return "signing is frozen"
        if time.monotonic() - self._proved[0] > _READY_S:
            said = await asyncio.get_running_loop().run_in_executor(self._threads, self._prove)
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
            self._metrics.healthy.set(0)
            return str(error)
        self._metrics.healthy.set(int(good))
        return "" if good else "the store's signature doesn't verify"

    def close(self) -> None:
        """Let go of threads and headers."""
        if self._ahead is not None:
            with suppress(HsmKeysError):
                self._ahead.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _refill_later(wake: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(_REFILL_AFTER_S, wake)
