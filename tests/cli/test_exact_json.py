"""JSON that keeps its numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.cli.exact_json import read, write

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
LEAVES = st.one_of(NUMBERS, st.text().map(json.dumps), st.sampled_from(["null", "true", "false"]))
TEXTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner).map(lambda items: f"[{' , '.join(items)}]"),
        st.dictionaries(st.text(), inner).map(
            lambda members: f"{{{','.join(f'{json.dumps(name)} : {value}' for name, value in members.items())}}}"
        ),
    ),
    max_leaves=20,
)


def as_written(text: str) -> Any:
    """Return the value with its numbers as marked strings: an independent reading."""
    return json.loads(text, parse_int=lambda number: ("number", number), parse_float=lambda number: ("number", number))


@given(TEXTS)
def test_what_is_read_and_written_is_the_same_to_the_last_digit(text: str) -> None:
    written = write(read(text.encode()))
    assert as_written(written) == as_written(text)
    assert written.isascii()
    assert "\n" not in written


@pytest.mark.parametrize("text", ["0.10", "-0", "1E400", "1" + "0" * 5000, "1e-7", '"1"', '{"a": 1.0}', "[]"])
def test_canaries(text: str) -> None:
    assert write(read(text.encode())) == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b"{} {}", "Extra data"),
        (b"NaN", "NaN"),
        (b'{"a": [-Infinity]}', "-Infinity"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "'c' is given twice"),
        (b'{"a": 1, "\\u0061": 2}', "'a' is given twice"),
        (b"'a'", "Expecting"),
        (b'{"a": 1,}', "Illegal trailing comma|Expecting property name"),
        (b"01", "Extra data"),
        (b'"\xff"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'"a\nb"', "Invalid control character"),
        (b"[" * 1_000_000, "nested too deeply"),
    ],
)
def test_what_is_no_json(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(content)


def test_an_error_does_not_repeat_the_text() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        read(b"-----BEGIN PRIVATE KEY-----\ncanary")
    assert "canary" not in str(caught.value)


def test_a_value_too_deep_to_write_is_an_error_like_any_other() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="nested too deeply"):
        write(value)
    while value:  # taken apart by hand: freeing it whole would recurse as deep
        value = value[0]
