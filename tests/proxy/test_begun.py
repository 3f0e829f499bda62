"""Coroutines that are begun at once, and go on in a task if they have to wait."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from hsm_keys.proxy.access import Caller
from hsm_keys.proxy.begun import Begun, begin, in_task
from hsm_keys.proxy.prompt_future import PromptFuture
from hsm_keys.proxy.running import Running, Stop, StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from hsm_keys.proxy.client_requests import ClientRequest


async def begun(work: Coroutine[Any, Any, None], then: Callable[[], object] = bool) -> Begun:
    """Begin a coroutine that waits, as a callback of the loop does, in no task."""
    loop = asyncio.get_running_loop()
    has_begun: asyncio.Future[Begun | None] = loop.create_future()

    def call() -> None:
        has_begun.set_result(begin(work, loop))
        then()

    loop.call_soon(call)
    begins = await has_begun
    assert begins is not None
    return begins


def test_what_waits_for_nothing_has_ended() -> None:
    async def run() -> None:
        ended: list[object] = []

        async def work() -> None:
            ended.append(None)

        asyncio.get_running_loop().call_soon(lambda: ended.append(begin(work(), asyncio.get_running_loop())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ended == [None, None]

    asyncio.run(run())


def test_what_waits_for_prompt_futures_alone_needs_no_task() -> None:
    done: list[object] = []

    async def work(futures: list[PromptFuture]) -> None:
        for future in futures:
            try:
                await future
            except OSError as error:
                done.append(error)
            done.append(asyncio.current_task())

    async def run() -> None:
        loop, error = asyncio.get_running_loop(), OSError()
        futures = [PromptFuture() for _ in range(3)]
        assert (await begun(work(futures)))._task is None
        for call in (futures[0].arrive, lambda: futures[1].fail(error), futures[2].arrive):
            loop.call_soon(call)
            for _ in range(2):
                await asyncio.sleep(0)
        assert done == [None, error, None, None]

    asyncio.run(run())


@pytest.mark.parametrize("error", [None, OSError])
@pytest.mark.parametrize("is_prompt", [False, True])
@pytest.mark.parametrize("comes_first", [False, True])
def test_what_waits_for_anything_else_goes_on_in_a_task(
    *, comes_first: bool, is_prompt: bool, error: type[OSError] | None
) -> None:
    """What it waits for may come before its task waits for it, and it may wait for a prompt future in its task."""
    said: list[object] = []

    async def work(future: asyncio.Future[None]) -> None:
        if is_prompt:
            await in_task()
        try:
            await future
        except OSError:
            said.append(OSError)
        await asyncio.sleep(0)
        said.append(asyncio.current_task())

    async def run() -> None:
        loop = asyncio.get_running_loop()
        prompt, plain = PromptFuture(), loop.create_future()

        def come() -> None:
            if is_prompt:
                prompt.arrive() if error is None else prompt.fail(error())
            elif error is None:
                plain.set_result(None)
            else:
                plain.set_exception(error())

        begins = await begun(work(prompt if is_prompt else plain), come if comes_first else bool)
        if not comes_first:
            await asyncio.sleep(0)
            loop.call_soon(come)
        assert begins._task is not None
        await begins._task
        assert said == [*([OSError] if error else []), begins._task]

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize("future_of", [PromptFuture, asyncio.Future])
def test_it_can_be_cancelled(future_of: type[asyncio.Future[None]]) -> None:
    ended: list[type[BaseException]] = []

    async def work() -> None:
        try:
            await future_of()
        except BaseException as error:
            ended.append(type(error))
            raise

    async def run() -> None:
        begins = await begun(work())
        await asyncio.sleep(0)
        task = begins.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert (task is not None, task is not None and task.cancelled()) == (future_of is asyncio.Future,) * 2

    asyncio.run(run())
    assert ended == [asyncio.CancelledError]


def test_a_timeout_can_be_had_in_a_task() -> None:
    async def work() -> None:
        await in_task()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()

    async def run() -> None:
        begins = await begun(work())
        assert begins._task is not None
        await begins._task

    asyncio.run(run())


@pytest.mark.parametrize("future_of", [PromptFuture, asyncio.Future])
def test_a_request_is_stopped_with_a_task_and_without(future_of: type[asyncio.Future[None]]) -> None:
    request = cast("ClientRequest", SimpleNamespace(begun=None))
    running = Running(Caller("bot"), request)
    ended: list[object] = []

    async def work() -> None:
        try:
            with running:
                await future_of()
        except StoppedError as error:
            task = asyncio.current_task()
            ended.extend([error.stop, task.cancelling() if task else 0])

    async def run() -> None:
        request.begun = await begun(work())
        running.stop(stop := Stop(403, "frozen", ""))
        for _ in range(4):
            await asyncio.sleep(0)
        assert ended == [stop, 0]

    asyncio.run(run())
