"""What is called in the threads that sign."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import pytest

from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.signing import ProxySigner

if TYPE_CHECKING:
    from hsm_keys.signing.signer import RequestSigner


class TokenError(Exception):
    """What a store may raise."""

    def __init__(self, raised: list[weakref.ref[TokenError]]) -> None:
        raised.append(weakref.ref(self))


def proxy_signer() -> ProxySigner:
    return ProxySigner(cast("RequestSigner", None), Judge(), Metrics())


def test_an_error_leaves_nothing_to_the_garbage_collector() -> None:
    raised: list[weakref.ref[TokenError]] = []

    def fail() -> None:
        raise TokenError(raised)

    async def run() -> None:
        signs = proxy_signer()
        with suppress(TokenError):
            await signs.in_thread(fail)
        await asyncio.sleep(0)
        signs.close()

    gc.collect()
    gc.disable()
    try:
        asyncio.run(run())
        assert raised[0]() is None
    finally:
        gc.enable()


def test_what_is_cancelled_is_not_called_if_it_waits_for_a_thread() -> None:
    called: list[int] = []

    async def run() -> None:
        signs, may_end = proxy_signer(), threading.Event()
        busy = [asyncio.ensure_future(signs.in_thread(may_end.wait, 20)) for _ in range(8)]
        waiting = asyncio.ensure_future(signs.in_thread(called.append, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        may_end.set()
        assert await asyncio.gather(*busy) == [True] * 8
        await signs.in_thread(called.append, 2)
        signs.close()

    asyncio.run(run())
    assert called == [2]
