"""A sample of planted faults, which the simulator finds within some hundred lives; and all of them can be planted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulation.doubles import doubles
from tests.simulation.life import Life
from tests.simulation.mutants import MUTANTS, Mutant, planted
from tests.simulation.script import script_of
from tests.simulation.seen import SEEN

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIVES = 600


@pytest.fixture(autouse=True)
def _begun_anew() -> Iterator[None]:
    """What the first commands lead to isn't the same with a fault in them."""
    SEEN.clear()
    yield
    SEEN.clear()


@pytest.mark.crash
@pytest.mark.parametrize("mutant", [MUTANTS[0], MUTANTS[3]], ids=str)
def test_a_planted_fault_is_found(mutant: Mutant) -> None:
    with planted(mutant), doubles():
        assert any(Life(script_of(seed)).live().violation for seed in range(_LIVES))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_each_fault_can_be_planted(mutant: Mutant) -> None:
    with planted(mutant), doubles():
        pass
