"""A sample of planted faults, which the simulator finds within some hundred lives; and all of them can be planted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulation.doubles import doubles
from tests.simulation.hunting import hunt
from tests.simulation.mutants import MUTANTS, Mutant, planted
from tests.simulation.seen import SEEN

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIVES = 400


@pytest.fixture(autouse=True)
def _begun_anew() -> Iterator[None]:
    """What the first commands lead to isn't the same with a fault in them."""
    SEEN.clear()
    yield
    SEEN.clear()


@pytest.mark.crash
@pytest.mark.parametrize("mutant", [*MUTANTS[:4], *MUTANTS[6:10]], ids=str)
def test_a_planted_fault_is_found(mutant: Mutant) -> None:
    assert hunt(mutant, _LIVES).violation


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_each_fault_can_be_planted(mutant: Mutant) -> None:
    with planted(mutant), doubles():
        pass
