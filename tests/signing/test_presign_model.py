"""Signing ahead against a model, written from the docs: whatever happens in between, what is handed out may be sent.

``HSM_KEYS_TEST_EXAMPLES=5000`` tries more than CI does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hsm_keys.errors import StoreUnavailableError
from hsm_keys.signing import presign
from hsm_keys.signing.headers import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from hsm_keys.signing.presign import PresigningSigner
from tests.support.models import model_settings
from tests.support.presigning import BALANCE, ORDERS, Clocks, CountingKey, work

if TYPE_CHECKING:
    from hsm_keys.signing.presign_pool import Route

ROUTES = st.sampled_from([ORDERS, BALANCE, ("DELETE", "/trade-api/v2/portfolio/events/orders/1")])
AHEAD_MS = 100
"""How far a timestamp may run ahead: a rounded clock, and the 20 milliseconds by which no two are alike."""


class Ahead(RuleBasedStateMachine):
    """A signer with its worker's work done by hand, and what it has handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(presign, "_work", lambda *_: None)
        self.clocks = Clocks()
        self.generation = 0
        self.signatures = self.taken = 0
        self.fails = self.closed = False
        self.kept: set[Route] = {ORDERS}
        self.handed_out: set[tuple[str, str]] = set()

    def key(self) -> CountingKey:
        return CountingKey(f"key-{self.generation}", before=self.before)

    def before(self) -> None:
        self.signatures += 1
        if self.fails:
            raise StoreUnavailableError("the token is gone", hint="plug it in")

    @initialize(depth=st.integers(1, 6), max_age=st.floats(0.05, 3.0), rate=st.floats(1, 500), learn=st.integers(0, 2))
    def open(self, depth: int, max_age: float, rate: float, learn: int) -> None:
        self.max_age_ms = max_age * 1000
        self.learns = learn > 0
        self.signer = PresigningSigner(
            self.key(),
            clock=self.clocks.wall,
            elapsed=self.clocks.elapsed,
            follow=self.key,
            routes=[ORDERS],
            depth=depth,
            max_age=max_age,
            rate=rate,
            learn=learn,
        )

    @rule(seconds=st.floats(0, 1.5))
    def worker_works(self, seconds: float) -> None:
        work(self.signer, self.clocks, seconds)

    @rule(seconds=st.floats(0, 4))
    def worker_sleeps(self, seconds: float) -> None:
        self.clocks.go_on(seconds)

    @rule(seconds=st.floats(-5, 5))
    def clock_is_set(self, seconds: float) -> None:
        self.clocks.set_by(seconds)

    @rule(seconds=st.floats(0, 1.5))
    def token_is_gone_for_a_while(self, seconds: float) -> None:
        self.fails = True
        work(self.signer, self.clocks, seconds)
        self.fails = False

    @rule()
    def key_is_rotated(self) -> None:
        old, self.generation = self.signer.api_key_id, self.generation + 1
        self.signer._fruitless = 0
        assert self.signer.moved_on(str(old))

    @rule(route=ROUTES, depth=st.integers(1, 4))
    def route_is_added(self, route: Route, depth: int) -> None:
        self.signer.add(*route, depth=depth)
        if not self.closed:
            self.kept.add(route)

    @rule(route=ROUTES)
    def route_is_discarded(self, route: Route) -> None:
        self.signer.discard(*route)
        self.kept.discard(route)

    @rule(really=st.integers(0, 9))
    def signer_is_closed(self, really: int) -> None:
        if really:  # there is no way back
            return
        self.signer.close()
        self.closed = True
        self.kept.clear()

    @rule(route=ROUTES, times=st.integers(1, 6))
    def headers_are_taken(self, route: Route, times: int) -> None:
        for _ in range(times):
            headers = self.signer.take(*route)
            if headers is not None:
                assert not self.closed
                assert route in self.kept or self.learns
                self.taken += 1
                self.check(headers)

    @rule(route=ROUTES, times=st.integers(1, 6))
    def requests_are_signed(self, route: Route, times: int) -> None:
        for _ in range(times):
            before = self.signatures
            self.check(self.signer.headers(*route))
            self.taken += self.signatures == before

    def check(self, headers: dict[str, str]) -> None:
        """Check that no request had them before, that they are of the key of now, and young enough."""
        one = headers[KEY_HEADER], headers[SIGNATURE_HEADER]
        assert one not in self.handed_out
        self.handed_out.add(one)
        assert headers[KEY_HEADER] == f"key-{self.generation}"
        assert -AHEAD_MS <= self.clocks.wall() - int(headers[TIMESTAMP_HEADER]) <= self.max_age_ms

    @invariant()
    def stats_add_up(self) -> None:
        if not hasattr(self, "signer"):
            return
        stats = self.signer.stats
        assert stats.taken == self.taken
        assert not (self.closed and stats.in_hand)

    def teardown(self) -> None:
        if hasattr(self, "signer"):
            self.signer.close()
        self.patch.undo()


TestAhead = Ahead.TestCase
TestAhead.settings = model_settings(25, steps=25)
