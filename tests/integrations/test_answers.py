"""Every answer of the sandbox is what Kalshi's published clients have models for: whole, of the right types, no more.

The models of kalshi-python-sync are generated from Kalshi's own document and decide; those of kalshi-sdk are written by
hand, and know perpetuals. Where the two contradict each other, ``CONTRADICTIONS`` says so.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import TypeAdapter, ValidationError

from hsm_keys.kalshi.operations import WEBSOCKETS
from hsm_keys.sandbox import SandboxServer
from hsm_keys.sandbox.routes import SERVED
from tests.sandbox.client import Caller, send
from tests.support.every_operation import Walk
from tests.support.sdk_answers import KALSHI_SDK, NO_MODEL, documented_statuses, generated_model, kalshi_sdk_model
from tests.support.sdks import need
from tests.support.wire import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from hsm_keys.kalshi.operations import Operation
    from tests.sandbox.client import Reply

pytestmark = [
    pytest.mark.sdks,
    pytest.mark.skipif(sys.version_info < (3, 13), reason="the newest clients run on Python 3.13"),
]

LIVING = [operation for operation in SERVED if operation not in WEBSOCKETS and operation.instead is None]
EACH = pytest.mark.parametrize("operation", LIVING, ids=lambda operation: operation.name)


@pytest.fixture(scope="module")
def boss() -> Iterator[Caller]:
    with SandboxServer() as server:
        yield Caller.bootstrap(server)


@pytest.fixture(scope="module")
def answers(boss: Caller) -> dict[str, list[Reply]]:
    return Walk(boss).answers


def test_the_walk_and_the_table_have_all_that_is_served(answers: dict[str, list[Reply]]) -> None:
    assert set(answers) == set(KALSHI_SDK) == {operation.name for operation in LIVING}


CONTRADICTIONS = {"liquidity_dollars"}
"""Fields that kalshi-sdk requires (of a Market), and that Kalshi's document of 3.34 hasn't any more: they are sent."""


def read_strictly(model: type[BaseModel], value: object, extra: Literal["forbid"] | None = None) -> None:
    """Read it twice: with dates, and with strict types, which dates below kalshi-sdk's own validators never are."""
    TypeAdapter(model).validate_json(json.dumps(value))
    assert list(problems(model, value, extra)) == []


def problems(model: type[BaseModel], value: object, extra: Literal["forbid"] | None) -> Iterator[str]:
    """Yield what is wrong with a value, dates apart."""
    try:
        TypeAdapter(model).validate_json(json.dumps(value), strict=True, extra=extra)
    except ValidationError as error:
        for found in error.errors():
            is_contradiction = found["type"] == "extra_forbidden" and found["loc"][-1] in CONTRADICTIONS
            if found["type"] != "datetime_type" and not is_contradiction:
                yield f"{found['loc']}: {found['msg']}"


@EACH
def test_kalshi_python_sync_reads_it(answers: dict[str, list[Reply]], operation: Operation) -> None:
    need("kalshi-python-sync")
    for reply in answers[operation.name]:
        documented = documented_statuses(operation.method, operation.path)
        assert documented is None or reply.status in documented
        model = generated_model(operation.method, operation.path, reply.status)
        if model is not None:
            read_strictly(model, reply.json, extra="forbid")


@EACH
def test_kalshi_sdk_reads_it(answers: dict[str, list[Reply]], operation: Operation) -> None:
    need("kalshi-sdk")
    where, _, name = f" {KALSHI_SDK[operation.name]}".rpartition(" ")
    if name == NO_MODEL:
        return
    model = kalshi_sdk_model(name, perps=operation.perps)
    for reply in answers[operation.name]:
        part = reply.json[where.strip().removesuffix("[]")] if where.strip() else reply.json
        for item in part if where.endswith("[]") else [part]:
            read_strictly(model, item, extra="forbid" if operation.perps else None)


FIXED_POINT = re.compile(r"-?[0-9]+\.[0-9]{2,6}")
COUNT = re.compile(r"-?[0-9]+\.[0-9]{2}")


NUMBERS = {"funding_cap", "funding_deadband", "roe"}
"""Ratios, which Kalshi's document has as numbers."""


def fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every field within a JSON value, with its name."""
    if isinstance(value, dict):
        yield from value.items()
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from fields(below)


@EACH
def test_money_and_counts_are_fixed_point_strings(answers: dict[str, list[Reply]], operation: Operation) -> None:
    for reply in answers[operation.name]:
        for name, value in fields(reply.json if reply.body else None):
            assert name in NUMBERS or not isinstance(value, float), name
            if name.endswith("_dollars") and not isinstance(value, list):
                assert FIXED_POINT.fullmatch(value), (name, value)
            elif name.endswith("_fp") and not isinstance(value, dict):
                assert COUNT.fullmatch(value), (name, value)


def target(operation: Operation) -> str:
    """Return a path of that template, to what isn't there."""
    return re.sub("{[^}]*}", "unknown", operation.route)


def check_refusal(reply: Reply, operation: Operation) -> None:
    documented = documented_statuses(operation.method, operation.path)
    if documented is not None and operation.path != "/series/{series_ticker}":  # its document forgets 404
        assert reply.status in documented
    assert shape_of(reply.json) in {"nested", "flat", "bare"}
    error = import_module("kalshi._base_client")._map_error(httpx.Response(reply.status, json=reply.json))
    assert type(error).__name__ not in {"KalshiError", "KalshiServerError"}
    assert str(error)


@pytest.mark.parametrize("operation", [it for it in LIVING if it.signed], ids=lambda operation: operation.name)
def test_without_a_signature_it_is_refused(boss: Caller, operation: Operation) -> None:
    need("kalshi-sdk")
    reply = send(boss.server, operation.method, target(operation), {})
    assert reply.status == 401
    check_refusal(reply, operation)


@pytest.mark.parametrize(
    "operation",
    [it for it in LIVING if "{" in it.path or it.method in {"POST", "PUT"} or it.path.endswith("/batched")],
    ids=lambda operation: operation.name,
)
def test_what_is_not_there_and_no_body_are_refused(boss: Caller, operation: Operation) -> None:
    need("kalshi-sdk")
    reply = boss.call(operation.method, target(operation))
    assert reply.status in {400, 404}
    check_refusal(reply, operation)


def test_kalshi_sdk_reads_order_books(boss: Caller) -> None:
    """It has no models of them: its resources take them apart."""
    need("kalshi-sdk")
    kalshi, perps = import_module("kalshi"), import_module("kalshi.perps")
    key = load_pem_private_key(boss.server.bootstrap_pem.encode(), None)
    auth = kalshi.KalshiAuth(boss.api_key_id, key)
    with kalshi.KalshiClient(auth=auth, config=kalshi.KalshiConfig(base_url=boss.server.base_url)) as client:
        book = client.markets.orderbook("KXTEST-1")
        assert str(book.yes[0].price) == "0.4000"
        assert client.markets.bulk_orderbooks(tickers=["KXTEST-1"])[0].ticker == "KXTEST-1"
    config = perps.PerpsConfig(base_url=boss.server.base_url)
    with perps.PerpsClient(auth=auth, config=config) as client:
        assert str(client.markets.orderbook("KXPERPTEST").bids[0].price) == "0.4000"
        assert str(client.markets.bulk_orderbooks(tickers=["KXPERPTEST"])[0].asks[0].price) == "0.6000"
