"""What is held of the caps outlives the proxy."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.proxy.accounts import Demand
from hsm_keys.proxy.exposures import Exposure
from hsm_keys.proxy.journal import Journal, JournalError, read_journal
from hsm_keys.proxy.reservations import ALL, Reservations, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.proxy.exposures import Key

ORDER = Exposure("KXTEST-1", "bid", 1000, 5000, rests=True, client_order_id="c1")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def taken(reservations: Reservations) -> list[object]:
    return [
        (name, account.live, account.open, account.day.total, [(one.net, one.bids) for one in account.markets.values()])
        for name in ("maker", ALL)
        for account in [reservations.account(name)]
    ]


def restarted(journal: Journal, folder: Path) -> Reservations:
    """Return what a proxy reads that starts after this one was killed."""
    journal.close()
    again = Journal(folder)
    journal.__dict__.update(again.__dict__)
    return Reservations(journal)


def remembered(reservations: Reservations) -> list[tuple[str, Key]]:
    """Return which orders a snapshot remembers, and whose they are."""
    return [(client, tuple(key) if isinstance(key, list) else key) for client, key, _ in reservations._snapshot()[-1]]


def test_a_restart_reads_what_was_held(journal: Journal, tmp_path: Path) -> None:
    before = Reservations(journal)
    first, second = before.reserve("maker", Demand([ORDER, ORDER._replace(client_order_id="c2")]), remember=True)
    before.settle([State(first.number, 400, 600, "o1")])
    before.settle([State(second.number, 0, 0)])
    after = restarted(journal, tmp_path)
    assert taken(after) == taken(before) != taken(Reservations())
    assert list(after.orders.values()) == [after.by_order_id("o1")]
    assert (tmp_path / "journal").read_bytes().count(b"\n") == 1, "it is made smaller at a start"
    again = restarted(journal, tmp_path)
    assert taken(again) == taken(before)
    assert remembered(again) == remembered(before)
    assert again.reserve("maker", Demand([ORDER]))[0].number > second.number


@pytest.mark.parametrize("cut", range(1, 30, 7))
def test_a_line_that_was_cut_off_is_dropped(cut: int, journal: Journal, tmp_path: Path) -> None:
    before = Reservations(journal)
    before.reserve("maker", Demand([ORDER]))
    kept = taken(before)
    size = journal.size
    before.reserve("maker", Demand([ORDER]))
    os.truncate(tmp_path / "journal", journal.size - cut)
    assert taken(restarted(journal, tmp_path)) == kept
    assert size


def test_a_snapshot_in_the_journal_is_never_dropped_wherever_it_was_cut_off(journal: Journal, tmp_path: Path) -> None:
    """No kill and no power failure cuts it, as it takes its place whole: without it, the caps would be full again."""
    before = Reservations(journal)
    before.reserve("maker", Demand([ORDER]))
    before._compact()
    for size in range(1, journal.size):
        os.truncate(tmp_path / "journal", journal.size - size)
        with pytest.raises(JournalError, match=r"^line 1 of .* can't be read"):
            read_journal(tmp_path / "journal")


def test_a_first_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    """A proxy whose disk was full at its start has none that stands for others."""
    (tmp_path / "journal").write_bytes(b'["+",1700000000000,"ma')
    assert read_journal(tmp_path / "journal") == []


@pytest.mark.parametrize("line", [b"{}\n", b"[]\n", b"\0\0\0\n", b'["?"]\n', b'["=",1,[["x"]]]\n'])
def test_a_damaged_line_stops_the_start(line: bytes, journal: Journal, tmp_path: Path) -> None:
    reservations = Reservations(journal)
    with (tmp_path / "journal").open("ab") as file:
        file.write(line)
    journal.size += len(line)
    reservations.reserve("maker", Demand([ORDER]))
    reasons = r"line \d+ of .* can't be read|the journal of the caps isn't one that this program wrote"
    with pytest.raises(JournalError, match=rf"^({reasons})( \(|$)"):
        restarted(journal, tmp_path)


def test_nothing_is_held_that_can_not_be_written(journal: Journal, tmp_path: Path) -> None:
    reservations = Reservations(journal)
    reservations.reserve("maker", Demand([ORDER]))
    kept, before = taken(reservations), (tmp_path / "journal").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, hard))
    try:
        with pytest.raises(JournalError):
            reservations.reserve("maker", Demand([ORDER._replace(client_order_id="c2")]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert (taken(reservations), (tmp_path / "journal").read_bytes()) == (kept, before)
    reservations.reserve("maker", Demand([ORDER._replace(client_order_id="c2")]))


def test_what_holds_much_is_not_written_again_and_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    reservations = Reservations(journal)
    replace = Mock(wraps=journal.replace)
    monkeypatch.setattr(journal, "replace", replace)
    names = [f"{number:0200}" for number in range(30_000)]
    orders = reservations.reserve("maker", Demand([ORDER._replace(client_order_id=name) for name in names]))
    for order in orders[:50]:
        reservations.settle([State(order.number, 0, 900, f"o{order.number}")])
    assert replace.call_count == 1
    assert journal.size > 4 << 20


def test_a_journal_that_was_removed_takes_nothing(journal: Journal, tmp_path: Path) -> None:
    reservations = Reservations(journal)
    (tmp_path / "journal").unlink()
    with pytest.raises(JournalError, match="removed"):
        reservations.reserve("maker", Demand([ORDER]))


@pytest.mark.usefixtures("journal")
def test_two_proxies_do_not_share_a_journal(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another proxy"):
        Journal(tmp_path)


def test_reduce_only_orders_lower_each_account_and_a_restart_keeps_that(journal: Journal, tmp_path: Path) -> None:
    before = Reservations(journal)
    sale = ORDER._replace(side="ask", cost=0, rests=False, client_order_id="c2")
    for client, asked in (("taker", ORDER), ("maker", sale)):
        [order] = before.reserve(client, Demand([asked]))
        before.settle([State(order.number, 600, 0, asked.client_order_id)])
    nets = [("taker", 600), ("maker", 0), (ALL, 0)]
    for held in (before, restarted(journal, tmp_path), restarted(journal, tmp_path)):
        assert [(name, held.account(name).markets["KXTEST-1"].net) for name, _ in nets] == nets


def test_what_two_clients_hold_in_one_market_is_summed_up(journal: Journal, tmp_path: Path) -> None:
    """Asks, bids and positions, of each client and of both; over a restart and a second one, from a snapshot."""
    before = Reservations(journal)
    ask = ORDER._replace(side="ask", client_order_id="c2")
    for client in ("maker", "taker", "maker"):
        for asked in (ORDER, ask):
            filled, _, resting = (before.reserve(client, Demand([asked]))[0] for _ in range(3))
            before.settle([State(filled.number, 300 if asked is ask else 100, 0, f"o{filled.number}")])
            before.settle([State(resting.number, 0, 1000, f"o{resting.number}")])
    [of_maker], [of_all] = ([*before.account(client).markets.values()] for client in ("maker", ALL))
    assert (of_maker.net, of_maker.bids, of_maker.asks) == (-400, 4000, 4000)
    assert (of_all.net, of_all.bids, of_all.asks) == (-600, 6000, 6000)
    after = restarted(journal, tmp_path)
    assert taken(after) == taken(before)
    assert taken(restarted(journal, tmp_path)) == taken(before)
