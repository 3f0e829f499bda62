"""Order groups: once so many contracts of a group matched within 15 seconds, all its orders end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from hsm_keys.sandbox import bodies
from hsm_keys.sandbox.bodies import body_of
from hsm_keys.sandbox.fixed_point import count_text
from hsm_keys.sandbox.subaccounts import subaccount_of
from hsm_keys.sandbox.wire import Answer, Call, nested

if TYPE_CHECKING:
    from hsm_keys.sandbox.matching import Book, Order

__all__ = ["Groups", "create", "delete", "limit", "list_all", "reset", "show", "trigger"]

_WINDOW_MS: Final = 15_000


@dataclass(slots=True)
class Group:
    """One group.

    Args:
        group_id: Its id.
        limit: The most hundredths of a contract that may match within the window.
        subaccount: Whose it is.
        matches: When how much matched.
        is_triggered: Whether its orders were ended, and it takes none until it is reset.
    """

    group_id: str
    limit: int
    subaccount: int
    matches: list[tuple[int, int]] = field(default_factory=list)
    is_triggered: bool = False


class Groups(dict[str, Group]):
    """The account's groups by id."""

    def check(self, group_id: str | None) -> None:
        """Make sure that a new order may be part of a group.

        Raises:
            WireError: 404 if there is none, 400 if it was triggered.
        """
        if group_id is None:
            return
        if group_id not in self:
            raise nested(404, "not_found", "order group not found")
        if self[group_id].is_triggered:
            raise nested(400, "invalid_order", "invalid order", details="the order group was triggered: reset it first")

    def matched(self, book: Book, order: Order, now_ms: int) -> None:
        """Count what an order matched at once; end the group's orders if that was too much."""
        group = self.get(order.group or "")
        if group is None or not order.filled:
            return
        group.matches = [match for match in group.matches if match[0] > now_ms - _WINDOW_MS] + [(now_ms, order.filled)]
        if sum(count for _, count in group.matches) >= group.limit:
            group.is_triggered = True
            end_orders(book, group.group_id, now_ms)


def end_orders(book: Book, group_id: str, now_ms: int) -> None:
    """End every resting order of a group."""
    for order in list(book.orders.values()):
        if order.group == group_id and order.status == "resting":
            book.end(order, now_ms)


def _found(call: Call) -> Group:
    group = call.state.groups.get(call.path["order_group_id"])
    if group is None or subaccount_of(call, None) not in {None, group.subaccount}:
        raise nested(404, "not_found", "order group not found")
    return group


async def create(call: Call) -> Answer:
    """``POST /portfolio/order_groups/create``."""
    body = body_of(call, bodies.CreateOrderGroup)
    group = Group(str(uuid4()), body.limit, subaccount_of(call, body.subaccount) or 0)
    call.state.groups[group.group_id] = group
    return Answer(201, {"order_group_id": group.group_id, "subaccount": group.subaccount, "exchange_index": 0})


async def list_all(call: Call) -> Answer:
    """``GET /portfolio/order_groups``."""
    shown = [
        {
            "id": group.group_id,
            "contracts_limit_fp": count_text(group.limit),
            "is_auto_cancel_enabled": True,
            "exchange_index": 0,
        }
        for group in call.state.groups.values()
        if subaccount_of(call, None) in {None, group.subaccount}
    ]
    return Answer(200, {"order_groups": shown})


async def show(call: Call) -> Answer:
    """``GET /portfolio/order_groups/{order_group_id}``."""
    group = _found(call)
    orders = [order.order_id for order in call.state.book.orders.values() if order.group == group.group_id]
    shown = {"is_auto_cancel_enabled": True, "orders": orders, "contracts_limit_fp": count_text(group.limit)}
    return Answer(200, shown | {"exchange_index": 0})


async def limit(call: Call) -> Answer:
    """``PUT /portfolio/order_groups/{order_group_id}/limit``."""
    group = _found(call)
    group.limit = body_of(call, bodies.OrderGroupLimit).limit
    return Answer(200, {})


async def reset(call: Call) -> Answer:
    """``PUT /portfolio/order_groups/{order_group_id}/reset``: forget what matched."""
    group = _found(call)
    group.matches.clear()
    group.is_triggered = False
    return Answer(200, {})


async def trigger(call: Call) -> Answer:
    """``PUT /portfolio/order_groups/{order_group_id}/trigger``: end the group's orders now."""
    group = _found(call)
    group.is_triggered = True
    end_orders(call.state.book, group.group_id, call.now_ms)
    return Answer(200, {})


async def delete(call: Call) -> Answer:
    """``DELETE /portfolio/order_groups/{order_group_id}``: end its orders, and the group."""
    group = _found(call)
    end_orders(call.state.book, group.group_id, call.now_ms)
    del call.state.groups[group.group_id]
    return Answer(200, {})
