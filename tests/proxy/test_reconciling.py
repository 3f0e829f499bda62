"""What Kalshi's lists say of orders that hold something of the caps."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from hsm_keys.kalshi.operations import REST_PREFIX
from hsm_keys.proxy import reconciling
from hsm_keys.proxy.accounts import Demand
from hsm_keys.proxy.cap_clock import CapClock
from hsm_keys.proxy.exchanges import order_id_of, order_path
from hsm_keys.proxy.exposures import Exposure
from hsm_keys.proxy.journal import Journal, read_journal
from hsm_keys.proxy.reconciling import Reconciler
from hsm_keys.proxy.reservations import Reservations, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.proxy.reservations import ReservedOrder

ORDER = Exposure("KXTEST-1", "bid", 1000, 5000, rests=True, client_order_id="c1")
LATE_MS = 120_000
MS = 1_000_000  # nanoseconds


class Kalshi:
    """Kalshi's lists, and a proxy that looks at them."""

    def __init__(self, journal: Journal, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms
        self.set_ms = 0
        self.held = Reservations(
            journal, clock=CapClock(lambda: self.now_ms * MS, lambda: (self.now_ms - self.set_ms) * MS)
        )
        self.orders: list[dict[str, Any]] = []
        self.fills: list[dict[str, Any]] = []
        self.only_by_id: dict[str, dict[str, Any]] = {}
        self.status = 200
        self.asked: list[tuple[str, str]] = []
        self.looking = Reconciler(self.held, self._get, journal, lambda: True)

    async def _get(self, path: str, query: str) -> tuple[int, bytes]:
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        self.asked.append((path, query))
        if path == "/portfolio/fills":
            fills = [one for one in self.fills if asked.get("ticker") in {None, one.get("ticker", "KXTEST-1")}]
            return self.status, json.dumps({"fills": fills, "cursor": ""}).encode()
        if path != "/portfolio/orders":
            order_id = path.rpartition("/")[2]
            order = next((one for one in self.orders if one["order_id"] == order_id), self.only_by_id.get(order_id))
            return (200, json.dumps({"order": order}).encode()) if order else (404, b"{}")
        listed = [one for one in self.orders if asked.get("status") in {None, one["status"]}]
        at = int(asked.get("cursor", 0))  # a page has one order
        page = {"orders": listed[at : at + 1], "cursor": str(at + 1) if at + 1 < len(listed) else ""}
        return self.status, json.dumps(page).encode()

    def place(self, asked: Exposure = ORDER, order_id: str = "o1") -> ReservedOrder:
        [order] = self.held.reserve("maker", Demand([asked]))
        order.is_under_way = False
        if order_id:
            self.held.settle([State(order.number, 0, asked.size, order_id)])
        return order

    def has(self, filled: str, remaining: str, *, status: str = "resting", order_id: str = "o1", **said: str) -> None:
        self.orders = [one for one in self.orders if one["order_id"] != order_id]
        self.orders.append(
            {"order_id": order_id, "client_order_id": "c1", "status": status, "yes_price_dollars": "0.500000"}
            | {"fill_count_fp": filled, "remaining_count_fp": remaining, "ticker": "KXTEST-1", **said}
        )

    def set_clock(self, by_ms: int) -> None:
        self.now_ms += by_ms
        self.set_ms += by_ms

    def look(self, times: int = 1) -> tuple[int, int]:
        """Look, and return what was spent and what may still be, in contracts at half a dollar."""
        for _ in range(times):
            asyncio.run(self.looking.look())
        account = self.held.account("maker")
        return account.day.total // 5000, account.live // 5000


@pytest.fixture
def kalshi(tmp_path: Path) -> Iterator[Kalshi]:
    journal = Journal(tmp_path)
    yield Kalshi(journal)
    journal.close()


def test_an_order_that_rests_is_as_kalshi_says(kalshi: Kalshi) -> None:
    kalshi.place()
    kalshi.place(ORDER._replace(client_order_id="c2"), "o2")
    kalshi.has("4.00", "6.00")
    kalshi.has("0.00", "10.00", order_id="o2")
    assert kalshi.look() == (4, 16)


def test_an_order_that_no_longer_rests_counts_as_filled_by_its_fills_at_the_second_look(kalshi: Kalshi) -> None:
    kalshi.place()
    kalshi.fills = [{"order_id": "o1", "count_fp": "3.00"}, {"order_id": "o2", "count_fp": "3.00"}]
    assert kalshi.look() == (0, 10)
    assert kalshi.look() == (3, 0)


def test_a_fill_that_can_not_be_read_may_be_all(kalshi: Kalshi) -> None:
    kalshi.place()
    kalshi.fills = [{"order_id": "o1", "count_fp": 3}]
    assert kalshi.look(2) == (10, 0)


@pytest.mark.parametrize(
    ("status", "filled", "remaining", "expected"),
    [("resting", "4.00", "6.00", (4, 6)), ("executed", "10.00", "0.00", (10, 0)), ("canceled", "4.00", "0.00", (4, 0))],
)
def test_a_lost_answer_is_found(
    status: str, filled: str, remaining: str, expected: tuple[int, int], kalshi: Kalshi
) -> None:
    kalshi.place(order_id="")
    kalshi.has(filled, remaining, status=status)
    assert kalshi.look() == expected


@pytest.mark.parametrize(
    ("is_listed", "said"), [(True, "0 filled further, 1 over, 0 never"), (False, "0 filled further, 0 over, 1 never")]
)
def test_of_a_lost_order_it_is_said_whether_it_came_to_be(
    said: str, kalshi: Kalshi, caplog: pytest.LogCaptureFixture, *, is_listed: bool
) -> None:
    kalshi.place(order_id="")
    if is_listed:
        kalshi.has("0.00", "0.00", status="canceled")
    kalshi.now_ms += LATE_MS + 1
    assert kalshi.look() == (0, 0)
    assert said in caplog.text


def test_an_order_that_was_never_made_is_given_back_when_its_signature_is_too_old(kalshi: Kalshi) -> None:
    kalshi.place(order_id="")
    assert kalshi.look(3) == (0, 10)
    kalshi.now_ms += LATE_MS
    assert kalshi.look() == (0, 10)
    kalshi.now_ms += 1
    assert kalshi.look() == (0, 0)


def test_a_lost_order_is_given_up_two_minutes_after_its_request_ended(kalshi: Kalshi) -> None:
    """A token may take its time."""
    order = kalshi.place(order_id="")
    order.is_under_way = True
    kalshi.now_ms += LATE_MS + 1
    kalshi.held.end([order])
    assert kalshi.look(2) == (0, 10)
    kalshi.now_ms += LATE_MS
    assert kalshi.look() == (0, 10)
    kalshi.now_ms += 1
    assert kalshi.look() == (0, 0)


def test_an_order_is_late_two_minutes_after_a_restart_whenever_it_was_reserved_for(
    kalshi: Kalshi, tmp_path: Path
) -> None:
    """The proxy may have been killed right behind the signature."""
    kalshi.place(order_id="")
    kalshi.now_ms += LATE_MS + 1
    shutil.copytree(tmp_path, tmp_path / "copy")
    journal = Journal(tmp_path / "copy")
    again = Kalshi(journal, kalshi.now_ms)
    for later_ms, expected in ((LATE_MS, (0, 10)), (1, (0, 0))):
        again.now_ms += later_ms
        assert again.look() == expected
    journal.close()


@pytest.mark.parametrize("by_ms", [-3_600_000, 3_600_000, 90_000_000])
def test_a_clock_that_is_set_gives_nothing_back_before_its_time(by_ms: int, kalshi: Kalshi) -> None:
    kalshi.place(order_id="")
    kalshi.set_clock(by_ms)
    assert kalshi.look(2) == (0, 10)
    kalshi.now_ms += LATE_MS
    assert kalshi.look() == (0, 10)
    kalshi.now_ms += 1
    assert kalshi.look() == (0, 0)


def test_an_order_is_looked_for_by_the_time_that_the_clock_gave(kalshi: Kalshi, tmp_path: Path) -> None:
    kalshi.set_clock(3_600_000)  # an hour ahead,
    kalshi.place(ORDER._replace(market="KXOTHER", client_order_id="c0"), "o0")
    kalshi.set_clock(-3_600_000)  # and put right
    order = kalshi.place(order_id="")
    kalshi.look()
    asked = parse_qs(next(query for _, query in kalshi.asked if "ticker=KXTEST-1" in query))
    assert int(asked["min_ts"][0]) == kalshi.now_ms // 1000 - 60
    read = read_journal(tmp_path / "journal")
    again = Reservations(clock=CapClock(lambda: (kalshi.now_ms + 30_000) * MS, lambda: 5, "the next boot"))
    again._replay_all(read)
    assert again.orders[order.number].since_ms == kalshi.now_ms
    assert again.age_ms(again.orders[order.number]) == 30_000


def test_of_orders_that_had_its_name_the_most_that_any_says_is_believed(kalshi: Kalshi) -> None:
    kalshi.place(order_id="")
    kalshi.has("12.00", "0.00", status="executed", order_id="older")
    kalshi.has("0.00", "10.00", order_id="o1")
    assert kalshi.look() == (12, 10)
    assert kalshi.held.orders[1].order_id == "o1"


def test_an_old_order_with_the_same_client_order_id_says_nothing_about_a_lost_one(kalshi: Kalshi) -> None:
    """Else an order that comes late, or that Kalshi lists late, would rest without being held."""
    first = kalshi.place(order_id="older")
    kalshi.has("4.00", "0.00", status="canceled", order_id="older")
    kalshi.held.settle([State(first.number, 400, 0, "older")])
    kalshi.place(order_id="")
    kalshi.fills = [{"order_id": "older", "count_fp": "4.00"}]
    kalshi.only_by_id = {"older": kalshi.orders[0]}
    assert kalshi.look(2) == (4, 10)
    kalshi.has("1.00", "9.00")
    assert kalshi.look() == (5, 9)
    kalshi.place(order_id="")
    kalshi.orders = []
    kalshi.now_ms += LATE_MS + 1
    assert kalshi.look(3) == (5, 0)


def test_an_id_of_an_order_that_is_over_is_kept_for_ten_minutes(kalshi: Kalshi) -> None:
    for name in ("o1", "o2"):
        order = kalshi.place(ORDER._replace(client_order_id=name), name)
        kalshi.held.settle([State(order.number, 0, 0, name)])
        kalshi.now_ms += 1
    kalshi.now_ms += 600_000 - 1
    order = kalshi.place(ORDER._replace(client_order_id="o3"), "o3")
    kalshi.held.settle([State(order.number, 0, 0, "o3")])
    assert [kalshi.held.has_ended(name) for name in ("o1", "o2", "o3")] == [False, True, True]


def test_a_fill_of_nobodys_order_may_be_of_the_one_that_is_lost(kalshi: Kalshi) -> None:
    kalshi.place(order_id="")
    kalshi.now_ms += LATE_MS + 1
    kalshi.fills = [{"order_id": "unknown", "ticker": "KXTEST-1", "count_fp": "3.00"}]
    assert kalshi.look(2) == (0, 10)
    kalshi.fills[0]["ticker"] = "KXTEST-2"
    assert kalshi.look() == (0, 0)


def test_a_fill_of_an_older_order_is_not_of_the_one_that_is_lost(kalshi: Kalshi) -> None:
    kalshi.place(order_id="")
    kalshi.now_ms += LATE_MS + 1
    kalshi.fills = [{"order_id": "older", "ticker": "KXTEST-1", "count_fp": "3.00"}]
    assert kalshi.look() == (0, 10)
    kalshi.only_by_id = {"older": {"client_order_id": "c0"}}
    assert kalshi.look() == (0, 0)
    kalshi.place(order_id="")
    kalshi.now_ms += LATE_MS + 1
    found = {"order_id": "older", "client_order_id": "c1", "status": "executed"}
    kalshi.only_by_id = {"older": {**found, "fill_count_fp": "3.00", "remaining_count_fp": "0.00"}}
    assert kalshi.look() == (3, 0)


def test_a_name_that_an_amendment_gave_to_another_order_hides_nothing(kalshi: Kalshi) -> None:
    kalshi.place(ORDER._replace(client_order_id="c0"), "o0")
    kalshi.place(order_id="")
    kalshi.has("1.00", "9.00", order_id="o0")  # held, and of the same name by now
    kalshi.has("1.00", "0.00", status="executed", order_id="o9")
    kalshi.has("4.00", "6.00", order_id="o1")
    kalshi.has("2.00", "0.00", status="executed", order_id="o8")
    assert kalshi.look() == (5, 15)
    assert kalshi.held.orders[2].order_id == "o1"


def test_nothing_is_given_back_while_a_request_is_under_way_or_kalshi_says_nothing(kalshi: Kalshi) -> None:
    kalshi.place(order_id="").is_under_way = True
    kalshi.now_ms += LATE_MS + 1
    assert kalshi.look(2) == (0, 10)
    kalshi.held.orders[1].is_under_way = False
    kalshi.status = 500
    assert kalshi.look(2) == (0, 10)


def test_an_answer_that_came_meanwhile_counts(kalshi: Kalshi) -> None:
    order = kalshi.place()
    kalshi.look()
    get = kalshi.looking._get

    async def get_slowly(path: str, query: str) -> tuple[int, bytes]:
        kalshi.held.settle([State(order.number, 2, order.live - 1, "o1")])
        return await get(path, query)

    kalshi.looking._get = get_slowly
    assert kalshi.look()[1] > 0


@pytest.mark.parametrize(
    ("said", "filled", "remaining", "expected"),
    [
        ({}, "0.00", "10.00", (0, 10)),  # it wasn't amended
        ({"yes_price_dollars": "0.6000"}, "5.00", "7.00", (6, 8)),  # 12 at 60 cents, as it was asked
        ({"yes_price_dollars": "0.7000"}, "0.00", "10.00", (0, 24)),  # neither the one nor the other
    ],
)
def test_an_amendment_whose_answer_was_lost(
    said: dict[str, str], filled: str, remaining: str, expected: tuple[int, int], kalshi: Kalshi
) -> None:
    kalshi.place()
    kalshi.place(ORDER._replace(size=1200, cost=6000, client_order_id="", amends="o1"), order_id="")
    kalshi.has(filled, remaining, **said)
    assert kalshi.look(2) == (0, 24)
    kalshi.now_ms += LATE_MS + 1
    assert kalshi.look() == expected


@pytest.mark.parametrize("order_id", ["\ud800", "a/b", "?x=1", "..", "é", "a b"])
def test_an_id_that_looks_like_nothing_else_is_an_id(order_id: str, kalshi: Kalshi, tmp_path: Path) -> None:
    order = kalshi.place()
    kalshi.held.settle([State(order.number, 0, 1000, order_id)])
    assert Reservations.replayed(read_journal(tmp_path / "journal")).by_order_id(order_id) is not None
    path = order_path(f"{REST_PREFIX}/portfolio/events/orders", order_id)
    assert path.isascii()
    assert path.count("/") == REST_PREFIX.count("/") + 4
    assert order_id_of(path) == order_id
    kalshi.has("4.00", "6.00", order_id=order_id)
    assert kalshi.look() == (4, 6)


def test_an_answer_without_an_end_changes_nothing_and_the_next_one_counts(kalshi: Kalshi) -> None:
    kalshi.place()
    kalshi.has("4.00", "6.00")
    get = kalshi.looking._get
    for body in (b'{"orders": [], "cursor": "x"}', b'{"orders": [], "cursor": 1}', b"[" * 100_000):

        async def get_that(_path: str, _query: str, body: bytes = body) -> tuple[int, bytes]:
            return 200, body

        kalshi.looking._get = get_that
        assert kalshi.look() == (0, 10)
    kalshi.looking._get = get
    assert kalshi.look() == (4, 6)


def test_fills_are_asked_for_by_market(kalshi: Kalshi) -> None:
    for number in range(20):
        market = f"KXTEST-{number % 10}"
        kalshi.place(ORDER._replace(market=market, client_order_id=f"c{number}"), f"o{number}")
        kalshi.fills.append({"order_id": f"o{number}", "ticker": market, "count_fp": "1.00"})
    kalshi.fills += [{"order_id": f"x{number}", "ticker": "KXOTHER"} for number in range(1000)]
    assert kalshi.look(2) == (20, 0)
    asked = [query for path, query in kalshi.asked if path == "/portfolio/fills"]
    assert sorted(query.partition("&")[0] for query in asked) == sorted(2 * [f"ticker=KXTEST-{n}" for n in range(10)])


def test_an_order_that_no_longer_rests_is_looked_up_again_and_new_doubts_are_kept_meanwhile(
    kalshi: Kalshi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "_SOON_S", 0.0)
    looks, seen = [0], asyncio.Event()
    look = kalshi.looking.look

    async def counted() -> None:
        looks[0] += 1
        if looks[0] == 2:
            kalshi.held.on_doubt()
        await look()
        if looks[0] == 3:
            seen.set()

    async def run() -> None:
        async with asyncio.timeout(20):
            task = asyncio.create_task(kalshi.looking.run())
            await seen.wait()
            task.cancel()

    monkeypatch.setattr(kalshi.looking, "look", counted)
    kalshi.place()
    asyncio.run(run())
    assert kalshi.look() == (0, 0)
