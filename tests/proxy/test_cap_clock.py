"""What was spent counts for 24 hours, whatever the wall clock is set to."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_keys.proxy.accounts import DAY_MS, MINUTE_MS, Demand
from hsm_keys.proxy.cap_clock import CapClock
from hsm_keys.proxy.caps import Caps
from hsm_keys.proxy.exposures import Exposure
from hsm_keys.proxy.journal import Journal
from hsm_keys.proxy.policy import parse_policy
from hsm_keys.proxy.remaining import remaining
from hsm_keys.proxy.reservations import Reservations, State

if TYPE_CHECKING:
    from collections.abc import Iterator

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR_MS = 3_600_000
MS = 1_000_000  # nanoseconds
ORDER = Exposure("KXTEST-1", "bid", 1000, 5000, rests=False, client_order_id="c1")
POLICY = parse_policy('version = 1\n[clients.maker]\nmax_dollars_a_day = "5"\n')


class Machine:
    """Its two clocks, and the proxy that runs on it: it has spent all that it may in a day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wall_ms, self.elapsed_ms, self.boot_id = int(NOON.timestamp()) * 1000, 70_000, "first"
        self.start()
        [order] = self.held.reserve("maker", Demand([ORDER]), remember=True)
        self.held.settle([State(order.number, order.live, 0, "o1")])

    def start(self) -> None:
        self.journal = Journal(self.folder)
        self.held = Reservations(
            self.journal, clock=CapClock(lambda: self.wall_ms * MS, lambda: self.elapsed_ms * MS, self.boot_id)
        )

    def restart(self) -> None:
        """Kill the proxy, and start it again."""
        self.journal.close()
        self.start()

    def reboot(self, *, takes_ms: int = 0) -> None:
        self.wall_ms, self.elapsed_ms, self.boot_id = self.wall_ms + takes_ms, 5_000, f"{self.boot_id}+"
        self.restart()

    def wait(self, ms: int) -> None:
        self.wall_ms += ms
        self.elapsed_ms += ms

    def set_clock(self, by_ms: int) -> None:
        self.wall_ms += by_ms

    @property
    def has_room(self) -> bool:
        another = Demand([ORDER._replace(client_order_id="c2")])
        return self.held.against("maker", Caps(day=50_000), Caps(), another) is None

    @property
    def takes_it_twice(self) -> bool:
        return self.held.against("maker", Caps(duplicate_ms=10 * MINUTE_MS), Caps(), Demand([ORDER])) is None


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.journal.close()


@pytest.mark.parametrize("restarts", [False, True], ids=["runs on", "is restarted"])
@pytest.mark.parametrize("by_ms", [-DAY_MS, -HOUR_MS, HOUR_MS, DAY_MS, 400 * DAY_MS])
def test_a_clock_that_is_set_neither_ends_a_day_nor_makes_it_longer(
    by_ms: int, *, restarts: bool, machine: Machine
) -> None:
    machine.wait(HOUR_MS)
    machine.set_clock(by_ms)
    if restarts:
        machine.restart()
    assert not machine.has_room
    machine.wait(DAY_MS - HOUR_MS - 1)
    assert not machine.has_room
    machine.wait(MINUTE_MS + 1)
    assert machine.has_room


def test_a_clock_that_is_set_lets_no_order_go_out_twice(machine: Machine) -> None:
    machine.set_clock(DAY_MS)
    assert not machine.takes_it_twice
    machine.wait(10 * MINUTE_MS)
    assert machine.takes_it_twice


@pytest.mark.parametrize("set_before_ms", [0, -HOUR_MS, DAY_MS])
def test_over_a_reboot_the_wall_clock_says_what_time_has_passed(set_before_ms: int, machine: Machine) -> None:
    """A clock that was set before the last order was sent is no worse than another one: only what passes counts."""
    machine.set_clock(set_before_ms)
    machine.held.reserve("taker", Demand([ORDER]))
    machine.reboot(takes_ms=DAY_MS - 1)
    assert not machine.has_room
    machine.wait(MINUTE_MS + 1)
    assert machine.has_room


def test_a_clock_that_runs_behind_after_a_reboot_gives_nothing_back_before_its_time(machine: Machine) -> None:
    machine.reboot(takes_ms=-400 * DAY_MS)  # as one without a battery does, until it has asked the network
    assert not machine.has_room
    machine.set_clock(400 * DAY_MS)
    machine.restart()
    assert not machine.has_room
    machine.wait(DAY_MS + MINUTE_MS)
    assert machine.has_room


def test_where_the_boot_is_not_known_a_restart_goes_by_the_wall_clock(machine: Machine) -> None:
    machine.boot_id = ""
    machine.restart()
    machine.wait(HOUR_MS)
    machine.elapsed_ms += DAY_MS  # of another boot, perhaps
    machine.restart()
    assert not machine.has_room
    machine.wait(DAY_MS - HOUR_MS + MINUTE_MS)
    machine.restart()
    assert machine.has_room


def test_a_journal_that_was_made_smaller_goes_on_at_its_time(machine: Machine) -> None:
    machine.set_clock(DAY_MS)
    machine.wait(HOUR_MS)
    machine.held._compact()
    machine.restart()
    assert not machine.has_room
    machine.wait(DAY_MS - HOUR_MS + MINUTE_MS)
    assert machine.has_room


@pytest.mark.parametrize("by_ms", [0, HOUR_MS, -HOUR_MS])
def test_what_comes_back_is_told_by_the_wall_clock_as_it_is_set_now(by_ms: int, machine: Machine) -> None:
    machine.set_clock(by_ms)
    [row] = remaining(POLICY, machine.held)
    back = datetime.fromisoformat(row["back_at"])
    assert (back - NOON).total_seconds() * 1000 == DAY_MS + MINUTE_MS + by_ms


@pytest.mark.skipif(sys.platform != "linux", reason="other systems say neither")
def test_the_clocks_of_the_system() -> None:
    """The kernel tells in /proc/uptime too how long it has run, suspend included."""
    read = Path("/proc/uptime").read_text, Path("/proc/sys/kernel/random/boot_id").read_text
    before = float(read[0]().split()[0])
    reading = CapClock().reading()
    after = float(read[0]().split()[0])
    assert before - 0.01 <= reading.elapsed_ms / 1000 <= after + 0.01
    assert reading.boot_id == read[1]().strip()
    assert CapClock().now_ms() >= reading.cap_ms - 1
