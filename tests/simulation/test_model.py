"""The model of a rotation's end: searched to the end, and it shows the faults that were there once."""

from __future__ import annotations

from tests.simulation.model import Rules, search


class _Believes(Rules):
    """Deletes what it has seen as the other key, as the workflows did once."""

    condemns = False


class _Overwrites(Rules):
    """Renames whatever a key is called by now."""

    conditional = False


class _TakesBack(Rules):
    """Takes its mark back where it gives way, as the workflows did once."""

    keeps_marks = False


def test_whatever_two_machines_do_one_key_keeps_the_name_and_lives() -> None:
    reached, way = search(Rules())
    assert way == []
    assert len(reached) > 10_000


def test_without_losing_its_name_first_the_last_key_may_end() -> None:
    _, way = search(_Believes())
    assert "dead" in way[-1]


def test_a_mark_that_is_taken_back_is_missed_by_a_third_run() -> None:
    _, way = search(_TakesBack())
    assert "dead" in way[-1]


def test_where_names_are_written_over_a_name_may_lead_nowhere() -> None:
    _, way = search(_Overwrites())
    assert way
