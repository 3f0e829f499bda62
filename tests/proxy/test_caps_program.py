"""Caps on money in a proxy that runs, before the sandbox."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

from hsm_keys.proxy.journal import _LOOK_EVERY_S
from hsm_keys.sandbox.faults import parse_fault
from tests.support.cli import run_cli, run_json
from tests.support.kalshi_stub import standing_in
from tests.support.orders import ORDERS, order_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox import SandboxServer
    from tests.support.running_proxy import RunningProxy

    Start = Callable[..., RunningProxy]

POLICY = '[clients.default]\nmax_order_dollars = 3\nmax_dollars_a_day = 5\nmax_open_dollars = "4.50"'


def send(proxy: RunningProxy, name: str, count: str, **changes: Any) -> tuple[int, Any]:
    order = order_body(**{"count": count, "price": "0.5000", "client_order_id": name, **changes})
    return proxy.request("POST", ORDERS, json.dumps(order), {"Content-Type": "application/json"})


def test_caps_hold_over_kills_and_give_back_what_kalshi_gave_back(start: Start) -> None:
    proxy = start(POLICY)
    status, placed = send(proxy, "a", "5")
    assert status == 201
    assert send(proxy, "b", "5")[1]["error"]["code"] == "max_open_dollars"
    proxy.process.send_signal(signal.SIGKILL)
    proxy.process.wait(20)
    proxy = start(POLICY)
    assert send(proxy, "b", "5")[1]["error"]["code"] == "max_open_dollars"
    assert proxy.request("DELETE", f"{ORDERS}/{placed['order_id']}")[0] == 200
    assert send(proxy, "b", "6")[0] == 201


def test_what_kalshi_refuses_is_given_back(start: Start) -> None:
    proxy = start(POLICY)
    assert send(proxy, "a", "6", ticker="KXNONE-1")[0] == 404
    assert send(proxy, "b", "6")[0] == 201


def test_an_order_whose_answer_was_lost_is_looked_up(start: Start, sandbox: SandboxServer) -> None:
    proxy = start(POLICY)
    sandbox.faults.add(parse_fault("POST /portfolio/events/orders:drop-after:1"))
    assert (
        send(proxy, "a", "6", time_in_force="immediate_or_cancel", price="0.0100")[1]["error"]["code"]
        == "outcome_unknown"
    )
    until = time.monotonic() + 20
    while send(proxy, f"b{time.monotonic_ns()}", "6")[0] != 201:  # the first one never rested: the day's cap held it
        assert time.monotonic() < until


def test_an_overlong_answer_is_forwarded_and_changes_no_cap(start: Start, sandbox: SandboxServer) -> None:
    proxy = start(POLICY)
    ended = {"order_id": "o", "fill_count": "0.00", "remaining_count": "0.00", "more": "x" * (6 << 20)}
    with standing_in(sandbox, (201, ended)):
        status, placed = send(proxy, "a", "6")
    assert (status, placed == ended) == (201, True)
    assert send(proxy, "b", "6")[1]["error"]["code"] == "max_dollars_a_day"


def test_an_audit_line_says_money_and_counts(start: Start) -> None:
    proxy = start(POLICY)
    send(proxy, "a", "5")
    send(proxy, "secret-name", "7.55")
    said = [
        (line["verdict"], line["orders"], line["hundredths_of_contracts"], line["hundredths_of_cents"])
        for line in proxy.lines()
        if "orders" in line
    ]
    assert said == [("allowed", 1, 500, 25_000), ("denied", 1, 755, 37_750)]
    assert "secret-name" not in proxy.trail()


def test_limits_status_and_metrics_say_what_is_left(start: Start) -> None:
    proxy = start(POLICY + "\nmax_contracts_a_market = 10\n[all]\nmax_dollars_a_day = 100")
    send(proxy, "a", "5")
    said = run_json("proxy", "limits", "--name", "prod", **proxy.environment)["limits"]
    left = {(row["client"], row["cap"]): row.get("left") or row["left_to_buy"] for row in said}
    assert left == {
        ("default", "max_order_dollars"): "3.0000",
        ("default", "max_dollars_a_day"): "2.5000",
        ("default", "max_open_dollars"): "2.0000",
        ("default", "max_contracts_a_market"): "5.00",
        (None, "max_dollars_a_day"): "97.5000",
    }
    table = run_cli("proxy", "limits", "--name", "prod", **proxy.environment).stdout
    assert "max_open_dollars" in table
    assert "2.0000" in table
    status = run_json("proxy", "status", "--name", "prod", **proxy.environment)
    assert status["caps"]["all"] == {"max_dollars_a_day": "97.5000 of 100.0000"}


def test_a_journal_that_takes_nothing_stops_orders_and_nothing_else(start: Start) -> None:
    proxy = start(POLICY)
    assert send(proxy, "a", "1")[0] == 201
    (proxy.state / "caps" / "journal").unlink()
    time.sleep(_LOOK_EVERY_S)  # sooner it needn't notice
    status, said = send(proxy, "b", "1")
    assert (status, said["error"]["code"]) == (503, "caps")
    assert proxy.request("GET", "/trade-api/v2/portfolio/balance")[0] == 200
