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
        ("/", "only paths below /trade-api/ are forwarded"),
        ("/trade-apis/v2/markets", "only paths below /trade-api/ are forwarded"),
        (
            f"{PATH}/..",
            "the path holds a character that has to be percent-encoded, a broken escape, or a segment of dots",
        ),
        (f"{PATH}/", "the path ends in a slash, or has an escape in lower case"),
        (f"{PATH}/%c3%a9", "the path ends in a slash, or has an escape in lower case"),
        (f"{PATH}/a%3Ab", "the path holds %3A, which servers may decode: it has another spelling"),
        ("/trade-api//v2/markets", "the path has an empty segment"),
        (f"{PATH};a=b", "the path holds a semicolon, which some servers cut a segment at"),
    ],
)
def test_a_target_that_can_be_read_in_two_ways_is_refused_with_the_reason(target: str, reason: str) -> None:
    with pytest.raises(UnclearPathError, match=f"^{re.escape(reason)}$"):
        split_target(target)
