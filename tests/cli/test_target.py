"""What the command line takes for a method, a path and a query is what the client sends."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote_plus

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys import KalshiClient, RequestSigner
from hsm_keys.cli.target import checked_target, with_cursor, with_query
from hsm_keys.errors import UsageError
from hsm_keys.signing.message import canonical_path

pytestmark = pytest.mark.program

PIECES = st.sampled_from(
    [*"/.?#%&=+@:;,'!*()$~ \\\"<>[]|^`{}\r\n\t\x00é", "..", "//", "%2e", "%2E", "%2f", "%0d%0a", "%", "a", "B", "7"]
)
TARGETS = st.lists(PIECES, max_size=12).map(lambda pieces: "/" + "".join(pieces))
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]))
NAMES = TEXTS.filter(lambda text: text and "=" not in text)


class Nobody:
    name = api_key_id = "id"

    def sign(self, message: bytes, /) -> bytes:
        return b""


def sent(path: str) -> tuple[str, str, str]:
    """Return the host, and path and query as they go over the wire."""
    arrived: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        arrived.append(request)
        return httpx2.Response(200)

    transport = httpx2.MockTransport(answer)
    with KalshiClient(RequestSigner(Nobody()), base_url="https://kalshi.test", transport=transport) as client:
        client.request("GET", path)
    url = arrived[0].url
    bare, _, query = url.raw_path.decode("ascii").partition("?")
    return url.host, bare, query


@given(TARGETS)
def test_what_is_taken_arrives_as_it_is_signed(path: str) -> None:
    try:
        checked_target("GET", path)
    except UsageError:
        return
    bare, _, query = path.partition("?")
    assert sent(path) == ("kalshi.test", canonical_path(f"/trade-api/v2{bare}"), query)
    assert not {".", ".."} & set(bare.split("/"))
    assert all("!" <= char <= "~" for char in path)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://evil.example/trade-api/v2/x", "not a path"),
        ("//evil.example/x", "names a host"),
        ("///x", "names a host"),
        ("evil.example/x", "not a path"),
        ("\\\\evil.example/x", "not a path"),
        ("", "not a path"),
        ("/a/../api_keys", "'..'"),
        ("/a/%2e%2E/api_keys", "'..'"),
        ("/a/.%2e", "'..'"),
        ("/./a", "'..'"),
        ("/a\r\nX: y", "not a path"),
        ("/a\n", "not a path"),
        ("/a\x00", "not a path"),
        ("/a?b\r\nX: y", "percent-encoded"),
        ("/a?b\n", "percent-encoded"),
        ("/a?b\x00", "percent-encoded"),
        ("/a?b=100%", "percent-encoded"),
        ("/a?b#c", "percent-encoded"),
        ("/a?b=é", "percent-encoded"),
        ("/a#b", "not a path"),
    ],
)
def test_what_cannot_be_sent_as_it_is_is_refused(path: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_target("GET", path)
    assert said in caught.value.message + caught.value.hint


@pytest.mark.parametrize("method", ["", "GET ", "GET\r\n", "G\nET", "G\x00", "G1", "GÉT"])
def test_a_bad_method_is_refused(method: str) -> None:
    with pytest.raises(UsageError):
        checked_target(method, "/x")


@given(st.lists(st.tuples(NAMES, TEXTS)), st.sampled_from(["/x", "/x?", "/x?a=b", "/x?a=b&"]))
def test_a_query_parameter_arrives_as_it_was_written(pairs: list[tuple[str, str]], path: str) -> None:
    target = with_query(path, [f"{name}={value}" for name, value in pairs])
    checked_target("GET", target)
    before = parse_qsl(path.partition("?")[2])
    assert parse_qsl(sent(target)[2], keep_blank_values=True) == before + pairs


@pytest.mark.parametrize("pair", ["", "a", "=b", "a=b\r\nc", "a=\x00", "a=b\n", "\x7f=a", "a=\udcff", "\udcff=a"])
def test_a_bad_query_parameter_is_refused(pair: str) -> None:
    with pytest.raises(UsageError):
        with_query("/x", [pair])


@given(TEXTS, st.lists(st.sampled_from(["cursor=old", "%63ursor=old", "cursor", "a=b", "cursors=1", ""])))
def test_a_page_has_one_cursor_and_all_other_parameters(cursor: str, parts: list[str]) -> None:
    target = with_cursor(f"/x?{'&'.join(parts)}", cursor)
    pairs = parse_qsl(target.partition("?")[2], keep_blank_values=True)
    kept = [("a", "b") if part == "a=b" else ("cursors", "1") for part in parts if part in {"a=b", "cursors=1"}]
    assert pairs == [*kept, ("cursor", cursor)]
    assert unquote_plus(target.rpartition("=")[2]) == cursor
