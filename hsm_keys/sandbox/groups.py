"""The routes of order groups: of events below ``/portfolio/order_groups``, of perpetuals below ``/margin``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.sandbox import bodies
from hsm_keys.sandbox.bodies import body_of
from hsm_keys.sandbox.fixed_point import count_text
from hsm_keys.sandbox.queries import asked_subaccount
from hsm_keys.sandbox.subaccounts import subaccount_of
from hsm_keys.sandbox.wire import Call, SandboxAnswer, nested

if TYPE_CHECKING:
    from hsm_keys.sandbox.grouping import Groups, OrderGroup

__all__ = ["GroupDesk"]


class GroupDesk:
    """Makes, shows, changes and ends the order groups of one exchange.

    Args:
        perps: Whether it is the exchange of perpetuals.
    """

    def __init__(self, *, perps: bool) -> None:
        self._perps = perps

    def _groups(self, call: Call) -> Groups:
        return call.state.margin_groups if self._perps else call.state.groups

    def _found(self, call: Call) -> OrderGroup:
        group = self._groups(call).get(call.path["order_group_id"])
        if group is None or subaccount_of(call, asked_subaccount(call)) not in {None, group.subaccount}:
            raise nested(404, "not_found", "order group not found")
        return group

    async def create(self, call: Call) -> SandboxAnswer:
        """``POST .../create``."""
        body = body_of(call, bodies.CreateOrderGroup)
        group = self._groups(call).make(body.limit, subaccount_of(call, body.subaccount) or 0, call.now_ms)
        return SandboxAnswer(
            201, {"order_group_id": group.group_id, "subaccount": group.subaccount, "exchange_index": 0}
        )

    async def list_all(self, call: Call) -> SandboxAnswer:
        """``GET``."""
        only = subaccount_of(call, asked_subaccount(call))
        shown = [
            {
                "id": group.group_id,
                "contracts_limit_fp": count_text(group.limit),
                "is_auto_cancel_enabled": True,
                "exchange_index": 0,
            }
            for group in self._groups(call).values()
            if only in {None, group.subaccount}
        ]
        return SandboxAnswer(200, {"order_groups": shown})

    async def show(self, call: Call) -> SandboxAnswer:
        """``GET .../{order_group_id}``."""
        group = self._found(call)
        book = call.state.margin if self._perps else call.state.book
        orders = [order.order_id for order in book.orders.values() if order.group == group.group_id]
        shown = {"is_auto_cancel_enabled": True, "orders": orders, "contracts_limit_fp": count_text(group.limit)}
        return SandboxAnswer(200, shown | {"exchange_index": 0})

    async def limit(self, call: Call) -> SandboxAnswer:
        """``PUT .../{order_group_id}/limit``."""
        self._groups(call).set_limit(self._found(call), body_of(call, bodies.OrderGroupLimit).limit, call.now_ms)
        return SandboxAnswer(200, {})

    async def reset(self, call: Call) -> SandboxAnswer:
        """``PUT .../{order_group_id}/reset``: forget what matched."""
        self._groups(call).reset(self._found(call), call.now_ms)
        return SandboxAnswer(200, {})

    async def trigger(self, call: Call) -> SandboxAnswer:
        """``PUT .../{order_group_id}/trigger``: end the group's orders now."""
        self._groups(call).trigger(self._found(call), call.now_ms)
        return SandboxAnswer(200, {})

    async def delete(self, call: Call) -> SandboxAnswer:
        """``DELETE .../{order_group_id}``: end its orders, and the group."""
        self._groups(call).delete(self._found(call), call.now_ms)
        return SandboxAnswer(200, {})
