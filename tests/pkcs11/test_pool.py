"""The pool of signing sessions, on sessions that break and tokens that run out of them."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
from pkcs11 import exceptions as ckr

from hsm_keys.errors import StoreUnavailableError
from hsm_keys.stores.pkcs11.pool import PoolClosedError, SessionPool


class FakeToken:
    """Opens sessions up to a limit."""

    def __init__(self, limit: int = 100) -> None:
        self.limit = limit
        self.open_now = 0

    def open(self) -> Any:
        if self.open_now >= self.limit:
            raise ckr.SessionCount
        self.open_now += 1
        return SimpleNamespace(close=self._close)

    def _close(self) -> None:
        self.open_now -= 1


def pool_of(token: FakeToken, *, parallel: bool = True) -> SessionPool:
    module: Any = SimpleNamespace(mutex=threading.RLock(), parallel=parallel, pools=WeakSet())
    return SessionPool(module, token.open)


def test_one_thread_needs_one_session() -> None:
    token = FakeToken()
    pool = pool_of(token)
    for _ in range(5):
        pool.put(pool.take())
    assert token.open_now == 1


def test_it_grows_with_its_users_up_to_what_the_token_allows() -> None:
    token = FakeToken(limit=3)
    pool = pool_of(token)
    lanes = [pool.take() for _ in range(3)]
    assert len(set(map(id, lanes))) == 3
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(pool.take()))
    waiting.start()
    pool.put(lanes[1])
    waiting.join(10)
    assert taken == [lanes[1]]


def test_a_module_that_must_be_serialised_gets_one_session() -> None:
    token = FakeToken()
    pool = pool_of(token, parallel=False)
    lane = pool.take()
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(pool.take()))
    waiting.start()
    pool.put(lane)
    waiting.join(10)
    assert taken == [lane]
    assert token.open_now == 1


def test_a_broken_session_is_closed_and_replaced_for_whoever_waits() -> None:
    token = FakeToken(limit=1)
    pool = pool_of(token)
    lane = pool.take()
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(pool.take()))
    waiting.start()
    pool.discard(lane)
    waiting.join(10)
    assert len(taken) == 1
    assert taken[0] is not lane
    assert token.open_now == 1


def test_a_token_without_any_session_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(ckr.SessionCount):
        pool_of(FakeToken(limit=0)).take()


def test_closing_wakes_everyone_who_waits() -> None:
    token = FakeToken(limit=1)
    pool = pool_of(token)
    pool.take()
    outcomes: list[type[BaseException]] = []

    def wait() -> None:
        try:
            pool.take()
        except StoreUnavailableError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    pool.close()
    for thread in threads:
        thread.join(10)
    assert outcomes == [PoolClosedError] * 3
    assert token.open_now == 0
