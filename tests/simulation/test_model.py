"""The model of a rotation's end: searched to the end, and it shows the faults that were there once."""

from __future__ import annotations

from tests.simulation.model import Rules, search


class _Believes(Rules):
    """Deletes what it has seen as the other key, as the workflows did once."""

    condemns = False


class _Overwrites(Rules):
    """Renames whatever a key is called by now."""

    conditional = False


def test_whatever_two_machines_do_one_key_keeps_the_name_and_lives() -> None:
    states, way = search(Rules())
    assert way == []
    assert states > 1_000


def test_without_losing_its_name_first_the_last_key_may_end() -> None:
    _, way = search(_Believes())
    assert "dead" in way[-1]


def test_where_names_are_written_over_a_name_may_lead_nowhere() -> None:
    _, way = search(_Overwrites())
    assert way
