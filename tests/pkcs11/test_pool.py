"""The pool of signing sessions, on sessions that break and tokens that run out of them."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pkcs11 import exceptions as ckr

from hsm_keys import KeyType, open_store
from hsm_keys.errors import StoreUnavailableError
from hsm_keys.stores.pkcs11.pool import PoolClosedError, SessionPool
from tests.support.load import Load

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken


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


MANAGING: Any = SimpleNamespace(close=lambda: pytest.fail("it holds the login, and isn't the pool's to close"))


def pool_of(token: FakeToken, *, parallel: bool = True) -> SessionPool:
    module: Any = SimpleNamespace(mutex=threading.RLock(), signing=nullcontext(), parallel=parallel, pools=set())
    return SessionPool(module, token.open, MANAGING)


def test_one_thread_needs_one_session() -> None:
    token = FakeToken()
    pool = pool_of(token)
    for _ in range(5):
        pool.put(pool.take())
    assert token.open_now == 1


def test_it_grows_with_its_users_up_to_what_the_token_allows() -> None:
    token = FakeToken(limit=3)
    pool = pool_of(token)
    members = [pool.take() for _ in range(3)]
    assert len(set(map(id, members))) == 3
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(pool.take()))
    waiting.start()
    pool.put(members[1])
    waiting.join(10)
    assert taken == [members[1]]


def test_a_module_that_must_be_serialised_gets_one_session() -> None:
    token = FakeToken()
    pool = pool_of(token, parallel=False)
    member = pool.take()
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(pool.take()))
    waiting.start()
    pool.put(member)
    waiting.join(10)
    assert taken == [member]
    assert token.open_now == 1


def test_a_broken_session_is_closed_and_replaced_for_whoever_waits() -> None:
    token = FakeToken(limit=1)
    pool = pool_of(token)
    member = pool.take()
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(pool.take()))
    waiting.start()
    pool.discard(member)
    waiting.join(10)
    assert len(taken) == 1
    assert taken[0] is not member
    assert token.open_now == 1


def test_where_the_login_has_the_only_session_it_signs_too_and_stays_open() -> None:
    token = FakeToken(limit=0)
    pool = pool_of(token)
    member = pool.take()
    assert member.session is MANAGING
    pool.discard(member)  # what failed may have been the operation alone
    assert pool.take().session is MANAGING


def test_a_token_that_refuses_for_another_reason_is_an_error_and_not_a_wait() -> None:
    def refuse() -> Any:
        raise ckr.DeviceError

    token = FakeToken()
    token.open = refuse  # type: ignore[method-assign]
    with pytest.raises(ckr.DeviceError):
        pool_of(token).take()


def test_who_waits_for_a_signature_that_never_comes_back_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsm_keys.stores.pkcs11.pool.PATIENCE_S", 0.05)
    pool = pool_of(FakeToken(limit=1))
    member = pool.take()  # and hangs in it
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="returned no signature"):
            pool.take()
    pool.put(member)
    assert pool.take() is member


def test_a_halted_pool_gives_no_lanes_until_it_goes_on() -> None:
    pool = pool_of(FakeToken())
    member = pool.take()
    pool.halt(for_good=False)
    assert not pool.is_idle(0.0)
    pool.put(member)
    assert pool.is_idle(0.0)
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(pool.take()))
    waiting.start()
    waiting.join(0.05)
    assert pool.is_idle(0.0)
    assert taken == []
    pool.resume()
    waiting.join(10)
    assert taken == [member]


def test_closing_wakes_everyone_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsm_keys.stores.pkcs11.pool._CLOSING_S", 0.05)
    token = FakeToken(limit=1)
    pool = pool_of(token)
    member = pool.take()
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
    assert token.open_now == 1  # somebody is in it: it isn't closed under them
    pool.put(member)
    pool.close()
    assert token.open_now == 0


@pytest.mark.softhsm
@pytest.mark.parametrize("further", [0, 2])
def test_a_token_of_few_sessions_signs_on_all_threads(token: TestToken, further: int) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        pool = store._connection.pool  # type: ignore[attr-defined]  # of PKCS#11
        real, opened = pool._open_session, list[object]()

        def open_session() -> Any:
            if len(opened) == further:
                raise ckr.SessionCount
            opened.append(real())
            return opened[-1]

        pool._open_session = open_session
        with Load(key, 8) as load:
            load.signs(400)
            assert [one.name for one in store.keys()] == ["prod"]  # beside them, in what may be the same session
        assert (load.bad, load.wrong, load.errors) == (0, [], {})
        assert len(pool._members) == max(1, further)
    with open_store(token.uri) as store:  # the login ended with the store, and begins anew
        assert store.key("prod").sign(b"m")
