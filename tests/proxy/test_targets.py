"""Request targets: what is path, what is query, and what is neither."""

from __future__ import annotations

import re

import pytest

from hsm_keys.proxy.paths import UnclearPathError, split_target

PATH = "/trade-api/v2/markets"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (PATH, (PATH, "")),
        (f"{PATH}?", (PATH, "")),
        (f"{PATH}?a=b", (PATH, "a=b")),
        (f"{PATH}?a=b?c=d", (PATH, "a=b?c=d")),
        (f"{PATH}?{'a' * (8000 - len(PATH) - 1)}", (PATH, "a" * (8000 - len(PATH) - 1))),
    ],
)
def test_a_target_is_split_at_its_first_question_mark(target: str, expected: tuple[str, str]) -> None:
    assert split_target(target) == expected


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (f"{PATH}?{'a' * (8001 - len(PATH) - 1)}", "the path and query are longer than 8000 characters"),
        (f"{PATH}?a=%zz", "the query holds a character that has to be percent-encoded"),
        (f"{PATH}?a=b#c", "the query holds a character that has to be percent-encoded"),
    ],
)
def test_a_target_that_can_be_read_in_two_ways_is_refused_with_the_reason(target: str, reason: str) -> None:
    with pytest.raises(UnclearPathError, match=f"^{re.escape(reason)}$"):
        split_target(target)
