"""Coroutines that are begun at once, and go on in a task if they have to wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from hsm_keys.proxy.access import Caller
from hsm_keys.proxy.begun import begin, in_task
from hsm_keys.proxy.prompt_future import PromptFuture
from hsm_keys.proxy.running import Running, Stop, StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from hsm_keys.proxy.client_requests import ClientRequest


def begun(
    work: Coroutine[Any, Any, None], then: Callable[[], object] = bool
) -> asyncio.Future[asyncio.Task[None] | None]:
    """Begin a coroutine as a callback of the loop does, in no task; return its task when it has begun."""
    loop = asyncio.get_running_loop()
    has_begun: asyncio.Future[asyncio.Task[None] | None] = loop.create_future()

    def call() -> None:
        has_begun.set_result(begin(work, loop))
        then()

    loop.call_soon(call)
    return has_begun


def test_what_waits_for_nothing_needs_no_task() -> None:
    done = []

    async def work() -> None:
        done.append(asyncio.current_task())

    async def run() -> None:
        assert await begun(work()) is None

    asyncio.run(run())
    assert done == [None]


@pytest.mark.parametrize("error", [None, OSError])
@pytest.mark.parametrize("is_prompt", [False, True])
@pytest.mark.parametrize("comes_first", [False, True])
def test_what_waits_goes_on_in_a_task(*, comes_first: bool, is_prompt: bool, error: type[OSError] | None) -> None:
    """What it waits for may come before its task waits for it."""
    said: list[object] = []

    async def work(future: asyncio.Future[None]) -> None:
        try:
            await future
        except OSError:
            said.append(OSError)
        await asyncio.sleep(0)
        said.append(asyncio.current_task())

    async def run() -> None:
        prompt, plain = PromptFuture(), asyncio.get_running_loop().create_future()

        def come() -> None:
            if is_prompt:
                prompt.arrive() if error is None else prompt.fail(error())
            elif error is None:
                plain.set_result(None)
            else:
                plain.set_exception(error())

        task = await begun(work(prompt if is_prompt else plain), come if comes_first else bool)
        if not comes_first:
            asyncio.get_running_loop().call_soon(come)
        assert task is not None
        await task
        assert said == [*([OSError] if error else []), task]

    asyncio.run(asyncio.wait_for(run(), 20))


def test_its_task_can_be_cancelled() -> None:
    ended: list[type[BaseException]] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException as error:
            ended.append(type(error))
            raise

    async def run() -> None:
        task = await begun(work())
        assert task is not None
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(run())
    assert ended == [asyncio.CancelledError]


def test_a_timeout_can_be_had_in_a_task() -> None:
    async def work() -> None:
        await in_task()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()

    async def run() -> None:
        task = await begun(work())
        assert task is not None
        await task

    asyncio.run(run())


def test_a_request_is_stopped_that_began_before_its_task() -> None:
    """What is cancelled is its task, and who waits for that task hears of no cancellation."""
    request = cast("ClientRequest", type("Request", (), {"task": None})())
    running = Running(Caller("bot"), request)
    ended: list[object] = []

    async def work() -> None:
        try:
            async with running:
                await asyncio.get_running_loop().create_future()
        except StoppedError as error:
            task = asyncio.current_task()
            assert task is not None
            ended.extend([error.stop, task.cancelling()])

    async def run() -> None:
        task = request.task = await begun(work())
        assert task is not None
        running.stop(stop := Stop(403, "frozen", ""))
        await task
        assert ended == [stop, 0]

    asyncio.run(run())
