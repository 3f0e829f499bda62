"""What is signed: the messages that public SDKs and Kalshi's documentation show, and the rules behind them."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.errors import UsageError
from hsm_keys.signing.message import canonical_path, signing_message

VECTORS = [
    (1703123456789, "GET", "/trade-api/v2/markets", "1703123456789GET/trade-api/v2/markets"),
    (1703123456789, "GET", "/trade-api/v2/portfolio/balance", "1703123456789GET/trade-api/v2/portfolio/balance"),
    (1000, "GET", "/trade-api/v2/markets?limit=50&status=open", "1000GET/trade-api/v2/markets"),
    (1000, "GET", "/trade-api/v2/markets/", "1000GET/trade-api/v2/markets"),
    (1000, "get", "/trade-api/v2/markets", "1000GET/trade-api/v2/markets"),
    (1000, "GET", "/trade-api/v2/events/TICKER%2DNAME", "1000GET/trade-api/v2/events/TICKER%2DNAME"),
    (1000, "GET", "/trade-api/v2/markets/ABC%2fDEF", "1000GET/trade-api/v2/markets/ABC%2FDEF"),
    (1000, "GET", "/trade-api/v2/markets/ABC%2fDEF?q=1", "1000GET/trade-api/v2/markets/ABC%2FDEF"),
    (1000, "GET", "/trade-api/v2/markets/%2F%2f%2F", "1000GET/trade-api/v2/markets/%2F%2F%2F"),
    (1700000000000, "get", "/trade-api/v2/markets?limit=10&cursor=abc", "1700000000000GET/trade-api/v2/markets"),
    (5, "POST", "/trade-api/v2/portfolio/events/orders?x=1", "5POST/trade-api/v2/portfolio/events/orders"),
    (5, "GET", "/trade-api/ws/v2", "5GET/trade-api/ws/v2"),
    (5, "GET", "/trade-api/ws/v2/margin", "5GET/trade-api/ws/v2/margin"),
]


@pytest.mark.parametrize(("timestamp", "method", "path", "message"), VECTORS)
def test_the_known_messages(timestamp: int, method: str, path: str, message: str) -> None:
    assert signing_message(timestamp, method, path) == message.encode()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "markets",
        "https://kalshi.com/x",
        "/a b",
        "/a\r\nb",
        "/a\n",
        "/a#b",
        "/%",
        "/%2",
        "/%zz",
        "/ü",
        "/a\0",
        "/a\\b",
    ],
)
def test_a_path_that_cannot_go_over_the_wire_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        signing_message(1, "GET", path)


@pytest.mark.parametrize("path", ["/a/../b", "/a/./b", "/..", "/.", "/a/%2e%2E/b", "/a/.%2e", "/a/.?b"])
def test_a_path_that_changes_on_its_way_is_refused(path: str) -> None:
    """RFC 3986, section 5.2.4: clients and servers remove such segments, and Kalshi would verify another path."""
    with pytest.raises(UsageError, match="rewrite"):
        canonical_path(path)


@pytest.mark.parametrize("path", ["/a/...", "/a/.b", "/a/b.", "/a/..b/%2Ec", "/well-known/..%2F"])
def test_dots_beside_other_characters_stay(path: str) -> None:
    assert canonical_path(path) == path


@pytest.mark.parametrize("method", ["", "G T", "GET\r\n", "GÉT", "GET1"])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(UsageError):
        signing_message(1, method, "/")


def test_a_time_before_1970_is_refused() -> None:
    with pytest.raises(UsageError):
        signing_message(-1, "GET", "/")


SEGMENT = st.text(st.sampled_from("abzAZ09-._~!$&'()*+,;=:@/"), max_size=20)
ESCAPE = st.integers(0, 255).map(lambda byte: f"%{byte:02x}")
PATHS = (
    st.lists(SEGMENT | ESCAPE, max_size=8)
    .map(lambda parts: "/" + "".join(parts))
    .filter(lambda path: not {".", ".."} & set(map(unquote, path.split("/"))))
)


@given(PATHS)
def test_the_canonical_form_is_a_fixed_point(path: str) -> None:
    once = canonical_path(path)
    assert canonical_path(once) == once
    assert once == "/" or not once.endswith("/")


@given(PATHS, st.text())
def test_a_query_is_never_signed(path: str, query: str) -> None:
    assert canonical_path(f"{path}?{query}") == canonical_path(path)


@given(PATHS)
def test_only_the_case_of_escapes_and_the_trailing_slash_change(path: str) -> None:
    assert canonical_path(path).lower() == (path.rstrip("/") or "/").lower()


@given(st.text())
def test_any_text_is_either_refused_or_printable_ascii(text: str) -> None:
    try:
        message = signing_message(1, "GET", text)
    except UsageError:
        return
    assert all(0x21 <= byte <= 0x7E for byte in message)
