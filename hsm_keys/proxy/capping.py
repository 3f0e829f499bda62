"""What the caps on money look at in a request, and what an allowed one holds of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.proxy.accounts import CappedOrder
from hsm_keys.proxy.amounts import DOLLAR
from hsm_keys.proxy.exchanges import order_id_of
from hsm_keys.proxy.settling import SETTLED, Hold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.kalshi.operations import Operation
    from hsm_keys.proxy.orders import Exposure, Request
    from hsm_keys.proxy.reservations import Reservations, ReservedOrder

__all__ = ["CapError", "hold_of", "orders_of"]


class CapError(Exception):
    """An order of which the caps can't tell what it may cost.

    Args:
        rule: A stable word.
        message: What the client is told.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def orders_of(reservations: Reservations, request: Request, path: str, *, capped: bool) -> list[CappedOrder]:
    """Return what a request's orders ask for; nothing for an amendment of an order that isn't held, if none is capped.

    Args:
        reservations: Knows the order that is amended.
        request: What the body says.
        path: The request's.
        capped: Whether caps hold for it.

    Raises:
        CapError: If what an order may cost has to be known and can't be told, or couldn't be looked up later.
    """
    orders = []
    for one in request.exposures:
        if capped and one.cost is None:
            raise CapError("caps", "what a perpetual future may cost can't be told: name its route in allow_unjudged")
        order = _amendment(reservations, one, path) if one.amends else _new(one)
        if order is not None:
            orders.append(order)
        elif capped:
            raise CapError("amend", "the proxy doesn't hold that order under its caps: cancel it, and send another one")
    return orders


def _new(exposure: Exposure) -> CappedOrder:
    name = exposure.client_order_id
    if not name:
        raise CapError("client_order_id", "the order needs a client_order_id: it is looked up by it")
    cost = exposure.cost or 0
    return CappedOrder(
        exposure.market,
        exposure.side,
        exposure.count,
        cost,
        exposure.rests,
        not cost,
        name,
        "",
        exposure.perps,
        exposure.subaccount,
    )


def _amendment(reservations: Reservations, exposure: Exposure, path: str) -> CappedOrder | None:
    order_id = order_id_of(path)
    old = reservations.by_order_id(order_id)
    if old is None:
        return None
    if (exposure.market, exposure.side) != (old.asked.market, old.asked.side):
        raise CapError("amend", "the order is of another market or side")
    if reservations.is_amended(order_id):
        raise CapError("amend", "an earlier amendment of that order isn't known to be over")
    cost = 0 if exposure.perps else exposure.price if exposure.side == "bid" else DOLLAR - exposure.price
    return old.asked._replace(
        size=exposure.count, cost=cost, rests=True, reduces=not cost, client_order_id="", amends=order_id
    )


def hold_of(
    reservations: Reservations, operation: Operation, path: str, orders: Sequence[ReservedOrder] = ()
) -> Hold | None:
    """Return what an allowed request holds of the caps, or may give back of them; None if nothing.

    Args:
        reservations: Where it is held.
        operation: What is asked for.
        path: The request's.
        orders: What was reserved for it.
    """
    if not orders and (operation.name not in SETTLED or not reservations.orders):
        return None
    return Hold(reservations, operation.name, path, orders)
