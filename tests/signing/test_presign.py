"""What is made ahead, when, and what is never handed out: with clocks that the test moves."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.errors import UsageError
from hsm_keys.signing import presign
from hsm_keys.signing.headers import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from hsm_keys.signing.presign import PresigningSigner, presign_cost
from hsm_keys.signing.together import SignsTogether
from tests.support.presigning import BALANCE, ORDERS, Clocks, CountingKey, clocks, key, make, no_worker, work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["clocks", "key", "make", "no_worker"]  # pytest finds the fixtures here

CANCEL = ("DELETE", "/trade-api/v2/portfolio/events/orders/1")


class TogetherKey(CountingKey, SignsTogether):
    """Signs several messages at once, and remembers how many."""

    def __init__(self, *, before: Callable[[], object]) -> None:
        super().__init__(before=before)
        self.together: list[int] = []

    def sign_all(self, messages: Sequence[bytes], /) -> list[bytes]:
        self.together.append(len(messages))
        return [self.sign(message) for message in messages]


def test_what_is_in_hand_is_handed_out_once_the_oldest_first(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey
) -> None:
    signer = make(depth=4)
    work(signer, clocks, 0.1)
    assert len(key.messages) == 4
    taken = [signer.headers(*ORDERS) for _ in range(4)]
    assert len(key.messages) == 4
    assert len({headers[SIGNATURE_HEADER] for headers in taken}) == 4
    stamps = [int(headers[TIMESTAMP_HEADER]) for headers in taken]
    assert stamps == sorted(stamps)
    assert [m.decode() for m in key.messages] == [f"{stamp}POST{ORDERS[1]}" for stamp in stamps]
    signer.headers(*ORDERS)  # nothing left: signed at once
    assert len(key.messages) == 5
    assert (signer.stats.taken, signer.stats.missed, signer.stats.made) == (4, 1, 4)


def test_no_two_headers_of_a_route_are_alike_where_equal_messages_are_signed_alike(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey
) -> None:
    """Ed25519 makes the same signature of the same message: in one millisecond, of those in hand and at once."""
    signer = make(depth=4, rate=1e6)
    signed_at_once = [signer.headers(*ORDERS) for _ in range(3)]
    while signer.stats.in_hand < 4:
        signer._work_once()
        clocks.real_ns += 2_000  # far less than a millisecond
    drawn = [*signed_at_once, *(signer.headers(*ORDERS) for _ in range(6))]
    assert len(key.messages) == len(drawn) == len(set(key.messages))
    assert {int(headers[TIMESTAMP_HEADER]) - clocks.wall() for headers in drawn} == set(range(len(drawn)))


def test_timestamps_that_differ_never_run_far_ahead(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    signer = make()
    stamps = [int(signer.headers(*ORDERS)[TIMESTAMP_HEADER]) - clocks.wall() for _ in range(200)]
    assert (min(stamps), max(stamps)) == (0, 20)
    clocks.set_by(-60)
    assert int(signer.headers(*ORDERS)[TIMESTAMP_HEADER]) == clocks.wall()


def test_however_a_route_is_written_it_is_the_same(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey
) -> None:
    signer = make(("get", BALANCE[1] + "/"))
    work(signer, clocks, 0.1)
    made = len(key.messages)
    signer.headers("GET", BALANCE[1])
    signer.headers("get", BALANCE[1] + "?subaccount=1")
    assert len(key.messages) == made
    signer.headers("POST", BALANCE[1])
    assert len(key.messages) == made + 1


def test_a_given_timestamp_is_signed_at_once(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    signer = make()
    work(signer, clocks, 0.1)
    assert signer.headers(*ORDERS, timestamp_ms=7)[TIMESTAMP_HEADER] == "7"
    assert (signer.stats.taken, signer.stats.missed) == (0, 0)


@pytest.mark.parametrize(("seconds", "fresh"), [(0.999, True), (1.0, True), (1.001, False), (60.0, False)])
def test_nothing_is_handed_out_that_is_too_old(
    make: Callable[..., PresigningSigner], clocks: Clocks, seconds: float, *, fresh: bool
) -> None:
    signer = make(depth=1, max_age=1.0)
    signer._work_once()
    made_at = clocks.wall()
    clocks.go_on(seconds)  # and no worker that would replace it
    headers = signer.headers(*ORDERS)
    assert (headers[TIMESTAMP_HEADER] == str(made_at)) is fresh
    assert int(headers[TIMESTAMP_HEADER]) >= clocks.wall() - 1000
    assert signer.stats.expired == (not fresh)


def test_as_they_age_they_are_made_again(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey
) -> None:
    signer = make(depth=3, max_age=1.0, rate=20)
    work(signer, clocks, 0.5)
    for _ in range(200):
        work(signer, clocks, 0.05)
        assert 3 <= signer.stats.in_hand <= 4
        assert all(signer._pools.is_good(entry, "id") for entry in signer._pools.by_route[ORDERS].entries)
    made = len(key.messages)
    for _ in range(3):
        assert clocks.wall() - int(signer.headers(*ORDERS)[TIMESTAMP_HEADER]) <= 1000
    assert len(key.messages) == made


@pytest.mark.parametrize("rate", [1.0, 7.5, 50.0])
def test_the_rate_is_kept_whatever_is_asked_for(
    make: Callable[..., PresigningSigner], clocks: Clocks, rate: float
) -> None:
    signed: list[int] = []
    key = CountingKey(before=lambda: signed.append(clocks.real_ns))
    signer = make(ORDERS, BALANCE, key=key, depth=50, rate=rate)
    for _ in range(100):
        work(signer, clocks, 0.1)
        while signer.take(*ORDERS):
            pass
    assert len(signed) >= 10 * rate * 0.9
    gaps = [later - earlier for earlier, later in pairwise(signed)]
    assert min(gaps) >= 1e9 / rate


def test_where_the_rate_is_too_low_the_routes_take_turns(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey
) -> None:
    signer = make(ORDERS, BALANCE, depth=20, rate=10)
    work(signer, clocks, 10)
    orders = sum(b"POST" in message for message in key.messages)
    assert abs(orders - len(key.messages) / 2) <= 2


@pytest.mark.parametrize(
    ("routes", "setting"),
    [
        (1, {}),
        (2, {"max_age": 0.5, "rate": 100.0}),
        (2, {"depth": 8, "max_age": 3.0, "rate": 2.0}),
        (1, {"depth": 1, "max_age": 3.0}),
    ],
)
def test_it_costs_what_it_is_said_to_cost(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey, routes: int, setting: dict[str, Any]
) -> None:
    work(make(*[ORDERS, BALANCE][:routes], **setting), clocks, 120)
    said = presign_cost(routes=routes, price_per_10_000=0.5, **setting)
    assert said.price_per_hour == pytest.approx(said.signatures_per_hour * 0.5 / 10_000)
    assert len(key.messages) * 30 == pytest.approx(said.signatures_per_hour, rel=0.05)
    assert presign_cost(routes=1).price_per_hour is None


def test_the_worker_sleeps_until_something_is_due(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    signer = make(depth=4, max_age=1.0, rate=50)
    assert work(signer, clocks, 60) <= 60 * 4 / 0.75 * 2 + 10  # one look and one signature each
    for _ in range(2):
        signer.take(*ORDERS)
    assert signer._wake_ups.qsize() == 1  # half empty: told once
    told: list[Callable[[], None]] = []
    patient = make(depth=4)
    work(patient, clocks, 0.1)
    for _ in range(4):
        assert patient.take(*ORDERS, later=told.append)
    assert (patient._wake_ups.qsize(), len(told)) == (0, 1)  # nobody wakes it but who was asked to
    told[0]()
    assert patient._wake_ups.qsize() == 1
    idle = make(CANCEL)
    idle.discard(*CANCEL)
    assert idle._work_once() is None


def test_routes_come_and_go(make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey) -> None:
    signer = make()
    signer.add(*CANCEL, depth=1)
    work(signer, clocks, 0.2)
    assert sum(b"DELETE" in message for message in key.messages) == 1
    signer.headers(*CANCEL)
    signer.discard(*CANCEL)
    signer.discard(*CANCEL)
    work(signer, clocks, 5)
    assert sum(b"DELETE" in message for message in key.messages) <= 2
    assert signer.stats.in_hand == 4
    signer.discard(*ORDERS)
    assert signer.stats.in_hand == 0
    made = len(key.messages)
    work(signer, clocks, 5)
    assert len(key.messages) == made


def test_a_route_that_is_discarded_while_it_is_signed_for_leaves_nothing(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey
) -> None:
    signer = make()
    pool = signer._pools.by_route[ORDERS]
    key.before = lambda: signer.discard(*ORDERS)
    work(signer, clocks, 1)
    assert not pool.entries
    assert (signer.stats.made, signer.stats.discarded) == (1, 1)


def test_routes_are_learned_from_their_second_use_if_asked_for(
    make: Callable[..., PresigningSigner], clocks: Clocks
) -> None:
    plain, learning = make(), make(learn=2)
    for signer in (plain, learning):
        signer.headers(*BALANCE)
        signer.headers(*CANCEL)
        work(signer, clocks, 0.2)
        assert signer.take(*BALANCE) is None
        signer.headers(*BALANCE)
        work(signer, clocks, 0.2)
    assert plain.take(*BALANCE) is None
    assert learning.take(*BALANCE)
    assert learning.take(*CANCEL) is None


def test_what_is_learned_is_bounded_and_forgotten(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    signer = make(learn=2)
    paths = [f"/trade-api/v2/markets/M{number}" for number in range(3)]
    for path in paths:
        for _ in range(2):
            signer.headers("GET", path)
        work(signer, clocks, 0.5)
        signer.headers("GET", path)
        work(signer, clocks, 0.5)
    assert [("GET", path) in signer._pools.by_route for path in paths] == [False, True, True]
    for _ in range(12):
        signer.headers("GET", paths[1])
        work(signer, clocks, 10)
    assert [("GET", path) in signer._pools.by_route for path in paths] == [False, True, False]
    work(signer, clocks, 70)
    assert list(signer._pools.by_route) == [ORDERS]  # what was named stays


@pytest.mark.parametrize(
    ("a_second", "rate", "in_hand"), [(400, 2500, 20), (1000, 2500, 32), (60, 2500, 4), (400, 200, 10)]
)
def test_a_learned_route_has_as_many_in_hand_as_are_asked_for_in_50_ms(
    make: Callable[..., PresigningSigner], clocks: Clocks, a_second: int, rate: int, in_hand: int
) -> None:
    signer = make(learn=1, rate=rate)

    def ask(number: int) -> None:
        for _ in range(number):
            signer.headers(*BALANCE)
            signer.take(*ORDERS)
            work(signer, clocks, 1 / a_second)

    ask(a_second)
    pools = signer._pools.by_route
    assert pools[BALANCE].depth == pytest.approx(in_hand, abs=1)
    assert pools[ORDERS].depth == 4  # as it was named
    missed = signer.stats.missed
    ask(40)
    assert rate < a_second or signer.stats.missed == missed
    work(signer, clocks, 2)
    assert (pools[BALANCE].depth, len(pools[BALANCE].entries)) == (4, 4)


@pytest.mark.parametrize(
    ("rate", "each_ms", "most"), [(2500, 0.4, 8), (2500, 2, 2), (2500, 50, 1), (500, 0.4, 2), (50, 0.4, 1)]
)
def test_signing_together_takes_at_most_5_ms_and_stays_near_the_rate(
    make: Callable[..., PresigningSigner], clocks: Clocks, rate: int, each_ms: float, most: int
) -> None:
    key = TogetherKey(before=lambda: clocks.go_on(each_ms / 1000))
    signer = make(depth=20, rate=rate, key=key)
    work(signer, clocks, 2)
    assert max(key.together, default=1) == most
    assert len(key.messages) == len(set(key.messages))
    assert len(key.messages) <= 2 * rate + most


def test_closed_it_is_a_plain_signer(make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey) -> None:
    with make() as signer:
        work(signer, clocks, 0.1)
    assert signer.stats.in_hand == 0
    made = len(key.messages)
    assert signer.headers(*ORDERS)[TIMESTAMP_HEADER] == str(clocks.wall())
    signer.add(*BALANCE)
    signer.close()
    work(signer, clocks, 10)
    assert len(key.messages) == made + 1


def test_nothing_of_a_signature_shows(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    signer = make()
    signer.key.sign = lambda _: b"signature-canary"  # type: ignore[method-assign]
    signer._live = ("id", lambda _: b"signature-canary", signer.key)
    work(signer, clocks, 0.1)
    shown = signer.headers(*ORDERS)[SIGNATURE_HEADER]
    assert shown not in f"{signer!r}{signer}{signer.stats!r}"
    assert repr(signer) == "PresigningSigner(key='prod', api_key_id='id', routes=1)"


@pytest.mark.parametrize(
    "options",
    [
        {"max_age": 3.01},
        {"max_age": 0},
        {"max_age": -1},
        {"max_age": math.nan},
        {"rate": 0},
        {"rate": math.inf},
        {"rate": math.nan},
        {"depth": 0},
        {"depth": 1001},
        {"learn": -1},
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[..., PresigningSigner], options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make(**options)
    if "learn" not in options:
        with pytest.raises(UsageError):
            presign_cost(routes=1, **options)


def test_three_seconds_are_allowed(make: Callable[..., PresigningSigner]) -> None:
    assert make(max_age=3.0).stats.in_hand == 0
    with pytest.raises(UsageError, match="number of routes"):
        presign_cost(routes=-1)


@pytest.mark.parametrize("route", [("GET", "/portfolio/balance"), ("GET", "no path"), ("G E T", BALANCE[1])])
def test_routes_that_nothing_could_go_to_are_refused(
    make: Callable[..., PresigningSigner], route: tuple[str, str]
) -> None:
    with pytest.raises(UsageError):
        make(route)
    signer = make()
    with pytest.raises(UsageError):
        signer.add(*route)
    with pytest.raises(UsageError):
        signer.add(*BALANCE, depth=0)
    assert list(signer._pools.by_route) == [ORDERS]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("work"), st.floats(0, 1.5)),
            st.tuples(st.just("wait"), st.floats(0, 1.5)),
            st.tuples(st.just("set"), st.floats(-5, 5)),
            st.tuples(st.just("take"), st.integers(1, 6)),
            st.tuples(st.just("rotate"), st.none()),
        ),
        max_size=30,
    ),
    st.floats(0.05, 3.0),
    st.floats(1, 200),
)
def test_whatever_happens_headers_are_new_and_fresh(
    happenings: list[tuple[str, Any]], max_age: float, rate: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presign, "_work", lambda *_: None)
        clocks, generations = Clocks(), [0]
        signer = PresigningSigner(
            CountingKey("key-0"),
            clock=clocks.wall,
            elapsed=clocks.elapsed,
            follow=lambda: CountingKey(f"key-{generations[0]}"),
            routes=[ORDERS],
            max_age=max_age,
            rate=rate,
        )
        seen: set[tuple[str, str]] = set()
        for what, amount in happenings:
            if what == "work":
                work(signer, clocks, amount)
            elif what == "wait":
                clocks.go_on(amount)
            elif what == "set":
                clocks.set_by(amount)
            elif what == "rotate":
                old, generations[0] = signer.api_key_id, generations[0] + 1
                signer._fruitless = 0
                assert signer.moved_on(old)
            else:
                for _ in range(amount):
                    headers = signer.headers(*ORDERS)
                    one = headers[KEY_HEADER], headers[SIGNATURE_HEADER]
                    assert one not in seen
                    seen.add(one)
                    assert headers[KEY_HEADER] == f"key-{generations[0]}"
                    age_ms = clocks.wall() - int(headers[TIMESTAMP_HEADER])
                    assert -100 <= age_ms <= max_age * 1000
