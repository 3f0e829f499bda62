"""Orders that may not go out twice: compared with a list of all that were sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.proxy.accounts import Demand
from hsm_keys.proxy.cap_clock import CapClock
from hsm_keys.proxy.duplicates import Duplicates
from hsm_keys.proxy.exposures import Exposure

_ORDERS = st.builds(
    lambda name, size: Exposure("KXTEST-1", "bid", size, 3300, rests=True, client_order_id=name),
    st.sampled_from(["a", "b"]),
    st.sampled_from([100, 200]),
)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["maker", "taker"]),
        st.lists(_ORDERS, min_size=1, max_size=2),
        st.sampled_from([0, 1, 999, 1000, 1001, 5000, 600_000]),
        st.booleans(),
    ),
    max_size=12,
)
_RULE = st.sampled_from([None, 1000, 6000, 600_000])


@given(_STEPS, _RULE, _RULE)
def test_an_order_goes_out_again_once_the_time_is_over_for_its_client_and_for_all(
    steps: list[tuple[str, list[Exposure], int, bool]], own_ms: int | None, all_ms: int | None
) -> None:
    duplicates, sent, now_ms = Duplicates(), list[tuple[str, object, int]](), 0
    clock = CapClock(lambda: 0, lambda: now_ms * 1_000_000)
    now_ms = 10**12
    for client, orders, later_ms, never_came_to_be in steps:
        now_ms += later_ms
        demand = Demand(orders)
        keys: list[object] = [key for order in orders for key in (order.client_order_id, order[:5])]
        is_early = any(
            key == other
            and (
                (own_ms is not None and whose == client and now_ms - at_ms < own_ms)
                or (all_ms is not None and now_ms - at_ms < all_ms)
            )
            for key in keys
            for whose, other, at_ms in sent
        )
        is_twice = len(set(keys)) < len(keys) and (own_ms or all_ms) is not None
        denial = duplicates.against(client, own_ms, all_ms, demand, clock)
        assert (denial is not None) == (is_early or is_twice)
        if denial is not None:
            now_ms += 1000 * denial.retry_after
            later = duplicates.against(client, own_ms, all_ms, demand, clock)
            assert (later is not None) == is_twice
            now_ms -= 1000 * denial.retry_after
            continue
        duplicates.note(client, demand.keys, now_ms)
        sent = [entry for entry in sent if entry[:2] not in {(client, key) for key in keys}]
        if never_came_to_be:
            for order in orders:
                duplicates.forget(client, order.keys, now_ms)
        else:
            sent += [(client, key, now_ms) for key in keys]


def test_what_is_too_old_is_forgotten_however_much_there_was() -> None:
    duplicates = Duplicates()
    for at_ms in range(0, 5_000_000, 1000):
        duplicates.note("maker", [f"c{at_ms}"], at_ms)
    names = [key for _, key, _ in duplicates.items()]
    assert names[-1] == "c4999000"
    assert len(names) <= 1203


def test_an_order_that_was_never_made_is_forgotten_even_if_many_were_sent_since() -> None:
    """Whether it came to be is known two minutes later: by then others may have begun another ten minutes."""
    duplicates, now_ms = Duplicates(), 0
    clock = CapClock(lambda: 0, lambda: now_ms * 1_000_000)
    now_ms = 10**12
    demand = Demand([Exposure("KXTEST-1", "bid", 100, 3300, client_order_id="a")])
    duplicates.note("taker", ["begins"], now_ms - 600_000)
    duplicates.note("maker", demand.keys, now_ms)
    duplicates.note("taker", ["begins another"], now_ms + 1)
    assert duplicates.against("maker", 600_000, None, demand, clock) is not None
    duplicates.forget("maker", demand.keys, now_ms)
    assert duplicates.against("maker", 600_000, None, demand, clock) is None
    assert [name for name, _, _ in duplicates.items()] == ["taker", "taker"]


def test_duplicates_of_a_client_delay_no_other_client_and_the_rule_for_all_ends_on_time() -> None:
    duplicates, now_ms = Duplicates(), 0
    clock = CapClock(lambda: 0, lambda: now_ms * 1_000_000)
    now_ms = 10**12
    demand = Demand([Exposure("KXTEST-1", "bid", 100, 3300, client_order_id="a")])
    duplicates.note("maker", demand.keys, now_ms)
    assert duplicates.against("taker", 1000, None, demand, clock) is None, "in the same millisecond"
    now_ms += 999
    assert duplicates.against("maker", None, 1000, demand, clock) is not None
    now_ms += 1
    assert duplicates.against("maker", None, 1000, demand, clock) is None


def test_a_batch_with_one_name_twice_is_told_so() -> None:
    duplicates, clock = Duplicates(), CapClock(lambda: 0, lambda: 0)
    order = Exposure("KXTEST-1", "bid", 100, 3300, client_order_id="a")
    denial = duplicates.against("maker", 1000, None, Demand([order, order._replace(size=200)]), clock)
    assert denial is not None
    assert denial.message == "that client_order_id went out already; again in 1 s"
