"""What a ledger of caps says after a restart, and where its journal can't be written."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from hsm_keys.proxy import cap_clock
from hsm_keys.proxy.accounts import MINUTE_MS, DaySum, Demand
from hsm_keys.proxy.cap_clock import CapClock
from hsm_keys.proxy.duplicates import Duplicates
from hsm_keys.proxy.exposures import Exposure
from hsm_keys.proxy.journal import Journal
from hsm_keys.proxy.reservations import Reservations, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.proxy.reservations import ReservedOrder

ORDER = Exposure("KXTEST-1", "bid", 1000, 5000, client_order_id="c1")
MS = 1_000_000  # nanoseconds


class Proxy:
    """A ledger, and those that read its journal after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ms = 1_700_000_000_000
        self.start()

    def start(self) -> None:
        self.journal = Journal(self.folder)
        self.held = Reservations(self.journal, clock=CapClock(lambda: self.now_ms * MS, lambda: self.now_ms * MS))

    def restart(self, times: int = 1) -> None:
        for _ in range(times):
            self.journal.close()
            self.start()

    def place(self, asked: Exposure = ORDER) -> ReservedOrder:
        return self.held.reserve("maker", Demand([asked]), remember=True)[0]


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path)
    yield proxy
    proxy.journal.close()


@pytest.mark.parametrize("made_smaller", [False, True])
def test_no_request_is_under_way_after_a_restart(*, made_smaller: bool, proxy: Proxy) -> None:
    """Else what was lost to a kill would never be looked up, and be held for ever."""
    assert proxy.place().is_under_way
    if made_smaller:
        proxy.held._compact()
    proxy.restart()
    assert [order.is_under_way for order in proxy.held.orders.values()] == [False]


def test_an_order_is_found_by_its_id_and_its_age_after_two_restarts(proxy: Proxy) -> None:
    placed = proxy.place()
    proxy.held.settle([State(placed.number, 0, 1000, "o1")])
    proxy.restart(2)
    proxy.now_ms += 5000
    order = proxy.held.by_order_id("o1")
    assert order is not None
    assert (order.number, proxy.held.age_ms(order)) == (placed.number, 5000)
    proxy.held.settle([State(order.number, 1000, 0)])
    assert (proxy.held.orders, proxy.held.by_order_id("o1")) == ({}, None)


def test_an_answer_that_can_not_be_written_down_counts_and_is_logged(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    order = proxy.place()
    (proxy.folder / "journal").unlink()
    proxy.journal._looked_at = 0
    with caplog.at_level(logging.WARNING):
        proxy.held.settle([State(order.number, 0, 0)])
    assert proxy.held.account("maker").live == 0
    assert "the journal of the caps" in caplog.text
    assert "can't be written: it was removed; a restart begins anew with full caps" in caplog.text


def test_a_journal_that_can_not_be_made_smaller_goes_on(
    proxy: Proxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.place()
    monkeypatch.setattr(proxy.journal, "_new", proxy.folder / "nowhere" / "journal.new")
    with caplog.at_level(logging.WARNING):
        proxy.held._compact()
    assert "the journal of the caps isn't made smaller: the journal of the caps, " in caplog.text
    proxy.place(ORDER._replace(client_order_id="c2"))
    proxy.restart()
    assert [order.asked.client_order_id for order in proxy.held.orders.values()] == ["c1", "c2"]


def test_of_two_answers_to_an_order_that_is_over_the_rest_of_the_line_counts(proxy: Proxy) -> None:
    first, second = proxy.place(), proxy.place(ORDER._replace(client_order_id="c2"))
    proxy.held.settle([State(first.number, 0, 0), State(first.number, 0, 0), State(second.number, 0, 0)])
    assert proxy.held.account("maker").live == 0


def test_asks_that_rest_and_asks_that_were_filled_count_once(proxy: Proxy) -> None:
    ask = proxy.place(ORDER._replace(side="ask"))
    account = proxy.held.account("maker")
    assert account.room("KXTEST-1", "ask", 2500) == 1500
    for filled in (200, 500):
        proxy.held.settle([State(ask.number, filled, 1000 - filled, "o1")])
        assert account.room("KXTEST-1", "ask", 2500) == 1500
        assert account.room("KXTEST-1", "bid", 2500) == 2500 + filled


def test_a_perpetual_future_is_in_no_account(proxy: Proxy) -> None:
    order = proxy.place(ORDER._replace(cost=0, perps=True))
    proxy.held.settle([State(order.number, 400, 600, "o1")])
    assert (proxy.held.clients, dict(proxy.held.account("maker").markets)) == (["maker"], {})


def test_an_order_of_which_something_was_filled_went_out(proxy: Proxy) -> None:
    """Its id isn't known, and it is over: it was sent all the same."""
    order = proxy.place()
    proxy.held.settle([State(order.number, 1000, 0)])
    assert [key for _, key, _ in proxy.held._duplicates.items()] == list(ORDER.keys)


def test_what_was_spent_in_several_minutes_is_forgotten_one_after_the_other() -> None:
    spent = DaySum()
    for minute in range(3):
        spent.add(100, minute * MINUTE_MS)
        spent.add(1, minute * MINUTE_MS + 1)
    assert spent.back_at(101) == spent.minutes[0][0] * MINUTE_MS + 1441 * MINUTE_MS
    assert spent.back_at(102) == 1442 * MINUTE_MS
    assert [row[1] for row in spent.minutes] == [101, 101, 101]
    spent.add(5, 1441 * MINUTE_MS)
    assert spent.total == 101 + 101 + 5


def test_sent_orders_are_remembered_for_ten_minutes_even_if_many_follow() -> None:
    duplicates = Duplicates()
    for at_ms in range(10**12, 10**12 + 600_000, 100_000):
        duplicates.note("maker", [f"c{at_ms}"], at_ms)
        duplicates.note("maker", ["again"], at_ms)
    demand, now_ms = Demand([ORDER._replace(client_order_id=f"c{10**12}")]), 0
    clock = CapClock(lambda: 0, lambda: now_ms * MS)
    now_ms = 10**12 + 599_999
    assert duplicates.against("maker", 600_000, None, demand, clock) is not None
    assert [key for _, key, _ in duplicates.items()].count("again") == 1


def test_where_the_system_names_no_boot_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cap_clock, "_BOOT_ID", tmp_path / "none")
    cap_clock._boot_id.cache_clear()
    try:
        assert CapClock().reading().boot_id == ""
    finally:
        cap_clock._boot_id.cache_clear()
