"""Tables of text, held against what a terminal shows."""

from __future__ import annotations

from hsm_keys.tables import aligned


def test_columns_begin_below_each_other() -> None:
    rows = [("NAME", "ID", "WHERE"), ("prod", "1" * 36, "token"), ("a name", "-", "")]
    lines = aligned(rows)
    assert [line.index(row[1], 4) for line, row in zip(lines, rows, strict=True)] == [8, 8, 8]
    assert lines[2] == "a name  -"


def test_numbers_end_below_each_other() -> None:
    assert aligned([("what", "a second"), ("token", "1,844")], numbers=True) == ["what   a second", "token     1,844"]


def test_a_wide_character_takes_two_cells_and_an_accent_none() -> None:
    assert aligned([("鍵", "x"), ("key", "x"), ("e\u0301", "x")]) == ["鍵   x", "key  x", "e\u0301    x"]


def test_no_cell_is_cut() -> None:
    assert aligned([("n" * 200, "w" * 300)]) == ["n" * 200 + "  " + "w" * 300]


def test_a_colour_has_no_width() -> None:
    assert aligned([["\x1b[32m\x1b[1mok\x1b[0m", "x"], ["long", "x"]]) == ["\x1b[32m\x1b[1mok\x1b[0m    x", "long  x"]
