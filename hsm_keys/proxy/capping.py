"""What the caps on money judge in a request, and how much of them an allowed request takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.proxy.amounts import DOLLAR
from hsm_keys.proxy.settling import SETTLED, Hold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.kalshi.operations import Operation
    from hsm_keys.proxy.exposures import Exposure
    from hsm_keys.proxy.orders import Request
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


def orders_of(reservations: Reservations, request: Request, *, capped: bool) -> list[Exposure]:
    """Return what a request's orders ask for; nothing for an amendment of an order that isn't held, if none is capped.

    Args:
        reservations: Knows the order that is amended.
        request: What the body says.
        capped: Whether caps hold for it.

    Raises:
        CapError: If what an order may cost has to be known and can't be told, or couldn't be looked up later.
    """
    orders = []
    for one in request.exposures:
        if capped and one.perps:
            raise CapError("caps", "the cost of a perpetual future can't be told: name its route in allow_unjudged")
        if not (one.client_order_id or one.amends):
            raise CapError(
                "client_order_id", "the order needs a client_order_id: the proxy looks a lost order up by this id"
            )
        order = _amendment(reservations, one) if one.amends else one
        if order is not None:
            orders.append(order)
        elif capped:
            raise CapError("amend", "that order isn't in the proxy's journal of caps: cancel it, and send another one")
    return orders


def _amendment(reservations: Reservations, exposure: Exposure) -> Exposure | None:
    old = reservations.by_order_id(exposure.amends)
    if old is None:
        return None
    if (exposure.market, exposure.side) != (old.asked.market, old.asked.side):
        raise CapError("amend", "the order is of another market or side")
    if reservations.is_amended(exposure.amends):
        raise CapError("amend", "an earlier amendment of that order isn't known to be over")
    cost = 0 if exposure.perps else exposure.price if exposure.side == "bid" else DOLLAR - exposure.price
    return old.asked._replace(
        size=exposure.size, cost=cost, rests=True, client_order_id="", amends=exposure.amends, price=exposure.price
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
