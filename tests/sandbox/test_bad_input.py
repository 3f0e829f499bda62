"""Whatever is sent, the sandbox answers as Kalshi would: 400 or 404 in its shapes, and never 500."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hsm_keys.kalshi.operations import REST_PREFIX, WEBSOCKETS
from hsm_keys.sandbox import SandboxServer
from hsm_keys.sandbox.routes import SERVED
from tests.sandbox.client import Caller, send
from tests.support.listening import listen
from tests.support.orders import order_body
from tests.support.wire import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.kalshi.operations import Operation
    from tests.sandbox.client import Reply

CHANGE = {"ticker": "KXTEST-1", "side": "bid", "price": "0.45", "count": "7"}
PERP = {"ticker": "KXPERPTEST"}
ORDER = order_body(
    expiration_time=4_000_000_000,
    post_only=False,
    reduce_only=False,
    cancel_order_on_pause=True,
    subaccount=0,
    exchange_index=0,
    order_group_id="",
)
WRITES: dict[str, tuple[dict[str, Any], str]] = {
    "POST /api_keys": ({"name": "n", "public_key": "no PEM", "scopes": ["read"], "subaccount": 1}, "/api_keys"),
    "POST /api_keys/generate": ({"name": "n", "key_type": "ed25519", "scopes": ["read"]}, "/api_keys"),
    "POST /portfolio/events/orders": (ORDER, "/portfolio/orders"),
    "POST /portfolio/events/orders/batched": ({"orders": [ORDER]}, "/portfolio/orders"),
    "DELETE /portfolio/events/orders/batched": ({"orders": [{"order_id": "x"}]}, "/portfolio/orders"),
    "POST /portfolio/events/orders/{order_id}/amend": (CHANGE | {"expiration_time": 0}, "/portfolio/orders"),
    "POST /portfolio/events/orders/{order_id}/decrease": ({"reduce_by": "1"}, "/portfolio/orders"),
    "POST /margin/orders": (order_body(**PERP, market_version=1, market_id="x"), "/margin/orders"),
    "POST /margin/orders/{order_id}/amend": (CHANGE | PERP | {"market_id": "x"}, "/margin/orders"),
    "POST /margin/orders/{order_id}/decrease": ({"reduce_to": "1"}, "/margin/orders"),
    "POST /portfolio/order_groups/create": ({"contracts_limit": 5, "subaccount": 0}, "/portfolio/order_groups"),
    "POST /margin/order_groups/create": ({"contracts_limit": 5, "exchange_index": 0}, "/margin/order_groups"),
    "PUT /portfolio/order_groups/{order_group_id}/limit": ({"contracts_limit_fp": "5"}, "/portfolio/order_groups"),
    "POST /communications/rfqs": (
        {"market_ticker": "KXTEST-1", "rest_remainder": True, "contracts": 5, "target_cost_dollars": "5"},
        "/communications/rfqs",
    ),
    "POST /communications/quotes": (
        {"rfq_id": "x", "yes_bid": "0.45", "no_bid": "0", "rest_remainder": True},
        "/communications/quotes",
    ),
    "PUT /communications/quotes/{quote_id}/accept": ({"accepted_side": "yes"}, "/communications/quotes"),
    "PUT /communications/rfqs/{rfq_id}/quotes/{quote_id}/accept": ({"accepted_side": "no"}, "/communications/quotes"),
}
"""A body that is well formed for each write that takes one, and what lists its effects."""

ODD_TEXTS = [
    "",
    "0",
    "1.0000",
    "0.12345",
    "-0.5",
    "1e3",
    "NaN",
    "9" * 4400,
    "\u0663",
    "\0",
    "\ud800",
    "KXTEST-2",
    "true",
]
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**30, 253_402_300_800])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(ODD_TEXTS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def boss() -> Iterator[Caller]:
    with SandboxServer(key_type="ed25519") as server:
        yield Caller.bootstrap(server)


RFQ = {"market_ticker": "KXTEST-1", "rest_remainder": True, "contracts": 5}
MAKERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "order_id": ("/portfolio/events/orders", order_body(client_order_id=None), "order_id"),
    "order_group_id": ("/portfolio/order_groups/create", {"contracts_limit": 5}, "order_group_id"),
    "rfq_id": ("/communications/rfqs", RFQ, "id"),
}
"""What makes the thing that a parameter of a path names: route, body, and the field of the answer with its id."""


class Things:
    """Looks up the parameters of a path: a new thing for each, and the same one within a path."""

    def __init__(self, boss: Caller) -> None:
        self._boss = boss
        self._made: dict[str, str] = {}

    def __getitem__(self, parameter: str) -> str:
        if parameter not in self._made:
            self._made[parameter] = self._make(parameter)
        return self._made[parameter]

    def _make(self, parameter: str) -> str:
        if parameter == "quote_id":
            offer = {"rfq_id": self["rfq_id"], "yes_bid": "0.45", "no_bid": "0", "rest_remainder": True}
            return self._post("/communications/quotes", offer, "id")
        return self._post(*MAKERS[parameter]) if parameter in MAKERS else "unknown"

    def _post(self, path: str, body: dict[str, Any], field: str) -> str:
        reply = self._boss.call("POST", REST_PREFIX + path, body)
        assert reply.status == 201, reply.body
        return str(reply.json[field])


def target(boss: Caller, operation: str) -> tuple[str, str]:
    method, _, template = operation.partition(" ")
    return method, REST_PREFIX + template.format_map(Things(boss))


def check(reply: Reply) -> None:
    assert reply.status < 400 or reply.status in {400, 403, 404, 409}, reply.body
    assert reply.status < 400 or shape_of(reply.json) in {"nested", "flat", "bare"}


def fresh(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body whose order hasn't been sent before."""
    return body | {"client_order_id": str(uuid4())} if "client_order_id" in body else body


EDGES: list[Any] = [
    2**63,
    10**30,
    253_402_300_800,
    -1,
    0,
    1.5,
    True,
    None,
    "",
    "9" * 5000,
    "\ud800",
    "\0",
    [],
    {},
    ["x"],
]
"""Values that are likely to be forgotten somewhere; the third is the first second of the year 10000."""


@pytest.mark.parametrize("name", WRITES)
def test_no_value_of_a_field_makes_it_fail(boss: Caller, name: str) -> None:
    valid, listing = WRITES[name]
    method, path = target(boss, name)
    for field in valid:
        for value in EDGES:
            check(boss.call(method, path, fresh(valid) | {field: value}))
            if "orders" in valid:
                for inner in valid["orders"][0]:
                    check(boss.call(method, path, {"orders": [fresh(valid["orders"][0]) | {inner: value}]}))
        shown = boss.call("GET", REST_PREFIX + listing)
        assert shown.status == 200, (field, shown.body)  # nothing was kept that can't be shown


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_body_makes_it_fail(boss: Caller, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(WRITES)))
    valid, listing = WRITES[name]
    body: dict[str, Any] = json.loads(json.dumps(valid))
    changed = body["orders"][0] if "orders" in body and data.draw(st.booleans()) else body
    for field in data.draw(st.sets(st.sampled_from([*changed, "unknown"]), min_size=1, max_size=2)):
        changed[field] = data.draw(ODD)
    reply = boss.call(*target(boss, name), body)
    check(reply)
    assert "unknown" not in body or reply.status == 400 or name.startswith("POST /api_keys")
    assert boss.call("GET", REST_PREFIX + listing).status == 200  # nothing was kept that can't be shown


READS = [it for it in SERVED if it.method in {"GET", "DELETE"} and it not in WEBSOCKETS and it.instead is None]
PARAMETERS = ["limit", "cursor", "status", "ticker", "tickers", "subaccount", "min_ts", "max_ts", "event_ticker"]
PARAMETERS += ["order_id", "exchange_index", "market_ticker", "with_nested_markets", "count_filter", "depth", "rfq_id"]
VALUES = (
    st.text(max_size=6) | st.integers().map(str) | st.sampled_from([text for text in ODD_TEXTS if text != "\ud800"])
)


@pytest.mark.parametrize("operation", READS, ids=lambda operation: operation.name)
def test_no_value_of_a_query_makes_it_fail(boss: Caller, operation: Operation) -> None:
    method, path = target(boss, operation.name)
    for parameter in PARAMETERS:
        for value in ("9" * 4400, "\u0663"):
            check(boss.call(method, f"{path}?{urlencode({parameter: value})}"))


@settings(max_examples=100, deadline=None)
@given(operation=st.sampled_from(READS), query=st.dictionaries(st.sampled_from(PARAMETERS), VALUES, max_size=2))
def test_no_query_makes_it_fail(boss: Caller, operation: Operation, query: dict[str, str]) -> None:
    assume(len(urlencode(query)) < 8000)  # longer request lines never get to the sandbox
    method, path = target(boss, operation.name)
    check(boss.call(method, f"{path}?{urlencode(query)}"))


@pytest.mark.parametrize("query", ["limit", "limit=1&limit=x", "%", "cursor=%ff", "&&&", "=", "a" * 3000])
@pytest.mark.parametrize("listing", sorted({listing for _, listing in WRITES.values()}))
def test_no_odd_query_makes_it_fail(boss: Caller, listing: str, query: str) -> None:
    check(boss.call("GET", f"{REST_PREFIX}{listing}?{query}"))


@pytest.mark.parametrize("name", WRITES)
def test_a_body_that_is_none_is_refused(boss: Caller, name: str) -> None:
    method, path = target(boss, name)
    content = json.dumps(WRITES[name][0]).encode()
    for body in (None, b"", b"x", b"[]", b"null", b"1", b'"{}"', b"\xff", content[:-1], content + b"{}", b"{" * 5000):
        reply = boss.call(method, path, body)
        assert (reply.status, shape_of(reply.json)) in {(400, "flat"), (400, "bare")}, body
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", "multipart/form-data; x"):
        reply = send(boss.server, method, path, boss.headers(method, path) | {"Content-Type": kind}, content)
        assert (reply.status, reply.json["code"]) == (400, "invalid_content_type")


@pytest.mark.parametrize("name", WRITES)
def test_a_huge_body_is_refused(boss: Caller, name: str) -> None:
    reply = boss.call(*target(boss, name), {"x": "x" * 2**20})
    assert (reply.status, shape_of(reply.json)) == (413, "flat")


def test_a_batch_of_too_many_is_refused(boss: Caller) -> None:
    orders = [{"order_id": "x"}] * 1001
    assert boss.call("DELETE", f"{REST_PREFIX}/portfolio/events/orders/batched", {"orders": orders}).status == 400


COMMAND = st.fixed_dictionaries(
    {},
    optional={
        "id": ODD,
        "cmd": st.sampled_from(["subscribe", "unsubscribe", "update_subscription"]) | ODD,
        "params": ODD
        | st.fixed_dictionaries(
            {},
            optional={
                "channels": st.lists(st.sampled_from(["fill", "ticker", "orderbook_delta"]) | ODD, max_size=2) | ODD,
                "market_ticker": ODD,
                "market_tickers": st.lists(st.sampled_from(["KXTEST-1"]) | ODD, max_size=2) | ODD,
                "sid": ODD | st.integers(1, 3),
                "sids": st.lists(ODD | st.integers(1, 3), max_size=2) | ODD,
                "action": st.sampled_from(["add_markets", "delete_markets", "get_snapshot"]) | ODD,
            },
        ),
    },
)


@settings(max_examples=20, deadline=None)
@given(commands=st.lists(COMMAND | ODD, min_size=10, max_size=10))
def test_no_command_ends_a_session(boss: Caller, commands: list[Any]) -> None:
    with listen(boss) as listener:
        for command in commands:
            listener.session.send(json.dumps(command))
            kinds = {message["type"] for message in listener.told()}
            assert kinds <= {"error", "ok", "subscribed", "unsubscribed", "ticker", "orderbook_snapshot"}


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b'{"fault": 1}', b'{"fault": "x"}', b'{"fault": "\\ud800"}'])
def test_a_fault_that_is_none_is_refused(boss: Caller, body: bytes) -> None:
    assert send(boss.server, "POST", "/_sandbox/faults", {}, body).status == 400
