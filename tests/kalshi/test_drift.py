"""Kalshi moves on: its newest clients send nothing that isn't in the table, and the judge knows their orders' fields.

When this fails after an update of the clients, add what it names to ``hsm_keys/kalshi/operations.py``, with the kind
that the new operation deserves, or to ``hsm_keys/proxy/schemas.py``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args

import pytest

from hsm_keys.kalshi.operations import OPERATIONS, find_operation
from hsm_keys.proxy.schemas import SCHEMAS, CancelBatch, CreateBatch, CreateOrder
from tests.support.sdk_operations import bare, operations_of_kalshi_python_sync, operations_of_kalshi_sdk
from tests.support.sdks import need

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from tests.support.sdk_operations import Operations

pytestmark = [
    pytest.mark.sdks,
    pytest.mark.skipif(sys.version_info < (3, 13), reason="the newest clients run on Python 3.13"),
]

KNOWN: set[tuple[str, str]] = {
    (operation.method, bare(operation.path)) for operation in OPERATIONS if not operation.instead
}


def missing(sent: Operations, known: Operations = KNOWN) -> list[str]:
    return sorted(f"{method} {path}" for method, path in sent - known)


@pytest.mark.parametrize(
    ("client", "read", "at_least"),
    [
        ("kalshi-python-sync", operations_of_kalshi_python_sync, 118),
        ("kalshi-sdk", operations_of_kalshi_sdk, 182),
    ],
)
def test_the_table_has_every_operation_that_a_client_can_send(
    client: str, read: Callable[[], Operations], at_least: int
) -> None:
    need(client)
    sent = read()
    assert len(sent) >= at_least, "less was read out of the client than there was"
    assert missing(sent) == []


def test_no_client_sends_what_is_gone() -> None:
    need("kalshi-sdk")
    sent = operations_of_kalshi_python_sync() | operations_of_kalshi_sdk()
    assert not sent & {(operation.method, bare(operation.path)) for operation in OPERATIONS if operation.instead}


def test_the_table_has_nothing_that_no_client_can_send() -> None:
    need("kalshi-sdk")
    assert missing(KNOWN, operations_of_kalshi_python_sync() | operations_of_kalshi_sdk()) == []


def test_a_row_that_is_missing_is_named() -> None:
    need("kalshi-sdk")
    without = KNOWN - {("POST", "/portfolio/events/orders/{}/amend")}
    assert missing(operations_of_kalshi_sdk(), without) == ["POST /portfolio/events/orders/{}/amend"]


EVENTS, PERPS = "kalshi.models.orders", "kalshi.perps.models.orders"
GENERATED = "kalshi_python_sync.models"
MODELS = [
    ("POST /portfolio/events/orders", EVENTS, "CreateOrderV2Request"),
    ("POST /portfolio/events/orders", GENERATED, "CreateOrderV2Request"),
    ("POST /portfolio/events/orders/batched", EVENTS, "BatchCreateOrdersV2Request"),
    ("POST /portfolio/events/orders/batched", GENERATED, "BatchCreateOrdersV2Request"),
    ("DELETE /portfolio/events/orders/batched", EVENTS, "BatchCancelOrdersV2Request"),
    ("DELETE /portfolio/events/orders/batched", GENERATED, "BatchCancelOrdersV2Request"),
    ("POST /portfolio/events/orders/{order_id}/amend", EVENTS, "AmendOrderV2Request"),
    ("POST /portfolio/events/orders/{order_id}/amend", GENERATED, "AmendOrderV2Request"),
    ("POST /portfolio/events/orders/{order_id}/decrease", EVENTS, "DecreaseOrderV2Request"),
    ("POST /portfolio/events/orders/{order_id}/decrease", GENERATED, "DecreaseOrderV2Request"),
    ("POST /margin/orders", PERPS, "CreateMarginOrderRequest"),
    ("POST /margin/orders/{order_id}/amend", PERPS, "AmendMarginOrderRequest"),
    ("POST /margin/orders/{order_id}/decrease", PERPS, "DecreaseMarginOrderRequest"),
]


@pytest.mark.parametrize(("route", "module", "name"), MODELS)
def test_the_judge_knows_the_fields_of_a_client(route: str, module: str, name: str) -> None:
    need("kalshi-sdk")
    ours, theirs = SCHEMAS[route], model(module, name)
    assert set(ours.model_fields) == set(theirs.model_fields)
    assert required(ours) <= required(theirs)


def test_every_schema_is_compared() -> None:
    assert {route for route, _, _ in MODELS} == set(SCHEMAS)
    assert all(find_operation(*route.split()).name == route for route in SCHEMAS)


@pytest.mark.parametrize(
    ("batch", "name", "one"),
    [
        (CreateBatch, "BatchCreateOrdersV2Request", "CreateOrderV2Request"),
        (CancelBatch, "BatchCancelOrdersV2Request", "BatchCancelOrdersV2RequestOrder"),
    ],
)
def test_the_judge_knows_the_fields_of_a_batch(batch: type[BaseModel], name: str, one: str) -> None:
    need("kalshi-sdk")
    (ours,) = get_args(batch.model_fields["orders"].annotation)
    (theirs,) = get_args(model(EVENTS, name).model_fields["orders"].annotation)
    assert theirs.__name__ == one
    assert set(ours.model_fields) == set(theirs.model_fields)
    (generated,) = get_args(model(GENERATED, name).model_fields["orders"].annotation)
    assert set(ours.model_fields) == set(generated.model_fields)
    assert required(ours) <= required(generated)


@pytest.mark.parametrize("field", ["side", "time_in_force", "self_trade_prevention_type"])
def test_the_judge_knows_the_choices_of_a_client(field: str) -> None:
    need("kalshi-sdk")
    choices = set(get_args(CreateOrder.model_fields[field].annotation))
    for module, name in ((EVENTS, "CreateOrderV2Request"), (PERPS, "CreateMarginOrderRequest")):
        assert choices == set(get_args(model(module, name).model_fields[field].annotation))
    assert choices_of_generated(field) in {None, frozenset(choices)}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"side": "ask", "reduce_only": True, "time_in_force": "immediate_or_cancel"},
        {"client_order_id": "a b", "expiration_time": 1, "subaccount": 3, "exchange_index": 2, "post_only": True},
    ],
)
def test_what_a_client_writes_is_of_the_judges_form(change: dict[str, Any]) -> None:
    need("kalshi-sdk")
    order = {
        "ticker": "KXHIGHNY-26NOV23-T55.5",
        "client_order_id": "1",
        "side": "bid",
        "count": "2.5",
        "price": "0.5",
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "maker",
        **change,
    }
    written = model(EVENTS, "CreateOrderV2Request").model_validate(order)
    assert CreateOrder.model_validate(written.model_dump(mode="json", exclude_none=True)).count == 250
    generated = model(GENERATED, "CreateOrderV2Request").model_validate(order)
    assert CreateOrder.model_validate(generated.model_dump(mode="json", exclude_none=True)).price == 5000


def model(module: str, name: str) -> type[BaseModel]:
    found: type[BaseModel] = getattr(import_module(module), name)
    return found


def required(found: type[BaseModel]) -> set[str]:
    return {name for name, field in found.model_fields.items() if field.is_required()}


def choices_of_generated(field: str) -> frozenset[str] | None:
    """Return the choices of an enumeration of kalshi-python-sync; None where it checks a text instead."""
    kind = model(GENERATED, "CreateOrderV2Request").model_fields[field].annotation
    return None if kind is str else frozenset(member.value for member in kind)  # type: ignore[union-attr]
