"""A future that lets its task go on at once."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from hsm_keys.proxy.prompt_future import PromptFuture

if TYPE_CHECKING:
    from collections.abc import Callable


async def _waits(future: PromptFuture, ended: list[BaseException | None]) -> None:
    try:
        await future
    except BaseException as error:
        ended.append(error)
        raise
    ended.append(None)


def test_a_task_goes_on_before_arrive_returns() -> None:
    async def wait() -> None:
        future, ended = PromptFuture(), list[BaseException | None]()
        task = asyncio.create_task(_waits(future, ended))
        await asyncio.sleep(0)
        future.get_loop().call_soon(future.arrive)
        future.get_loop().call_soon(lambda: ended.append(KeyError()))
        await task
        assert ended[0] is None
        future.arrive()  # nobody waits any more

    asyncio.run(wait())


@pytest.mark.parametrize("comes", ["arrives", "fails", "is cancelled"])
def test_what_comes_first_counts(comes: str) -> None:
    async def wait() -> None:
        future, ended = PromptFuture(), list[BaseException | None]()
        task = asyncio.create_task(_waits(future, ended))
        await asyncio.sleep(0)
        ways: dict[str, Callable[[], object]]
        ways = {"arrives": future.arrive, "fails": lambda: future.fail(OSError("gone")), "is cancelled": task.cancel}
        future.get_loop().call_soon(ways[comes])
        for other in {*ways} - {comes, "is cancelled"}:
            future.get_loop().call_soon(ways[other])
        (result,) = await asyncio.gather(task, return_exceptions=True)
        kind = {"arrives": type(None), "fails": OSError, "is cancelled": asyncio.CancelledError}[comes]
        assert isinstance(result, kind)
        assert [type(one) for one in ended] == [kind]
        assert task.cancelling() == (comes == "is cancelled")

    asyncio.run(wait())


def test_a_timeout_ends_the_wait() -> None:
    async def wait() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await PromptFuture()

    asyncio.run(wait())


def test_it_leaves_nothing_for_the_garbage_collector() -> None:
    async def wait() -> None:
        for _ in range(100):
            future = PromptFuture()
            future.get_loop().call_soon(future.arrive)
            await future

    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        asyncio.run(wait())
        assert len(gc.get_objects()) < before + 100
    finally:
        gc.enable()
