"""The table of Kalshi's operations: what is looked up, and what the rows say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hsm_keys.kalshi.operations import OPERATIONS, WEBSOCKETS, Kind, find_operation

ORDERS = "/portfolio/events/orders"


def test_every_row_finds_itself() -> None:
    for operation in OPERATIONS + WEBSOCKETS:
        path = operation.route.replace("{", "x").replace("}", "x")
        assert find_operation(operation.method, path) is operation
    assert len({(operation.method, operation.route) for operation in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize(
    ("method", "path", "template", "kind"),
    [
        ("DELETE", f"{ORDERS}/batched", f"{ORDERS}/batched", Kind.REDUCE),
        ("DELETE", f"{ORDERS}/Batched", f"{ORDERS}/{{order_id}}", Kind.REDUCE),
        ("DELETE", f"/trade-api/v2{ORDERS}/x", f"{ORDERS}/{{order_id}}", Kind.REDUCE),
        ("GET", "/portfolio/orders/queue_positions", "/portfolio/orders/queue_positions", Kind.READ),
        ("GET", "/live_data/weather/nyc", "/live_data/weather/{city}", Kind.READ),
        ("GET", "/trade-api/ws/v2/margin", "/trade-api/ws/v2/margin", Kind.READ),
    ],
)
def test_literal_segments_come_before_parameters(method: str, path: str, template: str, kind: Kind) -> None:
    found = find_operation(method, path)
    assert (found.path, found.kind) == (template, kind)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{ORDERS}/batched/amend"),
        ("POST", f"{ORDERS}/batched/decrease"),
        ("DELETE", "/portfolio/orders/queue_positions"),
        ("PATCH", ORDERS),
        ("POST", "/trade-api/v3/portfolio/events/orders"),
        ("DELETE", f"{ORDERS}/"),
        ("DELETE", f"{ORDERS}//decrease"),
        ("POST", "/"),
        ("POST", ""),
    ],
)
def test_what_is_not_in_the_table_counts_as_trade(method: str, path: str) -> None:
    found = find_operation(method, path)
    assert (found.kind, found.method, found.path) == (Kind.UNKNOWN, method, path)
    assert found.counts_as_trade
    assert not find_operation("GET", "/made/up").counts_as_trade


def test_a_key_needs_the_scope_or_its_parent() -> None:
    assert find_operation("POST", ORDERS).scopes == {"write", "write::trade"}
    assert find_operation("GET", "/portfolio/balance").scopes == {"read", "read::portfolio_balance"}
    assert find_operation("PUT", "/portfolio/subaccounts/netting").scopes == {"write"}
    assert find_operation("GET", "/markets").scopes == frozenset()
    for operation in OPERATIONS:
        assert operation.scope is None or operation.scope.split("::")[0] in operation.scopes


def test_old_order_writes_name_what_has_taken_their_place() -> None:
    gone = [operation for operation in OPERATIONS if operation.instead]
    assert len(gone) == 6
    for operation in gone:
        now = find_operation(operation.method, operation.instead or "")
        assert (now.path, now.kind) == (operation.instead, operation.kind)
        assert operation.path.startswith("/portfolio/orders")


def test_it_loads_nothing_of_this_program_but_itself() -> None:
    code = "import sys, hsm_keys.kalshi.operations; print(*(n for n in sys.modules if n.startswith('hsm_keys')))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert sorted(loaded) == ["hsm_keys", "hsm_keys._version", "hsm_keys.kalshi", "hsm_keys.kalshi.operations"]
