"""The pool of sessions against a model, written from PKCS#11: one session does one thing at a time.

``HSM_KEYS_TEST_EXAMPLES=5000`` tries more than CI does.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pkcs11 import exceptions as ckr

from hsm_keys.errors import StoreUnavailableError
from hsm_keys.stores.pkcs11 import pool as pool_module
from hsm_keys.stores.pkcs11.pool import PoolClosedError, PoolMember, SessionPool
from tests.support.models import model_settings


class Token:
    """Opens as many sessions as it allows, and knows which are open; the one that manages is another."""

    def __init__(self) -> None:
        self.most = 100
        self.open: set[int] = set()
        self._last = 0
        self.managing: Any = SimpleNamespace(number=0, close=lambda: pytest.fail("it holds the login"))

    def open_session(self) -> Any:
        if len(self.open) >= self.most:
            raise ckr.SessionCount
        self._last += 1
        number = self._last
        self.open.add(number)
        return SimpleNamespace(number=number, close=lambda: self.open.remove(number))


def _module(*, parallel: bool) -> Any:
    return SimpleNamespace(mutex=threading.RLock(), signing=nullcontext(), parallel=parallel, pools=set())


class Pool(RuleBasedStateMachine):
    """A pool, and who has which of its sessions. Nobody waits for one: who would have to, gets an error at once."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(pool_module, "PATIENCE_S", 0.0)
        self.token = Token()
        self.hands: list[PoolMember] = []
        self.closed = self.halted = False
        self.broken: set[int] = set()

    @initialize(parallel=st.booleans(), most=st.integers(0, 5))
    def begin(self, *, parallel: bool, most: int) -> None:
        self.parallel = parallel
        self.token.most = most
        self.module = _module(parallel=parallel)
        self.pool = SessionPool(self.module, self.token.open_session, self.token.managing)

    @rule(times=st.integers(1, 3))
    def take_some(self, times: int) -> None:
        for _ in range(times):
            self.take()

    def take(self) -> None:
        try:
            member = self.pool.take()
        except StoreUnavailableError as error:
            refusal = error
        else:
            self.check(member)
            self.hands.append(member)
            return
        assert refusal.hint
        assert self.closed if isinstance(refusal, PoolClosedError) else self.hands or self.halted

    def check(self, member: PoolMember) -> None:
        assert not self.closed
        assert not self.halted
        number = member.session.number
        assert number not in self.broken
        assert number == 0 or number in self.token.open

    @precondition(lambda self: self.hands)
    @rule(which=st.integers(0, 31))
    def put(self, which: int) -> None:
        self.pool.put(self.hands.pop(which % len(self.hands)))

    @precondition(lambda self: self.hands)
    @rule(which=st.integers(0, 31))
    def discard(self, which: int) -> None:
        member = self.hands.pop(which % len(self.hands))
        if member.session.number:  # the one that manages is brought back by whoever holds the login
            self.broken.add(member.session.number)
        self.pool.discard(member)

    @rule(most=st.integers(0, 5))
    def token_allows(self, most: int) -> None:
        self.token.most = most

    @precondition(lambda self: not self.closed)
    @rule(takes=st.integers(0, 2))
    def halt_for_a_while(self, takes: int) -> None:
        self.pool.halt(for_good=False)
        self.halted = True
        for _ in range(takes):
            self.take()
        self.pool.resume()
        self.halted = False

    @rule()
    def forget(self) -> None:
        for member in self.hands:
            member.handles["key"] = 1
        self.pool.forget()
        assert not any(member.handles for member in self.hands)

    @precondition(lambda self: not self.hands)
    @rule(really=st.integers(0, 9))
    def close(self, really: int) -> None:
        if really:  # there is no way back
            return
        self.pool.close()
        self.closed = True
        assert not self.token.open
        assert self.pool not in self.module.pools

    @invariant()
    def no_session_is_in_two_hands(self) -> None:
        numbers = [member.session.number for member in self.hands]
        assert len(numbers) == len(set(numbers))
        assert getattr(self, "parallel", True) or len(numbers) <= 1
        assert all(member.busy for member in self.hands)

    def teardown(self) -> None:
        for member in self.hands:
            self.pool.put(member)
        if hasattr(self, "pool"):
            self.pool.close()
        self.patch.undo()


TestPool = Pool.TestCase
TestPool.settings = model_settings(25, steps=25)
