"""The models of an enrolment and of a rotation's end: searched to their ends, and they show the faults of rules."""

from __future__ import annotations

import pytest

from tests.simulation import enrolment
from tests.simulation.model import Rules, search

_DEAD = "the pair is bound to an API key that is dead"


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


def test_whatever_two_machines_do_one_api_key_is_bound_and_lives() -> None:
    reached, way = enrolment.search(enrolment.Rules())
    assert way == []
    assert len(reached) > 3000


def test_nor_where_each_runs_the_command_twice() -> None:
    reached, way = enrolment.search(enrolment.Rules(), runs=2)
    assert way == []
    assert len(reached) > 50_000


class _NeverYields(enrolment.Rules):
    yields = False


class _BelievesIts(enrolment.Rules):
    """Deletes what it takes for its own where its answer was lost, as the code did once."""

    believes = True


class _DeletesAtOnce(enrolment.Rules):
    """Deletes its API key because of what it has listed, as the code did once."""

    checks = False


class _TakesAtOnce(enrolment.Rules):
    claims = False


class _NeverOutwaits(enrolment.Rules):
    outwaits = False


def test_without_giving_way_two_machines_register_one_pair() -> None:
    assert enrolment.search(_NeverYields())[1][-1] == "the pair has two API keys, and nothing was lost"


@pytest.mark.parametrize("rules", [_BelievesIts, _DeletesAtOnce, _TakesAtOnce, _NeverOutwaits])
def test_without_one_of_the_rules_a_bound_api_key_may_be_deleted(rules: type[enrolment.Rules]) -> None:
    assert enrolment.search(rules(), runs=2)[1][-1] == _DEAD
