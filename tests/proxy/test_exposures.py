"""What is understood of each kind of body, whole: nothing that the limits and caps look at is left to a default."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hsm_keys.kalshi.operations import find_operation
from hsm_keys.proxy.exposures import Exposure
from hsm_keys.proxy.orders import OrderLimits, Request, UnclearBodyError, read_request
from tests.support.judging import AMENDMENT, ORDER, ORDERS, V2

PERPS = f"{V2}/margin/orders"
ELSEWHERE = "the order isn't for one of the markets that are allowed"
IMMEDIATE = {"time_in_force": "immediate_or_cancel"}


def read(path: str, body: Any, method: str = "POST") -> Request:
    return read_request(find_operation(method, path), path, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("path", "body", "understood"),
    [
        (ORDERS, ORDER, Exposure("KXTEST-1", "bid", 500, 4000, price=4000)),
        (ORDERS, {**ORDER, "side": "ask"}, Exposure("KXTEST-1", "ask", 500, 6000, price=4000)),
        (
            ORDERS,
            {**ORDER, **IMMEDIATE, "side": "ask", "reduce_only": True},
            Exposure("KXTEST-1", "ask", 500, 0, price=4000, rests=False),
        ),
        (
            ORDERS,
            {**ORDER, **IMMEDIATE, "reduce_only": True},
            Exposure("KXTEST-1", "bid", 500, 4000, price=4000, rests=False),
        ),
        (
            ORDERS,
            {**ORDER, "client_order_id": "c1", "subaccount": 3, "reduce_only": False},
            Exposure("KXTEST-1", "bid", 500, 4000, price=4000, client_order_id="c1", subaccount=3),
        ),
        (f"{ORDERS}/o1/amend", AMENDMENT, Exposure("KXTEST-1", "bid", 500, 5000, price=5000, amends="o1")),
        (
            f"{ORDERS}/o1/amend",
            {**AMENDMENT, "side": "ask", "price": "0.1000"},
            Exposure("KXTEST-1", "ask", 500, 9000, price=1000, amends="o1"),
        ),
        (PERPS, {**ORDER, "price": "12.50"}, Exposure("KXTEST-1", "bid", 500, 0, price=125_000, perps=True)),
        (
            f"{PERPS}/o1/amend",
            {**AMENDMENT, "price": "12.50"},
            Exposure("KXTEST-1", "bid", 500, 0, price=125_000, amends="o1", perps=True),
        ),
    ],
)
def test_what_an_order_may_come_to(path: str, body: Any, understood: Exposure) -> None:
    assert read(path, body) == Request(1, (understood,))


def test_a_batch_is_all_of_its_orders() -> None:
    both = read(f"{ORDERS}/batched", {"orders": [ORDER, {**ORDER, "side": "ask", "count": "0.01"}]})
    assert (both.count, both.contracts, both.worst_case) == (2, 501, 20_060)
    cancels = read(f"{ORDERS}/batched", {"orders": [{"order_id": "o1"}] * 3}, "DELETE")
    assert (cancels, cancels.worst_case) == (Request(3), 0)
    assert read(f"{ORDERS}/o1/decrease", {"reduce_by": "1"}) == Request(1)
    assert read(PERPS, {**ORDER, "price": "12.50"}).worst_case is None


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        (PERPS, {**ORDER, "market_id": "m"}, "market_id and ticker both name the market"),
        (ORDERS, {**ORDER, "more": 1}, "it has a field that this route doesn't take"),
        (ORDERS, {**ORDER, "count": "0"}, "count has to be more than nothing"),
        (f"{ORDERS}/batched", {"orders": [ORDER, {}]}, "orders.1.side is missing"),
        (f"{ORDERS}/o1/decrease", {}, "one of reduce_by and reduce_to has to be said"),
        (ORDERS, [], "the body isn't a JSON object"),
    ],
)
def test_why_a_body_is_unclear(path: str, body: Any, why: str) -> None:
    with pytest.raises(UnclearBodyError) as error:
        read(path, body)
    assert str(error.value) == why
    with pytest.raises(UnclearBodyError, match=r"^the route doesn't take what the query says$"):
        read_request(find_operation("POST", path), path, json.dumps(body).encode(), "x=1")


@pytest.mark.parametrize(
    ("limits", "against"),
    [
        (OrderLimits(None, None, None), None),
        (OrderLimits(500, None, None), None),
        (OrderLimits(499, None, None), ("max_count", "the order is for more than 4.99 contracts")),
        (OrderLimits(None, 4000, None), None),
        (OrderLimits(None, 3900, None), ("max_price_cents", "a contract may cost more than 39 cents")),
        (OrderLimits(None, None, ["KXTEST-*"]), None),
        (OrderLimits(None, None, ["X", "kxtest-1"]), ("markets", ELSEWHERE)),
    ],
)
def test_which_limit_is_against_an_order(limits: OrderLimits, against: tuple[str, str] | None) -> None:
    assert limits.against([Exposure("KXTEST-1", "bid", 500, 4000)]) == against
    assert bool(limits) is (limits != OrderLimits(None, None, None))


def test_no_limit_of_prices_can_judge_a_perpetual_future() -> None:
    unknown = [Exposure("KXTEST-1", "bid", 1, 0, perps=True)]
    assert OrderLimits(5, None, None).against(unknown) is None
    why = "what a perpetual future may cost can't be told: name its route in allow_unjudged"
    assert OrderLimits(None, 4000, None).against(unknown) == ("max_price_cents", why)
