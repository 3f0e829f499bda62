"""What every error of the package can do."""

from __future__ import annotations

import pytest

from hsm_keys.errors import StoreError


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "it failed (look)"),
        ({"message": "it failed twice"}, "it failed twice (look)"),
        ({"hint": "wait"}, "it failed (wait)"),
        ({"hint": ""}, "it failed"),
        ({"further_hint": "then wait"}, "it failed (look; then wait)"),
        ({"hint": "", "further_hint": "then wait"}, "it failed (then wait)"),
    ],
)
def test_an_error_is_amended_in_all_that_it_says(changes: dict[str, str], said: str) -> None:
    error = StoreError("it failed", hint="look")
    assert error.amend(**changes) is error
    assert (str(error), error.args) == (said, (error.message,))
