"""Pages joined to one object, and the object for every kind of answer."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.cli.answers import TimedAnswer, answers_object, timing
from hsm_keys.cli.paging import all_pages
from hsm_keys.errors import NetworkError

REQUEST = httpx2.Request("GET", "https://kalshi.test/trade-api/v2/x")


def answer(body: Any, status: int = 200) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.Response(status, content=content, request=REQUEST)


class Pages:
    """Answers with one page after the other, the last one for ever, and keeps the paths."""

    def __init__(self, *pages: Any) -> None:
        self.pages = list(pages)
        self.paths: list[str] = []

    def __call__(self, path: str) -> httpx2.Response:
        self.paths.append(path)
        return answer(self.pages[min(len(self.paths), len(self.pages)) - 1])


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(-(2**70), 2**70), max_size=4)), min_size=1, max_size=8))
def test_every_item_of_every_page_is_there_once_and_in_order(lists: list[list[int] | None]) -> None:
    cursors = [*(f"c{number}" for number in range(1, len(lists))), ""]
    pages = Pages(*({"items": items, "cursor": cursor} for items, cursor in zip(lists, cursors, strict=True)))
    merged = json.loads(all_pages(pages, "/x?limit=4"))
    together = [item for items in lists for item in items or []]
    assert (merged["items"] or []) == together
    assert merged["cursor"] == ""
    assert pages.paths == ["/x?limit=4", *(f"/x?limit=4&cursor={cursor}" for cursor in cursors[:-1])]


def test_several_lists_are_joined_each_and_else_the_last_page_counts() -> None:
    pages = Pages(
        {"events": [1], "milestones": [2], "ts": 1, "next_cursor": "x"}, {"events": [3], "more": [4], "ts": 2}
    )
    merged = json.loads(all_pages(pages, "/x"))
    assert merged == {"events": [1, 3], "milestones": [2], "more": [4], "ts": 2, "next_cursor": ""}


def test_an_answer_without_a_cursor_is_the_whole() -> None:
    assert all_pages(Pages(b'{"balance": 1.10}'), "/x") == '{"balance": 1.10}'


@pytest.mark.parametrize(
    ("pages", "sent", "said"),
    [
        ([{"a": [], "cursor": "x"}, {"a": [], "cursor": "y"}, {"a": [], "cursor": "x"}], 3, "given before"),
        ([{"a": [1], "cursor": "x"}, {"a": 1}], 2, "'a' is a list"),
        ([{"a": 1, "cursor": "x"}, {"a": [1]}], 2, "'a' is a list"),
        ([[1]], 1, "not a JSON object"),
        ([{"a": [1], "cursor": 7}], 1, "no cursor"),
        ([{"a": [1], "cursor": ["x"]}], 1, "no cursor"),
        ([{"a": [1], "cursor": "x\r\ny"}], 1, "no cursor"),
        ([b'{"cursor": "\\ud800"}'], 1, "no cursor"),
        ([b"<html>"], 1, "an HTML page"),
        ([b"maintenance"], 1, "is no page of a list"),
        ([b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}"], 1, "nested too deeply"),
    ],
)
def test_a_page_that_cannot_be_right_ends_it(pages: list[Any], sent: int, said: str) -> None:
    asked = Pages(*pages)
    with pytest.raises(NetworkError, match=said):
        all_pages(asked, "/x")
    assert len(asked.paths) == sent


@pytest.mark.parametrize(
    ("status", "body", "object_"),
    [
        (200, b'{"n": 0.10, "big": 1e400}', '{"n": 0.10, "big": 1e400}'),
        (200, b' {"n":\n1} \n', '{"n":\n1}'),
        (204, b"", '{"status": 204, "body": null}'),
        (200, b"[1.0]\n", '{"status": 200, "body": [1.0]}'),
        (200, b"12345678901234567890.0", '{"status": 200, "body": 12345678901234567890.0}'),
        (200, b'"text"', '{"status": 200, "body": "text"}'),
        (200, b"null", '{"status": 200, "body": null}'),
        (200, b"<p>\x1b[1mno\xff", '{"status": 200, "body": "<p>\\u001b[1mno\\ufffd"}'),
        (200, b'{"n": NaN}', '{"status": 200, "body": "{\\"n\\": NaN}"}'),
        (200, b'{"n": 1, "n": 2}', '{"status": 200, "body": "{\\"n\\": 1, \\"n\\": 2}"}'),
        (200, '{"ü": 1}'.encode(), '{"ü": 1}'),
    ],
)
def test_the_object_for_every_kind_of_answer(status: int, body: bytes, object_: str) -> None:
    assert TimedAnswer(answer(body, status), 1.0).as_object(include=False) == object_


@given(st.binary(), st.booleans())
def test_whatever_the_body_the_object_is_one(body: bytes, include: bool) -> None:
    one = TimedAnswer(answer(body), 1.23456)
    assert isinstance(json.loads(one.as_object(include=include)), dict)
    object_ = json.loads(answers_object([one, one], include=include))
    assert [part["elapsed_ms"] for part in object_["answers"]] == [1.235, 1.235]
    assert all(("headers" in part) is include for part in object_["answers"])
    assert one.as_bytes(include=False).removesuffix(b"\n") == body.removesuffix(b"\n")


def test_the_timing() -> None:
    assert timing([3.0, 1.0, 2.0]).endswith("1.0 ms the fastest, 2.0 ms the median, 3.0 ms the slowest")
